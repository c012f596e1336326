//! The one place that indexes into files from outside.

/// Fixed-size little-endian fields at given places; `None` for what lies outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    /// `len` bytes at `at`.
    pub(crate) fn slice(self, at: usize, len: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(len)?)
    }

    /// `N` bytes at `at`.
    pub(crate) fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    pub(crate) fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// A 32-bit field that counts bytes, or is a place.
    pub(crate) fn size(self, at: usize) -> Option<usize> {
        usize::try_from(self.u32(at)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_read() {
        let bytes = Bytes(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes.u16(6), Some(0x0807));
        assert_eq!(
            (bytes.u16(7), bytes.u32(5), bytes.u64(1), bytes.u16(usize::MAX)),
            (None, None, None, None)
        );
        assert_eq!((bytes.u64(0), bytes.size(0)), (Some(0x0807_0605_0403_0201), Some(0x0403_0201)));
        assert_eq!(bytes.slice(4, 4), Some(&[5, 6, 7, 8][..]));
        assert_eq!((bytes.slice(4, 5), bytes.slice(1, usize::MAX)), (None, None));
    }
}
