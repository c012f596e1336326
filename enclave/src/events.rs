//! The event log: a fixed set of events with numbers, digests and fixed words. There is no way to log a text.
//!
//! The host reads it, so it must tell nothing that the host does not see anyway. One JSON object per line.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use cocoon_attestation::Digest;

/// Everything that can be logged.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The process started.
    Starting {
        /// Version of this program.
        version: &'static str,
        /// The platform.
        tee: &'static str,
    },
    /// A simulated processor is being made, which takes some seconds; once per developer.
    #[cfg(feature = "sim")]
    SimGenerating,
    /// The digest of the configuration, claim 12 of S.
    Configured {
        /// Digest of the configuration.
        config: Digest,
    },
    /// Part of the model file was read.
    ModelLoading {
        /// Bytes read.
        read: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The model is in memory and is the one that was configured.
    ModelReady {
        /// Digest of its manifest, claim 11 of S.
        model: Digest,
    },
    /// The model file is another one than was configured: the enclave ends.
    ModelRefused {
        /// Digest of the manifest that was configured.
        want: Digest,
        /// Digest of the manifest of what was found.
        got: Digest,
    },
    /// The model file cannot be used: the enclave ends.
    ModelUnusable,
    /// Connections are accepted.
    Listening {
        /// Where. Port 0 was replaced by the real one.
        #[serde(serialize_with = "write_address")]
        address: Listening,
    },
    /// Requests are answered.
    Ready,
    /// A new epoch began.
    Epoch {
        /// Its number.
        epoch: u64,
    },
    /// The hardware signed a report.
    Report {
        /// Number of clients that share it.
        leaves: u64,
    },
    /// The hardware did not sign a report; the clients that waited were disconnected.
    ReportFailed,
    /// A connection was ended before it was attested.
    ChannelRefused {
        /// Why.
        reason: Refusal,
    },
    /// A connection was refused because there are as many as allowed.
    ConnectionLimit,
    /// The listener failed once; it goes on.
    AcceptFailed,
    /// A bug: some answer or connection broke off, the enclave goes on. The panic's text is dropped, since it could quote input.
    Panicked,
    /// No new connections; running answers go on.
    Stopping,
    /// All connections are gone, or the time for that is over.
    Stopped {
        /// Connections that were cut.
        cut: u64,
    },
}

/// Why a connection was ended before it was attested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The first bytes are not TLS.
    NotTls,
    /// No TLS 1.3.
    OldTls,
    /// Another application protocol.
    WrongProtocol,
    /// A pre-shared key or early data.
    Resumption,
    /// A server name.
    ServerName,
    /// The TLS handshake failed.
    Handshake,
    /// The first frame is not an AttestRequest.
    WrongFrame,
    /// The AttestRequest is malformed.
    Malformed,
    /// The client wants another node or a mode that is not offered.
    OtherNode,
    /// The client was too slow.
    TooSlow,
    /// There was no hardware report.
    NoReport,
    /// The connection went down.
    Disconnected,
}

/// Where the enclave listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// TCP.
    Tcp(SocketAddr),
    /// vsock: context identifier and port.
    Vsock(u32, u32),
}

fn write_address<S: serde::Serializer>(listening: &Listening, s: S) -> Result<S::Ok, S::Error> {
    match listening {
        Listening::Tcp(address) => s.collect_str(address),
        Listening::Vsock(cid, port) => s.collect_str(&format_args!("vsock:{cid}:{port}")),
    }
}

/// Where events go.
#[derive(Clone)]
pub struct EventLog(Arc<Mutex<dyn Write + Send>>);

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventLog")
    }
}

impl EventLog {
    /// Writes to `sink`, one line per event.
    pub fn new(sink: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    /// Logs `event`. A sink that fails is ignored: the enclave does not stop because nobody reads its log.
    pub fn log(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _unread = sink.write_all(&line).and_then(|()| sink.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_json_object_per_line() {
        let json = |event| serde_json::to_value::<Event>(event).unwrap();
        let address = Listening::Tcp("127.0.0.1:4433".parse().unwrap());
        assert_eq!(
            json(Event::Listening { address }),
            serde_json::json!({"event": "listening", "address": "127.0.0.1:4433"})
        );
        let refused = Event::ChannelRefused { reason: Refusal::NotTls };
        assert_eq!(json(refused), serde_json::json!({"event": "channel_refused", "reason": "not_tls"}));
        let address = Listening::Vsock(3, 8443);
        assert_eq!(json(Event::Listening { address })["address"], "vsock:3:8443");
    }
}
