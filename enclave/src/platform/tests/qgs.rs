//! A quote generation service that answers whatever the test wants.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::events::AttesterFault;
use crate::platform::device::TD_REPORT_LEN;
use crate::platform::qgs::{Timed, exchange, parse};

impl Timed for UnixStream {
    fn limit(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

/// Lets `service` answer a request, and what came of it.
fn ask(
    patience: Duration,
    service: impl FnOnce(UnixStream, Vec<u8>) + Send + 'static,
) -> Result<Vec<u8>, AttesterFault> {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let host = std::thread::spawn(move || {
        let mut request = vec![0; 4 + 24 + TD_REPORT_LEN];
        theirs.read_exact(&mut request).unwrap();
        service(theirs, request);
    });
    let answer = exchange(&mut ours, &[0x55; TD_REPORT_LEN], Instant::now() + patience);
    drop(ours);
    host.join().unwrap();
    answer
}

const PATIENCE: Duration = Duration::from_secs(60);

fn message(kind: u32, error: u32, id: &[u8], quote: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let words = [kind, 24 + len(id) + len(quote), error, len(id), len(quote)];
    let mut out = vec![1, 0, 0, 0];
    out.extend(words.into_iter().flat_map(u32::to_le_bytes));
    [out, id.to_vec(), quote.to_vec()].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

#[test]
fn the_request_is_intels_and_the_quote_comes_back() {
    let answer = ask(PATIENCE, |mut host, request| {
        assert_eq!(request[..4], 1048_u32.to_be_bytes());
        assert_eq!(request[4..8], [1, 0, 0, 0], "version 1.0");
        let words: Vec<u32> =
            request[8..28].chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        assert_eq!(words, [0, 1048, 0, 1024, 0], "type, size, error, report, no key ids");
        assert_eq!(request[28..], [0x55; 1024]);
        host.write_all(&framed(&message(1, 0, b"", b"the quote"))).unwrap();
    });
    assert_eq!(answer, Ok(b"the quote".to_vec()));
}

#[test]
fn a_service_that_sends_byte_by_byte() {
    let answer = ask(PATIENCE, |mut host, _| {
        for byte in framed(&message(1, 0, b"key id", &[9; 100])) {
            host.write_all(&[byte]).unwrap();
        }
    });
    assert_eq!(answer, Ok(vec![9; 100]));
}

#[test]
fn answers_that_are_none() {
    let good = message(1, 0, b"id", b"quote");
    assert_eq!(parse(&good), Ok(b"quote".to_vec()));
    for len in 0..good.len() {
        assert_eq!(parse(&good[..len]), Err(AttesterFault::Malformed), "cut at {len}");
    }
    assert_eq!(parse(&[good.clone(), vec![0]].concat()), Err(AttesterFault::Malformed), "bytes behind");
    assert_eq!(parse(&message(1, 0x11001, b"", b"quote")), Err(AttesterFault::QuoteService));
    assert_eq!(parse(&message(0, 0, b"", b"quote")), Err(AttesterFault::Malformed), "a request");
    assert_eq!(parse(&message(1, 0, b"", b"")), Err(AttesterFault::Malformed), "no quote");
    assert_eq!(parse(&message(1, 0, &[0; 1025], b"q")), Err(AttesterFault::Malformed), "a long id");
    assert_eq!(parse(&message(1, 0, b"", &[0; 16385])), Err(AttesterFault::Malformed), "a long quote");
    let mut other = good.clone();
    other[0] = 2;
    assert_eq!(parse(&other), Err(AttesterFault::Malformed), "another version");
    // Lengths that do not add up, and that overflow.
    for (at, value) in [(16, 3_u32), (20, 4), (16, u32::MAX), (20, u32::MAX), (8, 0)] {
        let mut wrong = good.clone();
        wrong[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(parse(&wrong), Err(AttesterFault::Malformed), "{value} at {at}");
    }
}

#[test]
fn a_service_that_announces_too_much_is_not_waited_for() {
    for announced in [0, 23, 24 + 1024 + 16 * 1024 + 1, u32::MAX] {
        let answer = ask(PATIENCE, move |mut host, _| host.write_all(&announced.to_be_bytes()).unwrap());
        assert_eq!(answer, Err(AttesterFault::Malformed), "{announced}");
    }
}

#[test]
fn a_service_that_goes_away_or_says_nothing() {
    let eof = ask(PATIENCE, |_, _| {});
    assert_eq!(eof, Err(AttesterFault::Io { errno: None }));
    let eof =
        ask(PATIENCE, |mut host, _| host.write_all(&framed(&message(1, 0, b"", b"quote"))[..20]).unwrap());
    assert_eq!(eof, Err(AttesterFault::Io { errno: None }));
    // Held open until this end closes it.
    let silent = ask(Duration::from_millis(50), |mut host, _| drop(host.read(&mut [0])));
    assert!(matches!(silent, Err(AttesterFault::Io { .. })), "{silent:?}");
    // One byte now and then does not extend the deadline.
    let slow = ask(Duration::from_millis(50), |mut host, _| {
        while host.write_all(&[0]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(slow.is_err(), "{slow:?}");
}
