//! Padding (`protocol.md`, Streaming without leaking lengths): the body of a padded answer is a stream of cells of 512 bytes that leave at
//! a constant rate, whatever is in them. Requests are filled up to buckets.
//!
//! The content begins with the head of the answer: two bytes, big-endian, how long it is, and a JSON object with `status` and
//! `headers`. The body follows.

use crate::Error;

/// Bytes of a cell.
pub const CELL_LEN: usize = 512;
/// Bytes of content that a cell has room for, behind two of its header.
pub const CELL_CONTENT: usize = CELL_LEN - 2;
/// The smallest padded request.
pub const MIN_PADDED: usize = 1024;

const WHAT: &str = "padded answer";
/// The header: kind in the upper three bits, length of the content below.
const LENGTH_BITS: u16 = 13;

/// What is in a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cell {
    /// 0: the next piece of the body; with nothing in it, filler.
    Content(Vec<u8>),
    /// 1: the body has ended, and this is its signed receipt. Only filler follows.
    Receipt(Vec<u8>),
    /// 2: the body has ended, and there is no receipt. Only filler follows.
    End,
}

/// A cell: kind and content, then zeros. Content beyond [`CELL_CONTENT`] bytes is not taken.
#[must_use]
pub fn encode_cell(cell: &Cell) -> [u8; CELL_LEN] {
    let (kind, content): (u16, &[u8]) = match cell {
        Cell::Content(content) => (0, content),
        Cell::Receipt(receipt) => (1, receipt),
        Cell::End => (2, &[]),
    };
    let content = content.get(..CELL_CONTENT).unwrap_or(content);
    let length = u16::try_from(content.len()).unwrap_or_default();
    let header = (kind << LENGTH_BITS | length).to_be_bytes();
    let mut out = [0; CELL_LEN];
    out.iter_mut().zip(header.iter().chain(content)).for_each(|(to, from)| *to = *from);
    out
}

/// Takes a padded answer apart, however it is cut.
#[derive(Debug, Default)]
pub struct Cells {
    buffer: Vec<u8>,
    ended: bool,
}

impl Cells {
    /// Adds bytes and returns the cells that are complete now, without filler.
    ///
    /// # Errors
    /// `Malformed` for a header or filler that no enclave writes, and for content behind the end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Cell>, Error> {
        self.buffer.extend_from_slice(bytes);
        let mut out = Vec::new();
        let (cells, rest) = self.buffer.as_chunks::<CELL_LEN>();
        for cell in cells {
            let cell = decode_cell(cell)?;
            let is_content = matches!(cell, Cell::Content(_));
            if cell == Cell::Content(Vec::new()) {
                continue;
            }
            if self.ended {
                return Err(Error::malformed(WHAT, "content behind its end"));
            }
            self.ended = !is_content;
            out.push(cell);
        }
        self.buffer = rest.to_vec();
        Ok(out)
    }

    /// Whether the answer is complete: what follows is filler.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }
}

fn decode_cell(cell: &[u8; CELL_LEN]) -> Result<Cell, Error> {
    let [high, low, rest @ ..] = cell;
    let header = u16::from_be_bytes([*high, *low]);
    let length = usize::from(header & ((1 << LENGTH_BITS) - 1));
    let Some((content, filler)) = rest.split_at_checked(length) else {
        return Err(Error::malformed(WHAT, "a cell with more content than it has room for"));
    };
    if filler.iter().any(|byte| *byte != 0) {
        return Err(Error::malformed(WHAT, "filler that is not zero"));
    }
    match header >> LENGTH_BITS {
        0 => Ok(Cell::Content(content.to_vec())),
        1 if length > 0 => Ok(Cell::Receipt(content.to_vec())),
        2 if length == 0 => Ok(Cell::End),
        _ => Err(Error::malformed(WHAT, "a cell of an unknown kind")),
    }
}

/// To how many bytes a request of `len` is filled up: powers of two from [`MIN_PADDED`]; at most `max`.
#[must_use]
pub fn padded_len(len: usize, max: usize) -> usize {
    let bucket = len.max(MIN_PADDED).checked_next_power_of_two().unwrap_or(len);
    bucket.min(max.max(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<Cell> {
        vec![
            Cell::Content(vec![7; CELL_CONTENT]),
            Cell::Content(vec![8; 3]),
            Cell::Content(Vec::new()),
            Cell::Content(vec![0]),
            Cell::Receipt(vec![9; 250]),
            Cell::Content(Vec::new()),
        ]
    }

    #[test]
    fn however_the_stream_is_cut() {
        let stream: Vec<u8> = cells().iter().flat_map(encode_cell).collect();
        let want: Vec<Cell> = cells().into_iter().filter(|cell| *cell != Cell::Content(Vec::new())).collect();
        for size in [1, 3, 511, 512, 513, 4000] {
            let mut cells = Cells::default();
            let got: Vec<Cell> = stream.chunks(size).flat_map(|bytes| cells.push(bytes).unwrap()).collect();
            assert!(got == want && cells.ended(), "{size}");
        }
    }

    #[test]
    fn what_no_enclave_writes_is_malformed() {
        let refused =
            |cells: &[[u8; CELL_LEN]]| Cells::default().push(&cells.concat()).unwrap_err().to_string();
        let with = |index: usize, value: u8| {
            let mut cell = encode_cell(&Cell::Content(vec![1; 5]));
            cell[index] = value;
            cell
        };
        assert!(refused(&[with(0, 0x02)]).contains("more content")); // 512 + 5
        assert!(refused(&[with(1, 4)]).contains("filler"));
        assert!(refused(&[with(511, 1)]).contains("filler"));
        assert!(refused(&[with(0, 0x60)]).contains("unknown kind"));
        assert!(refused(&[encode_cell(&Cell::Receipt(Vec::new()))]).contains("unknown kind"));
        let end = encode_cell(&Cell::End);
        assert!(refused(&[end, end]).contains("behind its end"));
        assert!(refused(&[end, encode_cell(&Cell::Content(vec![1]))]).contains("behind its end"));
    }

    #[test]
    fn requests_come_in_few_sizes() {
        let sizes = [0, 1, 1023, 1024, 1025, 5000].map(|len| padded_len(len, 1 << 21));
        assert_eq!(sizes, [1024, 1024, 1024, 1024, 2048, 8192]);
        assert_eq!((padded_len(1500, 1800), padded_len(2000, 1800)), (1800, 2000));
    }
}
