//! Frames before HTTP/2: `u32 length of body, big-endian || u8 type || body`.

use crate::Error;

/// Length of a frame's header in bytes.
pub const FRAME_HEADER_LEN: usize = 5;

/// Largest AttestRequest: a nonce, a mode and up to about a hundred digests of endorsements.
pub const MAX_REQUEST_LEN: usize = 4 * 1024;

/// Largest AttestResponse: S, reports of one CPU and eight GPUs, their certificate chains and a signed release manifest.
pub const MAX_RESPONSE_LEN: usize = 256 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameKind {
    /// Client to enclave, type 1.
    AttestRequest,
    /// Enclave to client, type 2.
    AttestResponse,
    /// Either side ends the connection, type 255, no body.
    Close,
}

impl FrameKind {
    /// The type byte.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::AttestRequest => 1,
            Self::AttestResponse => 2,
            Self::Close => 255,
        }
    }

    /// The largest body that a receiver reads.
    #[must_use]
    pub fn max_len(self) -> usize {
        match self {
            Self::AttestRequest => MAX_REQUEST_LEN,
            Self::AttestResponse => MAX_RESPONSE_LEN,
            Self::Close => 0,
        }
    }
}

/// A parsed header, with its length already checked against the limit of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: FrameKind,
    /// Length of the body in bytes.
    pub len: usize,
}

impl FrameHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// `Malformed` for an unknown type or a length above the limit of the type.
    pub fn parse(bytes: [u8; FRAME_HEADER_LEN]) -> Result<Self, Error> {
        let [len @ .., code] = bytes;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        let kind = [FrameKind::AttestRequest, FrameKind::AttestResponse, FrameKind::Close]
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or_else(|| Error::malformed("frame", format!("unknown type {code}")))?;
        if len > kind.max_len() {
            return Err(Error::malformed(
                "frame",
                format!("{len} bytes, type {code} allows {}", kind.max_len()),
            ));
        }
        Ok(Self { kind, len })
    }
}

/// Header and body.
///
/// # Errors
/// `Misuse` when the body is above the limit of its type.
pub fn encode_frame(kind: FrameKind, body: &[u8]) -> Result<Vec<u8>, Error> {
    let len = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= kind.max_len())
        .ok_or_else(|| Error::misuse(format!("frame body of {} bytes is too large", body.len())))?;
    let mut frame = len.to_be_bytes().to_vec();
    frame.push(kind.code());
    frame.extend_from_slice(body);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_exact() {
        for kind in [FrameKind::AttestRequest, FrameKind::AttestResponse, FrameKind::Close] {
            let frame = encode_frame(kind, &vec![0; kind.max_len()]).unwrap();
            let header = FrameHeader::parse(frame[..5].try_into().unwrap()).unwrap();
            assert_eq!(header, FrameHeader { kind, len: kind.max_len() });
            assert!(encode_frame(kind, &vec![0; kind.max_len() + 1]).is_err());
            let mut over = (u32::try_from(kind.max_len()).unwrap() + 1).to_be_bytes().to_vec();
            over.push(kind.code());
            assert!(FrameHeader::parse(over.try_into().unwrap()).is_err());
        }
    }

    #[test]
    fn unknown_types_are_refused() {
        for code in [0, 3, 22, 254] {
            assert!(FrameHeader::parse([0, 0, 0, 0, code]).is_err());
        }
    }
}
