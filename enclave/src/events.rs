//! The event log: a fixed set of events with numbers, digests and fixed words. There is no way to log a text.
//!
//! The host reads it, so it must tell nothing that the host does not see anyway. One JSON object per line.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use cocoon_attestation::Digest;

use crate::platform::tsm::TsmError;

/// Everything that can be logged.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The kernel of the image started this program as its first.
    Booting {
        /// Version of this program.
        version: &'static str,
    },
    /// The image could not be made ready: the machine switches itself off.
    BootFailed {
        /// What did not work.
        step: BootStep,
    },
    /// The model does not fit into the machine, which switches itself off.
    TooLittleMemory {
        /// Bytes for the model while it loads, and for what is around it.
        need: u64,
        /// Bytes that can be had.
        have: u64,
    },
    /// Nothing more is taken from the host's port: it sent what is no frame.
    HostPortClosed,
    /// The host did not say in time that it had sent what it has: endorsements and release that come later are not used.
    HostPortLate,
    /// What is in the machine.
    #[cfg(feature = "sim")]
    Inside(crate::init::Inside),
    /// The enclave cannot go on: the machine switches itself off.
    Failed {
        /// Whose fault it is.
        reason: Failure,
    },
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
    /// The release was read, claim 13 of S.
    ReleaseRead {
        /// Digest of its manifest.
        release: Digest,
    },
    /// The file of the release was replaced by one that cannot be read, is malformed or of another release: the old one stays.
    ReleaseUnusable,
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
    /// The engine cannot go on: running answers ended with an error, and requests are refused until the enclave is started again.
    EngineBroken {
        /// What happened.
        reason: EngineFault,
    },
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
    /// No new epoch could begin; the old one runs on until its end, and it is tried again.
    EpochFailed {
        /// Why.
        reason: EpochFault,
    },
    /// All GPUs gave evidence, and programs may use them.
    GpusReady {
        /// How many.
        gpus: u64,
    },
    /// The hardware signed a report.
    Report {
        /// Number of clients that share it.
        leaves: u64,
    },
    /// The hardware did not sign a report; the clients that waited were disconnected.
    ReportFailed,
    /// Why the hardware did not.
    AttesterFailed {
        /// What happened.
        #[serde(flatten)]
        fault: AttesterFault,
    },
    /// The GPUs gave no evidence for a client that wanted its own; it was disconnected.
    GpusFailed,
    /// The host's certificates for the processor are malformed: they are not sent to clients.
    CertificateTableDropped,
    /// RTMR3 says what configuration and models are.
    RtmrExtended,
    /// The kernel has no RTMR3: only S and REPORT_DATA say what configuration and models are.
    RtmrUnavailable,
    /// The file of endorsements was read.
    EndorsementsRead {
        /// Endorsements in it.
        items: u64,
    },
    /// The file of endorsements cannot be read or is malformed: the ones of before stay.
    EndorsementsUnusable,
    /// Endorsements did not fit into an AttestResponse.
    EndorsementsLeftOut {
        /// How many.
        count: u64,
    },
    /// A connection was ended before it was attested.
    ChannelRefused {
        /// Why.
        reason: Refusal,
    },
    /// A connection was refused because there are as many as allowed.
    ConnectionLimit,
    /// The listener failed once; it goes on.
    AcceptFailed,
    /// Nobody read the log for a while.
    EventsDropped {
        /// Events that were not written.
        count: u64,
    },
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

/// A step of the boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BootStep {
    /// The kernel's trees.
    Mounts,
    /// Kernel modules: missing, or not signed by whoever built the kernel.
    Modules,
    /// Settings of the kernel, its lockdown, system calls.
    Hardening,
    /// The measured configuration: an unknown key, or a value out of range.
    CommandLine,
    /// Neither vsock nor a network card.
    Network,
    /// No disk with a model.
    ModelDisk,
    /// The model does not fit.
    Memory,
}

/// Why an engine cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineFault {
    /// The GPU failed, or its memory is full: the kernel's log may have an Xid.
    Gpu,
    /// A bug.
    Panicked,
}

/// Why an enclave cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Failure {
    /// The model cannot be read, is another one, or cannot be run.
    Model,
    /// No TEE, or its registers say something else.
    Platform,
    /// The GPUs are not all there and confidential.
    Gpus,
    /// The endorsements that the host gave are no bundle.
    Endorsements,
    /// The release that the host gave is no bundle.
    Release,
    /// Something else: no socket, no threads, no randomness.
    Other,
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
    /// The enclave is stopping.
    Stopping,
}

