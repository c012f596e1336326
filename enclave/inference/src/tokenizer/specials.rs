//! Finding whole tokens in text.

use std::collections::HashMap;

/// Texts of tokens, as a tree of their bytes.
pub(super) struct Specials {
    /// From a node and a byte to the node behind it; node 0 is the root.
    edges: HashMap<(u32, u8), u32>,
    /// The token that ends at a node.
    ends: HashMap<u32, u32>,
}

impl Specials {
    pub(super) fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let (mut edges, mut ends) = (HashMap::new(), HashMap::new());
        for (text, id) in tokens.into_iter().filter(|(text, _)| !text.is_empty()) {
            let mut node = 0;
            for byte in text.bytes() {
                let new = u32::try_from(edges.len() + 1).unwrap_or(u32::MAX);
                node = *edges.entry((node, byte)).or_insert(new);
            }
            ends.insert(node, id);
        }
        Self { edges, ends }
    }

    /// The first token in the text, the longest where several begin there: start, end and id.
    pub(super) fn find(&self, text: &str) -> Option<(usize, usize, u32)> {
        if self.ends.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        (0..bytes.len()).find_map(|start| {
            let (end, id) = self.longest(bytes.get(start..)?)?;
            Some((start, start + end, id))
        })
    }

    fn longest(&self, bytes: &[u8]) -> Option<(usize, u32)> {
        let (mut node, mut found) = (0, None);
        for (len, byte) in (1..).zip(bytes) {
            let Some(next) = self.edges.get(&(node, *byte)) else { break };
            node = *next;
            found = self.ends.get(&node).map(|id| (len, *id)).or(found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_longest_is_found() {
        let specials = Specials::new([("<a>", 1), ("<a><b>", 2), ("\n", 3), ("\n\n", 4), ("", 5), ("é", 6)]);
        assert_eq!(specials.find("x<a><b>"), Some((1, 7, 2)));
        assert_eq!(specials.find("x<a><c>"), Some((1, 4, 1)));
        assert_eq!(specials.find("é\n\n\n"), Some((0, 2, 6)));
        assert_eq!(specials.find("\n\n\n"), Some((0, 2, 4)));
        assert_eq!(specials.find("<a"), None);
        assert_eq!(Specials::new([]).find("<a>"), None);
    }
}
