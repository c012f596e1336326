//! Server-sent events (WHATWG HTML section 9.2), as far as the OpenAI API uses them: `data:` lines, comments, empty lines.

/// A chunk of an answer is below a kilobyte.
const MAX_LINE: usize = 1024 * 1024;

/// Splits a byte stream, however it is cut, into the contents of `data:` lines.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: Vec<u8>,
}

/// A line longer than a megabyte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Events {
    /// Adds bytes and returns the contents of the `data:` lines that are complete now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        self.buffer.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
            line.truncate(end);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if let Some(data) = line.strip_prefix(b"data:") {
                out.push(data.strip_prefix(b" ").unwrap_or(data).to_vec());
            }
        }
        if self.buffer.len() > MAX_LINE {
            return Err(TooLong);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_the_stream_is_cut() {
        let stream = b"data: {\"a\":1}\n\n: comment\r\nevent: x\ndata:two\r\n\ndata: [DONE]\n\nrest";
        let want: Vec<Vec<u8>> = vec![b"{\"a\":1}".to_vec(), b"two".to_vec(), b"[DONE]".to_vec()];
        for size in 1..stream.len() {
            let mut events = Events::default();
            let got: Vec<Vec<u8>> =
                stream.chunks(size).flat_map(|chunk| events.push(chunk).unwrap()).collect();
            assert_eq!(got, want, "{size}");
        }
    }

    #[test]
    fn endless_lines_are_cut_off() {
        let mut events = Events::default();
        assert_eq!(events.push(&vec![b'x'; MAX_LINE]), Ok(vec![]));
        assert_eq!(events.push(b"x"), Err(TooLong));
    }
}
