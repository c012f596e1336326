//! Where it runs, and CPU time.

use std::fs::read_to_string;

use nix::time::ClockId;
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The machine and the version, as far as they matter for numbers.
pub fn describe() -> Value {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.split('\t').next() == Some(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    json!({
        "cpu": field("model name"),
        "cpu_family": field("cpu family"),
        "cpu_model": field("model"),
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "kernel": read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end(),
        "cocoon": env!("CARGO_PKG_VERSION"),
    })
}

/// CPU time that this process has used, in seconds.
pub fn own_cpu() -> anyhow::Result<f64> {
    seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time that another process has used, in seconds: what `/proc/PID/stat` counts in hundredths.
pub fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    seconds(ClockId::pid_cpu_clock_id(Pid::from_raw(pid.try_into()?))?)
}

fn seconds(clock: ClockId) -> anyhow::Result<f64> {
    Ok(std::time::Duration::from(clock.now()?).as_secs_f64())
}
