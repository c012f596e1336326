//! What the enclave demands of a ClientHello before any TLS code answers it (RFC 8446 section 4.1.2).
//!
//! A TLS library would tolerate a pre-shared key, a server name or an older version by ignoring it or with an alert. `cocoon/1`
//! has none of them, so whoever sends one is not a `cocoon/1` client and learns nothing, not even an alert.

use super::ALPN;
use crate::Error;
use crate::reader::Reader;

/// Length of a TLS record's header in bytes.
pub const TLS_RECORD_HEADER_LEN: usize = 5;

/// With a share for X25519MLKEM768 a ClientHello is about 1.5 KiB.
pub const MAX_CLIENT_HELLO_LEN: usize = 8 * 1024;

const EXT_SERVER_NAME: u16 = 0;
const EXT_ALPN: u16 = 16;
const EXT_PRE_SHARED_KEY: u16 = 41;
const EXT_EARLY_DATA: u16 = 42;
const EXT_SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_3: [u8; 2] = [3, 4];

/// Why a ClientHello is not one of `cocoon/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientHelloFault {
    /// The bytes are not a TLS ClientHello in one record of at most 8 KiB.
    NotTls,
    /// TLS 1.3 is not among the versions.
    OldVersion,
    /// `cocoon/1` is not the one protocol offered.
    WrongProtocol,
    /// A pre-shared key (a ticket) or early data.
    Resumption,
    /// A server name, which the host could read.
    ServerName,
}

/// Length of the rest of the record, from its header.
///
/// # Errors
/// `NotTls` when this is not the header of a handshake record of a permitted length.
pub fn client_hello_len(header: [u8; TLS_RECORD_HEADER_LEN]) -> Result<usize, ClientHelloFault> {
    let [kind, major, _, len @ ..] = header;
    let len = usize::from(u16::from_be_bytes(len));
    if kind == 22 && major == 3 && (1..=MAX_CLIENT_HELLO_LEN).contains(&len) {
        return Ok(len);
    }
    Err(ClientHelloFault::NotTls)
}

/// Checks the content of the first record.
///
/// # Errors
/// The first fault found.
pub fn check_client_hello(record: &[u8]) -> Result<(), ClientHelloFault> {
    let extensions = extensions(record).map_err(|_malformed| ClientHelloFault::NotTls)?;
    let content = |kind| extensions.iter().find(|(k, _)| *k == kind).map(|(_, content)| *content);
    let offers_13 = content(EXT_SUPPORTED_VERSIONS).is_some_and(|list| {
        list.split_first().is_some_and(|(_, versions)| versions.chunks_exact(2).any(|v| v == TLS_1_3))
    });
    if !offers_13 {
        return Err(ClientHelloFault::OldVersion);
    }
    if content(EXT_ALPN) != Some(only_protocol().as_slice()) {
        return Err(ClientHelloFault::WrongProtocol);
    }
    if content(EXT_PRE_SHARED_KEY).or(content(EXT_EARLY_DATA)).is_some() {
        return Err(ClientHelloFault::Resumption);
    }
    if content(EXT_SERVER_NAME).is_some() {
        return Err(ClientHelloFault::ServerName);
    }
    Ok(())
}

/// The ALPN extension that offers `cocoon/1` and nothing else.
fn only_protocol() -> Vec<u8> {
    let name_len = u8::try_from(ALPN.len()).unwrap_or(u8::MAX);
    let list_len = u16::from(name_len).saturating_add(1);
    [&list_len.to_be_bytes(), [name_len].as_slice(), ALPN].concat()
}

fn extensions(record: &[u8]) -> Result<Vec<(u16, &[u8])>, Error> {
    let mut r = Reader::new("ClientHello", record);
    if r.u8()? != 1 {
        return Err(Error::malformed("ClientHello", "another handshake message"));
    }
    let [high, middle, low] = r.array()?;
    let body = r.take(usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX))?;
    r.finish()?;
    let mut r = Reader::new("ClientHello", body);
    r.take(2 + 32)?; // legacy_version, random
    let session_id_len = r.u8()?;
    r.take(session_id_len.into())?;
    let suites_len = r.u16_be()?;
    r.take(suites_len.into())?;
    let compression_len = r.u8()?;
    r.take(compression_len.into())?;
    let len = r.u16_be()?;
    let list = r.take(len.into())?;
    r.finish()?;
    let (mut r, mut out) = (Reader::new("ClientHello", list), Vec::new());
    while !r.is_empty() {
        let (kind, len) = (r.u16_be()?, r.u16_be()?);
        out.push((kind, r.take(len.into())?));
    }
    Ok(out)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).unwrap();
        [kind.to_be_bytes().as_slice(), &len.to_be_bytes(), content].concat()
    }

    pub(crate) fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let list = extensions.concat();
        let len = u16::try_from(list.len()).unwrap();
        let body =
            [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 2], &[1, 0], &len.to_be_bytes(), &list].concat();
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &len[1..], &body].concat()
    }

    pub(crate) fn good() -> Vec<Vec<u8>> {
        vec![extension(43, &[2, 3, 4]), extension(16, b"\0\x09\x08cocoon/1")]
    }

    #[test]
    fn accepts_only_cocoon_clients() {
        assert_eq!(check_client_hello(&hello(&good())), Ok(()));
        let with = |extra: Vec<u8>| check_client_hello(&hello(&[good(), vec![extra]].concat()));
        assert_eq!(with(extension(41, &[])), Err(ClientHelloFault::Resumption));
        assert_eq!(with(extension(42, &[])), Err(ClientHelloFault::Resumption));
        assert_eq!(with(extension(0, &[])), Err(ClientHelloFault::ServerName));
        let [versions, alpn] = [&good()[0], &good()[1]].map(Clone::clone);
        let check = |list: &[Vec<u8>]| check_client_hello(&hello(list));
        assert_eq!(check(std::slice::from_ref(&alpn)), Err(ClientHelloFault::OldVersion));
        assert_eq!(check(&[extension(43, &[2, 3, 3]), alpn]), Err(ClientHelloFault::OldVersion));
        assert_eq!(check(std::slice::from_ref(&versions)), Err(ClientHelloFault::WrongProtocol));
        assert_eq!(
            check(&[versions.clone(), extension(16, b"\0\x03\x02h2")]),
            Err(ClientHelloFault::WrongProtocol)
        );
        let both = extension(16, b"\0\x0c\x02h2\x08cocoon/1");
        assert_eq!(check(&[versions, both]), Err(ClientHelloFault::WrongProtocol));
    }

    #[test]
    fn every_truncation_is_not_tls() {
        let whole = hello(&good());
        for len in 0..whole.len() {
            assert_eq!(check_client_hello(&whole[..len]), Err(ClientHelloFault::NotTls), "{len}");
        }
        assert_eq!(check_client_hello(&[whole, vec![0]].concat()), Err(ClientHelloFault::NotTls));
    }

    #[test]
    fn record_headers() {
        assert_eq!(client_hello_len([22, 3, 1, 0x20, 0]), Ok(MAX_CLIENT_HELLO_LEN));
        assert_eq!(client_hello_len([22, 3, 1, 0x20, 1]), Err(ClientHelloFault::NotTls));
        assert_eq!(client_hello_len([22, 3, 1, 0, 0]), Err(ClientHelloFault::NotTls));
        assert_eq!(client_hello_len(*b"GET /"), Err(ClientHelloFault::NotTls));
    }
}
