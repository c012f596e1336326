//! The event log of an enclave: one JSON object per line on its stdout, of a fixed set.
//!
//! The enclave handles prompts, so whatever is not an event is dropped unseen: were a prompt ever to reach its stdout by mistake, it
//! would go no further.

use std::net::SocketAddr;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::metrics::Dropped;

/// The longest line that is read, without its line break. Events are short; the rest of a longer line is skipped, not stored.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// An event as it is sent. Further keys are ignored.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Sent {
    Listening {
        address: String,
    },
    ModelLoading {
        read: u64,
        total: u64,
    },
    Ready,
    #[serde(other)]
    Other,
}

/// Where an enclave runs, and so how its log comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A process of this machine.
    Process,
    /// A VM: the log is its serial console, on which firmware writes too, and whose lines end as a terminal's do.
    Vm,
}

/// An event that the host acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The enclave accepts connections.
    Listening {
        /// Where, on this machine; `None` for an enclave in a VM, whose own address says nothing here.
        address: Option<SocketAddr>,
    },
    /// The model is being read.
    ModelLoading {
        /// Bytes so far.
        read: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The enclave serves.
    Ready,
    /// Any other event.
    Other,
}

/// One line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// An event, with its line as sent.
    Event { event: Event, line: String },
    /// A line that is none.
    Dropped(Dropped),
}

/// Reads an event log in bounded memory.
pub(super) struct EventLog<R> {
    reader: BufReader<R>,
    source: Source,
    line: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncRead + Unpin> EventLog<R> {
    pub(super) fn new(reader: R, source: Source) -> Self {
        Self { reader: BufReader::new(reader), source, line: Vec::new(), too_long: false }
    }

    /// The next line, or `None` at the end of the log. Cancel safe: a part of a line is kept in `self`.
    pub(super) async fn next(&mut self) -> Option<Entry> {
        loop {
            let chunk = self.reader.fill_buf().await.unwrap_or_default();
            if chunk.is_empty() {
                let cut_short = self.too_long || !self.line.is_empty();
                return cut_short.then(|| self.take_entry());
            }
            let end = chunk.iter().position(|b| *b == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                self.too_long = true;
                self.line.clear();
            }
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Some(self.take_entry());
            }
        }
    }

    fn take_entry(&mut self) -> Entry {
        let mut line = std::mem::take(&mut self.line);
        if self.source == Source::Vm && line.last() == Some(&b'\r') {
            line.pop();
        }
        if std::mem::take(&mut self.too_long) {
            return Entry::Dropped(Dropped::TooLong);
        }
        parse(line, self.source).unwrap_or(Entry::Dropped(Dropped::NotAnEvent))
    }
}

fn parse(line: Vec<u8>, source: Source) -> Option<Entry> {
    let line = String::from_utf8(line).ok()?;
    // A control character could act on the operator's terminal; JSON has an escape for each.
    if line.chars().any(char::is_control) {
        return None;
    }
    let event = match serde_json::from_str(&line).ok()? {
        Sent::Listening { address } => Event::Listening { address: listening(&address, source)? },
        Sent::ModelLoading { read, total } => Event::ModelLoading { read, total },
        Sent::Ready => Event::Ready,
        Sent::Other => Event::Other,
    };
    Some(Entry::Event { event, line })
}

