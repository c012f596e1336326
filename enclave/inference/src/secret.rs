//! Text and token ids that belong to a client: no `Debug`, no `Display`, wiped when dropped.
#![expect(missing_debug_implementations, reason = "secrets must not be printable")]

use zeroize::{Zeroize, Zeroizing};

/// Text of a prompt or an answer. Wiped when dropped; cannot be formatted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// The text. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretString {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for SecretString {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// Token ids of a prompt or an answer: as secret as their text. Wiped when dropped; cannot be formatted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Zeroizing<Vec<u32>>);

impl Tokens {
    /// Ids from elsewhere, for tests and benchmarks: special tokens among them are obeyed, whoever wrote them.
    pub fn dangerous_from_ids(ids: &[u32]) -> Self {
        Self(Zeroizing::new(ids.to_vec()))
    }

    /// The ids, for tests and benchmarks: they reveal the text.
    pub fn dangerous_ids(&self) -> &[u32] {
        &self.0
    }

    /// How many tokens.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Room for `capacity` ids, so that growing leaves no unwiped copy behind.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    pub(crate) fn push(&mut self, id: u32) {
        self.0.push(id);
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

/// Appends to a secret without leaving a copy of its old buffer behind when it has to grow.
pub(crate) fn append(secret: &mut Zeroizing<String>, text: &str) {
    let needed = secret.len() + text.len();
    if needed > secret.capacity() {
        let mut grown = Zeroizing::new(String::with_capacity(needed.next_power_of_two()));
        grown.push_str(secret);
        *secret = grown;
    }
    secret.push_str(text);
}

/// Appends to a secret list without leaving a copy of its old buffer behind when it has to grow.
pub(crate) fn push<T: Zeroize>(secret: &mut Zeroizing<Vec<T>>, value: T) {
    make_room(secret);
    secret.push(value);
}

/// Room for one more, without leaving a copy of the old buffer behind.
pub(crate) fn make_room<T: Zeroize>(secret: &mut Zeroizing<Vec<T>>) {
    if secret.len() == secret.capacity() {
        let mut grown = Zeroizing::new(Vec::with_capacity((2 * secret.len()).max(16)));
        grown.append(secret);
        *secret = grown; // the old buffer is wiped, all of its capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_and_keep_what_is_in_them() {
        let mut secret = Zeroizing::new(Vec::new());
        (0..100_u32).for_each(|value| push(&mut secret, value));
        assert!(secret.iter().copied().eq(0..100));
    }

    #[test]
    fn append_grows_and_keeps_the_text() {
        let mut secret = Zeroizing::new(String::new());
        for piece in ["a", "", "bcd", "é", "0123456789"] {
            append(&mut secret, piece);
        }
        assert_eq!(*secret, "abcdé0123456789");
    }

    #[test]
    fn lengths_are_bytes_and_tokens() {
        assert_eq!(SecretString::from("é").len(), 2);
        assert!(SecretString::default().is_empty());
        assert_eq!(Tokens::dangerous_from_ids(&[1, 2]).len(), 2);
    }
}
