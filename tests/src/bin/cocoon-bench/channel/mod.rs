//! What attestation costs: requests through the gate, against the same enclave without it.
//!
//! Clients and enclave share this process and its CPU, so CPU time is that of both ends, and of the simulated hardware's signature.

mod client;
mod server;

use std::time::{Duration, Instant};

use cocoon_enclave::platform::sim::REPORT_TIME;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::machine::own_cpu;
use crate::pairs::{Pairs, Spread, alternate};
use crate::report::{Better, Row};
use client::{Client, Door};
use server::Server;

const BASELINE: &str = "same enclave, no gate";
/// Odd, so that the median is one of the pairs.
const PAIRS: usize = 21;
/// The crowd takes half a second a time.
const CROWD_PAIRS: usize = 9;
/// Connections of one sample, one after another, where they take milliseconds.
const CONNECTIONS: u32 = 5;
/// Requests of one sample, one after another.
const REQUESTS: u32 = 1000;
/// Clients that come at once.
const CROWD: usize = 200;
/// So many connect at the same instant, the next ones [`WAVE_APART`] later: no listener's queue overflows, for which TCP would wait
/// a second, with or without a gate.
const WAVE: usize = 50;
/// All waves together are far within the time for which the first client waits for company.
const WAVE_APART: Duration = Duration::from_millis(2);

/// Measures everything about the channel.
///
/// # Errors
/// When a client or the enclave fails.
pub fn measure() -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let instant = runtime.block_on(Server::start(Duration::ZERO))?;
    let real = runtime.block_on(Server::start(REPORT_TIME))?;
    let mut rows = Vec::new();
    rows.extend(set_up(&runtime, &instant, CONNECTIONS, "report in 0 ms")?);
    rows.extend(set_up(&runtime, &real, 1, "report in 140 ms")?);
    rows.extend(established(&runtime, &instant)?);
    rows.extend(crowd(&runtime, &real)?);
    Ok(rows)
}

fn row(what: String, unit: &'static str, pairs: Pairs) -> Row {
    Row { what, baseline: BASELINE.to_owned(), better: Better::Lower, unit, pairs, note: String::new() }
}

/// New connections, each with its first request.
fn set_up(runtime: &Runtime, server: &Server, connections: u32, report: &str) -> anyhow::Result<[Row; 2]> {
    let sample = |door: &Door| {
        timed(f64::from(connections) / 1e3, || {
            runtime.block_on(async {
                for _ in 0..connections {
                    door.enter().await?.ask().await?;
                }
                Ok(())
            })
        })
    };
    let [wall, cpu] = alternate(PAIRS, || sample(&server.bare), || sample(&server.gated))?;
    Ok([
        row(format!("connect and ask, {report}: time"), "ms", wall),
        row(format!("connect and ask, {report}: CPU"), "ms", cpu),
    ])
}

/// Requests on a connection that is there already.
fn established(runtime: &Runtime, server: &Server) -> anyhow::Result<[Row; 2]> {
    let bare = runtime.block_on(server.bare.enter())?;
    let attested = runtime.block_on(server.gated.enter())?;
    let sample = |client: &Client| {
        timed(f64::from(REQUESTS) / 1e6, || {
            runtime.block_on(async {
                for _ in 0..REQUESTS {
                    client.ask().await?;
                }
                Ok(())
            })
        })
    };
    let [wall, cpu] = alternate(PAIRS, || sample(&bare), || sample(&attested))?;
    Ok([
        row("request on an open connection: time".to_owned(), "us", wall),
        row("request on an open connection: CPU".to_owned(), "us", cpu),
    ])
}

/// Wall and CPU seconds that `work` takes, divided by `by`.
fn timed(by: f64, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<[f64; 2]> {
    let (start, cpu) = (Instant::now(), own_cpu()?);
    work()?;
    Ok([start.elapsed().as_secs_f64() / by, (own_cpu()? - cpu) / by])
}

/// Many clients that connect at once and ask once.
fn crowd(runtime: &Runtime, server: &Server) -> anyhow::Result<[Row; 2]> {
    let mut reports = Vec::new();
    let gated = || {
        let before = server.reports();
        let times = runtime.block_on(rush(&server.gated))?;
        reports.push((server.reports() - before) as f64);
        Ok(times)
    };
    let [last, median] = alternate(CROWD_PAIRS, || runtime.block_on(rush(&server.bare)), gated)?;
    let Spread { min, max, .. } = Spread::of(reports);
    let note = format!("{min}..{max} reports");
    let what = format!("{CROWD} clients at once, report in 140 ms");
    Ok([
        Row { note, ..row(format!("{what}: last one answered"), "ms", last) },
        row(format!("{what}: median client"), "ms", median),
    ])
}

/// Milliseconds until the last and until the median client was answered.
async fn rush(door: &Door) -> anyhow::Result<[f64; 2]> {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CROWD {
        if client > 0 && client % WAVE == 0 {
            tokio::time::sleep(WAVE_APART).await;
        }
        let door = door.clone();
        clients.spawn(async move {
            door.enter().await?.ask().await?;
            Ok::<_, anyhow::Error>(start.elapsed().as_secs_f64() * 1e3)
        });
    }
    let times: Vec<f64> = clients.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    let Spread { median, max, .. } = Spread::of(times);
    Ok([max, median])
}
