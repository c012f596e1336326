//! What the relay costs: bytes through `cocoon-host relay`, against a direct connection over the same loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use cocoon_tests::programs::{Program, binary};

use crate::machine::{cpu_of, on_one_core, own_cpu};
use crate::pairs::{Pairs, alternate};
use crate::report::{Better, Row};

const BASELINE: &str = "direct TCP";
/// Odd, so that the median is one of the pairs.
const PAIRS: usize = 15;
/// Bytes of one sample.
const TRANSFER: u64 = 512 << 20;
/// What the ends write and read at once.
const CHUNK: usize = 128 << 10;
/// A streamed token with its envelope, about.
const MESSAGE: usize = 256;
/// Round trips of one sample.
const ROUND_TRIPS: u32 = 2000;

/// Measures everything about the relay.
///
/// # Errors
/// When a connection breaks.
pub fn measure() -> anyhow::Result<Vec<Row>> {
    let what = format!("throughput of {} MiB to one client", TRANSFER >> 20);
    let [throughput, _cpu] = transfer()?;
    let [narrow, cpu] = on_one_core(transfer)?;
    let round_trip = on_one_core(round_trip)?;
    Ok(vec![
        row(what.clone(), Better::Higher, "GB/s", throughput),
        row(format!("{what}, all on one core"), Better::Higher, "GB/s", narrow),
        Row {
            baseline: "both ends of direct TCP".to_owned(),
            ..row("CPU of the relay in that transfer".to_owned(), Better::Lower, "s/GB", cpu)
        },
        row(format!("round trip of {MESSAGE} bytes, all on one core"), Better::Lower, "us", round_trip),
    ])
}

fn row(what: String, better: Better, unit: &'static str, pairs: Pairs) -> Row {
    Row { what, baseline: BASELINE.to_owned(), better, unit, pairs, note: String::new() }
}

/// The enclave's side sends a lot.
fn transfer() -> anyhow::Result<[Pairs; 2]> {
    let source = listen(send)?;
    let (relay, relayed) = start_relay(source)?;
    alternate(PAIRS, || receive(source, own_cpu), || receive(relayed, || cpu_of(relay.pid())))
}

/// Small messages, to and fro.
fn round_trip() -> anyhow::Result<Pairs> {
    let echo = listen(echo)?;
    let (_relay, relayed) = start_relay(echo)?;
    let [pairs] = alternate(PAIRS, || ping(echo), || ping(relayed))?;
    Ok(pairs)
}

/// The real program, as it is released.
fn start_relay(upstream: SocketAddr) -> anyhow::Result<(Program, SocketAddr)> {
    let mut command = Command::new(binary("cocoon-host"));
    command.args(["relay", "--listen", "127.0.0.1:0", "--upstream", &upstream.to_string()]);
    let mut program = Program::start(&mut command);
    let address = program.wait_for("ready", |line| line.strip_prefix("ready ").map(str::to_owned));
    Ok((program, address.parse()?))
}

/// Serves each connection with `serve` on a thread of its own, for as long as the process lives.
fn listen(serve: fn(TcpStream) -> std::io::Result<()>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that fails here notices by itself.
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

/// Sends as many bytes as the first eight that it receives say.
fn send(mut stream: TcpStream) -> std::io::Result<()> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let (chunk, mut left) = (vec![0; CHUNK], u64::from_be_bytes(length));
    while left > 0 {
        let part = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&chunk[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// Sends back whatever it receives.
fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Throughput in GB/s, and what `cpu` counts meanwhile in seconds per GB.
fn receive(from: SocketAddr, cpu: impl Fn() -> anyhow::Result<f64>) -> anyhow::Result<[f64; 2]> {
    let mut stream = connect(from)?;
    let mut buffer = vec![0; CHUNK];
    let (start, cpu_before, mut left) = (Instant::now(), cpu()?, TRANSFER);
    stream.write_all(&TRANSFER.to_be_bytes())?;
    while left > 0 {
        let read = stream.read(&mut buffer)?;
        anyhow::ensure!(read > 0, "the transfer broke off");
        left = left.saturating_sub(read as u64);
    }
    let gigabytes = TRANSFER as f64 / 1e9;
    Ok([gigabytes / start.elapsed().as_secs_f64(), (cpu()? - cpu_before) / gigabytes])
}

/// Microseconds of a round trip.
fn ping(address: SocketAddr) -> anyhow::Result<[f64; 1]> {
    let mut stream = connect(address)?;
    let mut message = [7; MESSAGE];
    let mut exchange = || -> std::io::Result<()> {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)
    };
    // The first one also waits for the relay's own connection.
    exchange()?;
    let start = Instant::now();
    for _ in 0..ROUND_TRIPS {
        exchange()?;
    }
    Ok([start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUND_TRIPS)])
}
