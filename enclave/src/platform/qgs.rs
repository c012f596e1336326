//! A quote from the host's quote generation service (QGS), for kernels that give only the TDREPORT.
//!
//! Source: Intel SGXDataCenterAttestationPrimitives, QuoteGeneration/quote_wrapper/qgs_msg_lib and tdx_attest: a length (4 bytes,
//! big-endian), then a message with little-endian integers, one each way, over vsock to the host.
//!
//! The host may answer anything: what it signs is verified by clients. What is limited here is how much and how long.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use vsock::VsockStream;

use super::device::TD_REPORT_LEN;
use super::tsm::MAX_REPORT;
use crate::events::AttesterFault;

/// Where Intel's service listens unless it is told otherwise.
pub const DEFAULT_PORT: u32 = 4050;

/// The host, seen from a guest.
const HOST_CID: u32 = 2;

/// Less than a client waits for a report.
const DEADLINE: Duration = Duration::from_secs(8);

const VERSION: [u16; 2] = [1, 0];
const GET_QUOTE_REQ: u32 = 0;
const GET_QUOTE_RESP: u32 = 1;

/// Version, type, size, error code.
const HEADER_LEN: usize = 16;
/// Header, length of the report or key id, length of the key ids or quote.
const FIXED_LEN: usize = HEADER_LEN + 8;

/// [`TD_REPORT_LEN`], and a request with one.
const REPORT_LEN: u32 = 1024;
const REQUEST_LEN: u32 = 24 + REPORT_LEN;

/// The id of the key that was chosen; empty, since none was asked for.
const MAX_ID: usize = 1024;

/// A connection that gives up.
pub(super) trait Timed: Read + Write {
    /// Reads and writes from now on fail after `limit`, which is not zero.
    fn limit(&self, limit: Duration) -> io::Result<()>;
}

impl Timed for VsockStream {
    fn limit(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

/// Has the service at `port` of the host turn `report` into a quote.
pub(super) fn quote(port: u32, report: &[u8; TD_REPORT_LEN]) -> Result<Vec<u8>, AttesterFault> {
    let deadline = Instant::now() + DEADLINE;
    exchange(&mut VsockStream::connect_with_cid_port(HOST_CID, port)?, report, deadline)
}

/// The same over a connection that is there.
pub(super) fn exchange(
    stream: &mut impl Timed,
    report: &[u8; TD_REPORT_LEN],
    deadline: Instant,
) -> Result<Vec<u8>, AttesterFault> {
    stream.limit(rest(deadline)?)?;
    stream.write_all(&request(report))?;
    let mut length = [0; 4];
    read(stream, &mut length, deadline)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(FIXED_LEN..=FIXED_LEN + MAX_ID + MAX_REPORT).contains(&length) {
        return Err(AttesterFault::Malformed);
    }
    let mut response = vec![0; length];
    read(stream, &mut response, deadline)?;
    parse(&response)
}

fn request(report: &[u8; TD_REPORT_LEN]) -> Vec<u8> {
    let mut out = REQUEST_LEN.to_be_bytes().to_vec();
    out.extend(VERSION.into_iter().flat_map(u16::to_le_bytes));
    // No error code, and no list of keys to choose from.
    out.extend([GET_QUOTE_REQ, REQUEST_LEN, 0, REPORT_LEN, 0].into_iter().flat_map(u32::to_le_bytes));
    out.extend_from_slice(report);
    out
}

/// The quote in GET_QUOTE_RESP.
pub(crate) fn parse(message: &[u8]) -> Result<Vec<u8>, AttesterFault> {
    let (fixed, rest) = message.split_first_chunk::<FIXED_LEN>().ok_or(AttesterFault::Malformed)?;
    let (version, words) = fixed.split_at(4);
    let mut words = words.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap_or_default()));
    let mut word =
        || words.next().and_then(|word| usize::try_from(word).ok()).ok_or(AttesterFault::Malformed);
    let (kind, size, error, id_len, quote_len) = (word()?, word()?, word()?, word()?, word()?);
    // Later minor versions only add kinds of messages.
    if version.first_chunk() != Some(&VERSION[0].to_le_bytes())
        || kind != GET_QUOTE_RESP as usize
        || size != message.len()
    {
        return Err(AttesterFault::Malformed);
    }
    if error != 0 {
        return Err(AttesterFault::QuoteService);
    }
    if id_len > MAX_ID || quote_len == 0 || quote_len > MAX_REPORT || id_len + quote_len != rest.len() {
        return Err(AttesterFault::Malformed);
    }
    rest.get(id_len..).map(<[u8]>::to_vec).ok_or(AttesterFault::Malformed)
}

fn rest(deadline: Instant) -> io::Result<Duration> {
    let rest = deadline.saturating_duration_since(Instant::now());
    if rest.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(rest) }
}

/// Fills `buffer`. A host that sends byte by byte does not extend the deadline.
fn read(stream: &mut impl Timed, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
        stream.limit(rest(deadline)?)?;
        match stream.read(free) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
