//! The one place that indexes into bytes from outside.

use crate::Error;

/// Reads fixed-size big- or little-endian fields from a slice. What was not read is an error: see [`Reader::finish`].
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`; `what` names the structure in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((head, tail)) = self.rest.split_at_checked(n) else {
            return Err(Error::malformed(
                self.what,
                format!("truncated: {n} bytes needed, {} left", self.rest.len()),
            ));
        };
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16_le(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u16_be(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24_le(&mut self) -> Result<u32, Error> {
        self.array().map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    pub(crate) fn u32_le(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64_le(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    /// `n` bytes that the specification reserves: all zero.
    pub(crate) fn zeros(&mut self, n: usize, field: &str) -> Result<(), Error> {
        if self.take(n)?.iter().any(|byte| *byte != 0) {
            return Err(Error::malformed(self.what, format!("{field} is not zero")));
        }
        Ok(())
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether only padding is left: nothing, zero bytes, or 0xff bytes.
    pub(crate) fn is_padding(&self) -> bool {
        [0, 0xff].iter().any(|padding| self.rest.iter().all(|byte| byte == padding))
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the reading: leftover bytes are an error.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::malformed(self.what, format!("{} bytes too many", self.rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_refuses_leftovers() {
        let mut r = Reader::new("test", &[1, 0, 0, 0, 2, 3, 0, 0, 9]);
        assert_eq!(r.u8().unwrap(), 1);
        assert_eq!(u32::from_be_bytes(r.array().unwrap()), 2);
        r.take(1).unwrap();
        r.zeros(2, "gap").unwrap();
        assert!(r.finish().unwrap_err().to_string().contains("1 bytes too many"));
    }

    #[test]
    fn little_endian_and_the_rest() {
        let mut r = Reader::new("test", &[1, 2, 3, 4]);
        assert_eq!(r.u16_le().unwrap(), 0x0201);
        assert_eq!(r.len(), 2);
        assert!(!r.is_padding());
        assert_eq!(r.rest(), [3, 4]);
        assert!(r.is_empty() && r.is_padding());
        r.finish().unwrap();
        assert!(Reader::new("test", &[0, 0]).is_padding() && Reader::new("test", &[0xff, 0xff]).is_padding());
        assert!(!Reader::new("test", &[0, 0xff]).is_padding());
    }

    #[test]
    fn three_bytes_are_little_endian() {
        let mut r = Reader::new("test", &[1, 2, 3, 4, 5]);
        assert_eq!(r.u24_le().unwrap(), 0x0003_0201);
        assert!(r.u24_le().unwrap_err().to_string().contains("truncated"));
    }

    #[test]
    fn truncation_and_nonzero_reserved_are_errors() {
        assert!(Reader::new("test", &[1]).u32_le().unwrap_err().to_string().contains("truncated"));
        assert!(
            Reader::new("test", &[0, 1]).zeros(2, "gap").unwrap_err().to_string().contains("gap is not zero")
        );
    }
}
