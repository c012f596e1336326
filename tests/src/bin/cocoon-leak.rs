//! What a host sees of streams whose topics and lengths are known: `scripts/bench --leak` trains classifiers on it.
//!
//! One JSON object a line on standard output: padding profile, topic, question, length, milliseconds to the first text, and what passed: for each read of
//! the host microseconds, bytes, and 1 if they came from the enclave. Times are the kernel's, of when it got the bytes, as a
//! network card's would be: those of a program also say how long its own processor took to wake, which no real host depends on.

use std::io::{IoSliceMut, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use cocoon_attestation::Digest;
use cocoon_client::{ChatEvent, ChatRequest, Policy, connect};
use cocoon_tests::programs::EnclaveProcess;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use serde_json::json;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Record what a host sees of streams.
#[derive(Debug, Parser)]
struct Cli {
    /// Streams of each padding profile
    #[arg(long, value_name = "N", default_value_t = 384)]
    streams: usize,
}

/// What the questions are about, with things to ask of.
const TOPICS: [(&str, [&str; 6]); 4] = [
    ("How do I cook", ["rice", "an omelette", "a stew", "pancakes", "lentils", "noodles"]),
    ("In law, what is", ["a contract", "an appeal", "a tort", "a witness", "a patent", "an oath"]),
    ("What does a doctor do about", ["a fever", "asthma", "a burn", "migraine", "gout", "anaemia"]),
    ("Write a line of Python for", ["sorting", "a loop", "a file", "a date", "a set", "a sum"]),
];
/// Tokens of a short and of a long answer: of both is written in less than a second.
const LENGTHS: [u32; 2] = [8, 24];

/// What passed through the host on one connection.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Passed>>>);

/// Microseconds (as a clock has them; none of what came before the kernel was asked for times), bytes, and 1 if they came from the enclave.
type Passed = (Option<i64>, usize, u8);

impl Seen {
    fn reads(&self) -> MutexGuard<'_, Vec<Passed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // As in an image: what is sent leaves on time.
    let enclave = EnclaveProcess::start(&["--yield-processors"]);
    let policy = Policy::from_toml(&enclave.policy_text())?;
    tokio::runtime::Runtime::new()?.block_on(record(&enclave.address, &policy, cli.streams))
}

async fn record(enclave: &str, policy: &Policy, streams: usize) -> anyhow::Result<()> {
    let model = connect(enclave, policy.clone()).await?.models().await?;
    let model = &model.first().context("the enclave has no model")?.id;
    let mut out = std::io::stdout();
    for stream in 0..streams {
        let (topic, length) = kind(stream);
        let (what, things) = TOPICS[topic];
        let thing = stream / (TOPICS.len() * LENGTHS.len()) % things.len();
        let question = format!("{what} {}?", things[thing]);
        for padded in [false, true] {
            let mut request = ChatRequest::new(model, question.as_str());
            (request.max_tokens, request.seed) = (Some(LENGTHS[length]), Some(stream as u64));
            let (seen, first) = one(enclave, policy, &request, padded, pause(stream)).await?;
            let mut reads = Vec::new();
            for (at, bytes, direction) in seen.reads().clone() {
                reads.push((at.context("the kernel gives no times of receipt")?, bytes, direction));
            }
            let line = json!({
                "pad": u8::from(padded), "topic": topic, "question": topic * things.len() + thing,
                "length": length, "first_ms": first, "reads": reads,
            });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Topic and length: each combination as often, in an order without a pattern. Streams that follow each other see the machine in the same
/// state; if they were alike too, a classifier would find the state.
fn kind(stream: usize) -> (usize, usize) {
    let all = TOPICS.len() * LENGTHS.len();
    let mut round: Vec<usize> = (0..all).collect();
    round.sort_by_key(|kind| Digest::of(format!("{} {kind}", stream / all).as_bytes()).0);
    let kind = round[stream % all];
    (kind % TOPICS.len(), kind / TOPICS.len())
}

/// Up to 50 ms.
fn pause(stream: usize) -> Duration {
    let [first, second, ..] = Digest::of(format!("moment {stream}").as_bytes()).0;
    Duration::from_millis(50) * u16::from_be_bytes([first, second]).into() / 0x1_0000
}

/// One question on its own connection, asked after `pause`; what was seen of it, and milliseconds to the first text.
async fn one(
    enclave: &str,
    policy: &Policy,
    request: &ChatRequest,
    padded: bool,
    pause: Duration,
) -> anyhow::Result<(Seen, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let seen = Seen::default();
    let relay = tokio::spawn(relay(listener, enclave.to_owned(), seen.clone()));
    let session = connect(&address, policy.clone()).await?;
    let session = if padded { session } else { session.without_padding() };
    // What came before is the same for all, and people ask whenever they like: not a fixed time after the enclave's last cell.
    tokio::time::sleep(pause).await;
    seen.reads().clear();
    let asked = Instant::now();
    let mut answer = session.chat(request).await?;
    let mut first = None;
    while let Some(event) = answer.next().await? {
        if matches!(event, ChatEvent::Text(_)) {
            first.get_or_insert_with(|| asked.elapsed().as_secs_f64() * 1e3);
        }
    }
    // To the last cell.
    let quiet = Duration::from_millis(if padded { 1100 } else { 50 });
    tokio::time::sleep(quiet).await;
    relay.abort();
    Ok((seen, first.unwrap_or(f64::NAN)))
}

async fn relay(listener: TcpListener, enclave: String, seen: Seen) -> std::io::Result<()> {
    let (client, _) = listener.accept().await?;
    let server = TcpStream::connect(enclave).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for stream in [&client, &server] {
        setsockopt(stream, sockopt::ReceiveTimestampns, &true)?;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::try_join!(pass(from_client, to_server, 0, &seen), pass(from_server, to_client, 1, &seen))?;
    Ok(())
}

async fn pass(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: u8,
    seen: &Seen,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let stream: &TcpStream = from.as_ref();
        stream.readable().await?;
        let (n, at) = match stream.try_io(Interest::READABLE, || receive(stream, &mut buffer)) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            received => received?,
        };
        if n == 0 {
            return Ok(());
        }
        seen.reads().push((at, n, direction));
        to.write_all(&buffer[..n]).await?;
    }
}

/// Bytes, and when the kernel got the last of them.
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> std::io::Result<(usize, Option<i64>)> {
    let (mut into, mut space) = ([IoSliceMut::new(buffer)], nix::cmsg_space!(nix::sys::time::TimeSpec));
    let message =
        recvmsg::<SockaddrStorage>(stream.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::empty())?;
    let at = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(at.tv_sec() * 1_000_000 + at.tv_nsec() / 1000),
        _ => None,
    });
    Ok((message.bytes, at))
}