/// Why the hardware gave no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttesterFault {
    /// The kernel, the device or the connection to the host.
    Io {
        /// The system's number for it, where there is one.
        errno: Option<i32>,
    },
    /// No driver makes reports any more, or another one.
    Provider,
    /// More bytes than can be.
    TooLong,
    /// Somebody else wrote into the request, each time.
    Conflict,
    /// What came back is no report.
    Malformed,
    /// The host's quote generation service refused.
    QuoteService,
    /// The host launched this machine for another configuration or model than it has.
    HostData,
}

impl From<std::io::Error> for AttesterFault {
    fn from(error: std::io::Error) -> Self {
        Self::Io { errno: error.raw_os_error() }
    }
}

impl From<TsmError> for AttesterFault {
    fn from(error: TsmError) -> Self {
        match error {
            TsmError::Io { error, .. } => error.into(),
            TsmError::NoProvider | TsmError::UnknownProvider(_) | TsmError::OtherProvider { .. } => {
                Self::Provider
            }
            TsmError::TooLong { .. } => Self::TooLong,
            TsmError::Senseless(_) => Self::Malformed,
            TsmError::Conflict => Self::Conflict,
        }
    }
}

/// Why no epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EpochFault {
    /// No random bytes.
    NoKeys,
    /// The GPUs gave no evidence.
    Gpus,
    /// A bug.
    Broken,
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

/// Events that wait to be written; more are dropped and counted.
const MAX_WAITING: usize = 1024;

/// How long the end of the process waits for a reader of the log.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);
const FLUSH_RETRY: Duration = Duration::from_millis(5);

/// Where events go: to a thread that writes them, so that nobody waits for whoever reads the log.
#[derive(Clone, Debug)]
pub struct EventLog {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl EventLog {
    /// Writes to `sink`, one line per event.
    pub fn new(mut sink: impl Write + Send + 'static) -> Self {
        let (sender, messages) = sync_channel(MAX_WAITING);
        std::thread::spawn(move || {
            for message in messages {
                match message {
                    // The enclave does not stop because nobody reads its log.
                    Message::Line(line) => drop(sink.write_all(&line).and_then(|()| sink.flush())),
                    Message::Flush(done) => drop(done.try_send(())),
                }
            }
        });
        Self { sender, dropped: Arc::default() }
    }

    /// Ends a line that somebody else began.
    pub fn new_line(&self) {
        let _full = self.sender.try_send(Message::Line(vec![b'\n']));
    }

    /// Logs `event`. Never waits: if too many events wait already, it is dropped, and the next one that is not says how many were.
    pub fn log(&self, event: &Event) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 && !self.send(&Event::EventsDropped { count: dropped }) {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if !self.send(event) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(&self, event: &Event) -> bool {
        let Ok(mut line) = serde_json::to_vec(event) else { return false };
        line.push(b'\n');
        self.sender.try_send(Message::Line(line)).is_ok()
    }

    /// Waits until what was logged is written, or for a second if nobody reads.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_DEADLINE;
        let (done, written) = sync_channel(1);
        // With a full queue there is no place for the question either, until some of it is written.
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Flush(done.clone())) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(FLUSH_RETRY);
        }
        let _nobody_reads = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
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
        let failed = |fault| json(Event::AttesterFailed { fault });
        assert_eq!(
            failed(AttesterFault::Io { errno: Some(5) }),
            serde_json::json!({"event": "attester_failed", "reason": "io", "errno": 5})
        );
        assert_eq!(
            failed(AttesterFault::Conflict),
            serde_json::json!({"event": "attester_failed", "reason": "conflict"})
        );
        let address = Listening::Vsock(3, 8443);
        assert_eq!(json(Event::Listening { address })["address"], "vsock:3:8443");
    }

    /// A sink that takes nothing until it is told to.
    struct Stuck(std::sync::mpsc::Receiver<()>, Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _go = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_stops_nothing_and_says_what_was_lost() {
        let (go, stuck) = std::sync::mpsc::channel();
        let written = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = EventLog::new(Stuck(stuck, Arc::clone(&written)));
        for _ in 0..MAX_WAITING + 100 {
            log.log(&Event::AcceptFailed);
        }
        drop(go);
        log.flush();
        log.log(&Event::Ready);
        log.flush();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.contains("\"events_dropped\",\"count\":") && text.contains("\"ready\""), "{text}");
    }
}