/// The host asked a process for a loopback address. Any other would make it a relay to wherever the enclave likes.
fn listening(address: &str, source: Source) -> Option<Option<SocketAddr>> {
    match source {
        Source::Vm => Some(None),
        Source::Process => {
            let address: SocketAddr = address.parse().ok()?;
            (address.ip().is_loopback() && address.port() != 0).then_some(Some(address))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn read(log: &[u8]) -> Vec<Entry> {
        let mut log = EventLog::new(log, Source::Process);
        let mut entries = Vec::new();
        while let Some(entry) = log.next().await {
            entries.push(entry);
        }
        entries
    }

    async fn event(line: &str) -> Option<Event> {
        match read(line.as_bytes()).await.pop() {
            Some(Entry::Event { event, .. }) => Some(event),
            Some(Entry::Dropped(_)) | None => None,
        }
    }

    #[tokio::test]
    async fn the_events_that_matter() {
        assert_eq!(
            event(r#"{"event":"listening","address":"127.0.0.1:40111","time":3}"#).await,
            Some(Event::Listening { address: Some("127.0.0.1:40111".parse().unwrap()) })
        );
        assert_eq!(
            event(r#"{"total":20,"event":"model_loading","read":7,"x":[{}]}"#).await,
            Some(Event::ModelLoading { read: 7, total: 20 })
        );
        assert_eq!(event(r#"{"event":"ready","model":"smol"}"#).await, Some(Event::Ready));
        assert_eq!(event(r#"{"event":"session_opened","n":1}"#).await, Some(Event::Other));
    }

    #[tokio::test]
    async fn a_console_has_other_line_ends_and_other_writers() {
        let console = b"\x1b[2J\x1b[001;001H\n{\"event\":\"listening\",\"address\":\"vsock:3:8443\"}\r\nBdsDxe\r\n{\"event\":\"ready\"}\r\n";
        let mut log = EventLog::new(&console[..], Source::Vm);
        let mut seen = Vec::new();
        while let Some(entry) = log.next().await {
            seen.push(match entry {
                Entry::Event { event, .. } => Some(event),
                Entry::Dropped(_) => None,
            });
        }
        assert_eq!(seen, [None, Some(Event::Listening { address: None }), None, Some(Event::Ready)]);
    }

    #[tokio::test]
    async fn what_is_no_event_is_dropped() {
        for line in [
            "\n",
            "ready\n",
            "{}\n",
            "[]\n",
            "{\"event\":7}\n",
            "{\"event\":\"ready\"} {\"event\":\"ready\"}\n",
            "{\"event\":\"ready\",\"x\":\"\u{9b}2J\"}\n",
            "{\"event\":\"ready\"}\u{7f}\n",
            "{\"event\":\"ready\"}\r\n",
            "{\"event\":\"model_loading\"}\n",
            "{\"event\":\"model_loading\",\"read\":-1,\"total\":1}\n",
            "{\"event\":\"listening\"}\n",
            "{\"event\":\"listening\",\"address\":\"127.0.0.1:0\"}\n",
            "{\"event\":\"listening\",\"address\":\"0.0.0.0:80\"}\n",
            "{\"event\":\"listening\",\"address\":\"192.0.2.1:80\"}\n",
            "{\"event\":\"listening\",\"address\":\"localhost:80\"}\n",
        ] {
            assert_eq!(read(line.as_bytes()).await, [Entry::Dropped(Dropped::NotAnEvent)], "{line:?}");
        }
        assert_eq!(read(b"\xff\n").await, [Entry::Dropped(Dropped::NotAnEvent)]);
    }

    #[tokio::test]
    async fn a_line_may_have_the_cap_and_not_one_byte_more() {
        let start = br#"{"event":"ready","pad":""#;
        let of_length = |n: usize| {
            let mut line = start.to_vec();
            line.resize(n - 2, b'x');
            line.extend_from_slice(b"\"}\n{\"event\":\"ready\"}\n");
            line
        };
        let kinds = |entries: Vec<Entry>| {
            entries
                .into_iter()
                .map(|e| match e {
                    Entry::Event { .. } => None,
                    Entry::Dropped(why) => Some(why),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(read(&of_length(MAX_LINE_BYTES)).await), [None, None]);
        for n in [MAX_LINE_BYTES + 1, 2 * MAX_LINE_BYTES, 100 * MAX_LINE_BYTES] {
            assert_eq!(kinds(read(&of_length(n)).await), [Some(Dropped::TooLong), None], "{n}");
        }
    }

    #[tokio::test]
    async fn an_endless_line_takes_bounded_memory() {
        let mut log = EventLog::new(tokio::io::repeat(b'{').take_bytes(64 << 20), Source::Process);
        assert_eq!(log.next().await, Some(Entry::Dropped(Dropped::TooLong)));
        assert!(log.line.capacity() <= 2 * MAX_LINE_BYTES);
        assert_eq!(log.next().await, None);
    }

    trait TakeBytes: AsyncRead + Sized {
        fn take_bytes(self, n: u64) -> tokio::io::Take<Self> {
            tokio::io::AsyncReadExt::take(self, n)
        }
    }
    impl<R: AsyncRead> TakeBytes for R {}

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (mut writer, reader) = duplex(64);
        let mut log = EventLog::new(reader, Source::Process);
        writer.write_all(b"{\"event\":").await.unwrap();
        {
            let mut next = pin!(log.next());
            tokio::select! {
                biased;
                _ = &mut next => unreachable!("the line is not complete"),
                () = tokio::task::yield_now() => {}
            }
        }
        writer.write_all(b"\"ready\"}\n").await.unwrap();
        assert!(matches!(log.next().await, Some(Entry::Event { event: Event::Ready, .. })));
    }

    #[tokio::test]
    async fn a_last_line_without_a_break_counts() {
        assert_eq!(event(r#"{"event":"ready"}"#).await, Some(Event::Ready));
        assert_eq!(read(b"").await, []);
    }
}
