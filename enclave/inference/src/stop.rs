//! Stop strings: found across the borders of pieces, never passed on.

use crate::secret::{SecretString, append};
use zeroize::Zeroizing;

/// Watches a stream of text for stop strings.
pub(crate) struct StopMatcher {
    stops: Vec<SecretString>,
    held: Zeroizing<String>,
}

/// What to pass on.
pub(crate) struct Passed {
    /// Text that is certainly not part of a stop string.
    pub(crate) text: SecretString,
    /// Whether a stop string came; nothing may follow then.
    pub(crate) stopped: bool,
}

impl StopMatcher {
    /// `stops`: none empty.
    pub(crate) fn new(stops: Vec<SecretString>) -> Self {
        Self { stops, held: Zeroizing::default() }
    }

    /// Takes a piece; holds back what may be the beginning of a stop string.
    pub(crate) fn push(&mut self, piece: &str) -> Passed {
        append(&mut self.held, piece);
        // The stop that ends first, of several the longest: so it does not matter how the text was cut into pieces.
        let find = |stop: &SecretString| self.held.find(stop.expose()).map(|at| (at + stop.len(), at));
        let found = self.stops.iter().filter_map(find).min().map(|(_, at)| at);
        let end = found.unwrap_or_else(|| self.held.len() - self.pending());
        let text = SecretString::from(self.held.get(..end).unwrap_or_default());
        let rest = self.held.get(end..).unwrap_or_default().to_owned();
        self.held = Zeroizing::new(rest);
        Passed { text, stopped: found.is_some() }
    }

    /// Gives what was held back, at the end of the stream.
    pub(crate) fn finish(&mut self) -> SecretString {
        SecretString::from(std::mem::take(&mut *self.held))
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn pending(&self) -> usize {
        let begins = |stop: &SecretString| {
            let longest = stop.len().saturating_sub(1).min(self.held.len());
            (1..=longest).rev().find(|n| {
                let end = self.held.len() - n;
                self.held.as_bytes().get(end..).is_some_and(|tail| stop.expose().as_bytes().starts_with(tail))
            })
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|stop| SecretString::from(*stop)).collect());
        let mut out = String::new();
        for piece in pieces {
            let passed = matcher.push(piece);
            out.push_str(passed.text.expose());
            if passed.stopped {
                return (out, true);
            }
        }
        out.push_str(matcher.finish().expose());
        (out, false)
    }

    #[test]
    fn finds_stops_across_pieces_and_passes_the_text_before() {
        assert_eq!(run(&["END"], &["one E", "N", "D two"]), ("one ".to_owned(), true));
        assert_eq!(run(&["\n\n"], &["a\n", "b\n", "\nc"]), ("a\nb".to_owned(), true));
        assert_eq!(run(&["END"], &["ENDthen"]), (String::new(), true));
    }

    #[test]
    fn the_earliest_stop_wins() {
        assert_eq!(run(&["zz", "b"], &["abzz"]), ("a".to_owned(), true));
    }

    #[test]
    fn false_beginnings_are_passed_on() {
        assert_eq!(run(&["END"], &["EN", "EN", "x EN"]), ("ENENx EN".to_owned(), false));
        assert_eq!(run(&["aab"], &["aa", "ab"]), ("a".to_owned(), true));
        assert_eq!(run(&[], &["all ", "of it"]), ("all of it".to_owned(), false));
    }

    #[test]
    fn characters_are_never_cut() {
        assert_eq!(run(&["é!"], &["caf", "é", "s"]), ("cafés".to_owned(), false));
        assert_eq!(run(&["日本"], &["今日", "は日", "本"]), ("今日は".to_owned(), true));
    }

    #[test]
    fn text_is_held_only_while_it_may_be_a_stop() {
        let mut matcher = StopMatcher::new(vec!["STOP".into()]);
        assert_eq!(matcher.push("abcS").text.expose(), "abc");
        assert_eq!(matcher.push("T").text.expose(), "");
        assert_eq!(matcher.push("x").text.expose(), "STx");
    }

    #[test]
    fn how_the_text_is_cut_does_not_matter() {
        let mut state = 7_u32;
        let mut below = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % n
        };
        let mut stopped = 0;
        for _ in 0..3000 {
            let mut text = |longest| -> String {
                (0..1 + below(longest)).map(|_| ['a', 'b', '\u{e9}'][below(3) as usize]).collect()
            };
            let (stops, text) = ([text(4), text(4), text(5)], text(14));
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            // The shortest beginning of the text that ends with a stop, without the longest that it ends with.
            let ends = text.char_indices().map(|(at, c)| &text[..at + c.len_utf8()]);
            let cuts =
                ends.filter_map(|begin| stops.iter().filter_map(|stop| begin.strip_suffix(stop)).min());
            let wanted = cuts.map(str::to_owned).next();
            let wanted = wanted.map_or((text.clone(), false), |cut| (cut, true));
            for size in 1..=4 {
                let characters: Vec<char> = text.chars().collect();
                let pieces: Vec<String> =
                    characters.chunks(size).map(|piece| piece.iter().collect()).collect();
                let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                assert_eq!(run(&stops, &pieces), wanted, "{stops:?} {pieces:?}");
            }
            stopped += u32::from(wanted.1);
        }
        assert!((500..2900).contains(&stopped), "{stopped}");
    }
}
