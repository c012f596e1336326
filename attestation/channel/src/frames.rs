//! Reading and writing frames.

use cocoon_attestation::wire::{FRAME_HEADER_LEN, FrameHeader, FrameKind, encode_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Error;

/// Reads one frame of the kind `want`; nothing is allocated before the length was checked.
///
/// # Errors
/// `Closed` for a close frame, `UnexpectedFrame` for another kind, `Malformed` for a bad header, `Io` when the stream ends.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin), want: FrameKind) -> Result<Vec<u8>, Error> {
    let mut header = [0; FRAME_HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let header = FrameHeader::parse(header)?;
    if header.kind == FrameKind::Close {
        return Err(Error::Closed);
    }
    if header.kind != want {
        return Err(Error::UnexpectedFrame);
    }
    let mut body = vec![0; header.len];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Writes one frame and flushes.
///
/// # Errors
/// When the body is too large or the stream fails.
pub async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: FrameKind,
    body: &[u8],
) -> Result<(), Error> {
    stream.write_all(&encode_frame(kind, body)?).await?;
    stream.flush().await?;
    Ok(())
}
