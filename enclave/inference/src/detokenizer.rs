//! Bytes of tokens to text, a whole character at a time.

use crate::secret::SecretString;
use zeroize::Zeroizing;

/// The longest possible beginning of a character that is still incomplete.
const MAX_PARTIAL: usize = 3;

/// Collects the bytes of tokens until they are characters.
#[derive(Default)]
pub(crate) struct Detokenizer {
    partial: Zeroizing<Vec<u8>>,
}

impl Detokenizer {
    /// Takes the bytes of a token; gives the characters that are complete now. Bytes that cannot become a character
    /// any more are replaced by U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> SecretString {
        let mut input = Zeroizing::new(Vec::with_capacity(MAX_PARTIAL + bytes.len()));
        input.extend_from_slice(&self.partial);
        input.extend_from_slice(bytes);
        self.partial = Zeroizing::default();

        // A replacement has three bytes for at least one.
        let mut text = String::with_capacity(3 * input.len());
        let mut chunks = input.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let incomplete = chunks.peek().is_none() && may_be_completed(chunk.invalid());
            if incomplete {
                self.partial = Zeroizing::new(chunk.invalid().to_vec());
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        SecretString::from(text)
    }

    /// Gives what is left at the end of the stream: U+FFFD for an incomplete character.
    pub(crate) fn finish(&mut self) -> SecretString {
        let partial = std::mem::take(&mut self.partial);
        SecretString::from(if partial.is_empty() { "" } else { "\u{fffd}" })
    }
}

/// Whether more bytes could make `bytes` a character.
fn may_be_completed(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pieces: &[&[u8]]) -> Vec<String> {
        let mut detokenizer = Detokenizer::default();
        let mut out: Vec<_> =
            pieces.iter().map(|piece| detokenizer.push(piece).expose().to_owned()).collect();
        out.push(detokenizer.finish().expose().to_owned());
        out
    }

    #[test]
    fn characters_wait_for_their_last_byte() {
        assert_eq!(stream(&[b"caf\xc3", b"\xa9!"]), ["caf", "é!", ""]);
        assert_eq!(stream(&[b"\xf0", b"\x9f", b"\x90", b"\x88"]), ["", "", "", "🐈", ""]);
    }

    #[test]
    fn invalid_bytes_are_replaced_at_once_and_incomplete_ones_at_the_end() {
        assert_eq!(stream(&[b"a\xffb"]), ["a\u{fffd}b", ""]);
        assert_eq!(stream(&[b"\xe6\x97", b"x"]), ["", "\u{fffd}x", ""]);
        assert_eq!(stream(&[b"a\xe6\x97"]), ["a", "\u{fffd}"]);
        assert_eq!(stream(&[b"\xed\xa0\x80"]), ["\u{fffd}\u{fffd}\u{fffd}", ""]);
    }

    #[test]
    fn any_cut_of_a_text_gives_the_text() {
        let text = "naïve 🐈‍⬛ 富士山 مصر";
        for size in 1..=5 {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(stream(&pieces).concat(), text);
        }
    }
}
