//! For fuzzing: parsers that are not public.
#![doc(hidden)]

/// A padded answer.
pub fn padded_answer(bytes: &[u8]) {
    crate::answer::take_apart(bytes);
}

/// An answer with vectors.
pub fn embeddings(bytes: &[u8]) {
    crate::embed::fuzz(bytes);
}
