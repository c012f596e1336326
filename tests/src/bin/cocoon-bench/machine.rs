//! Where it runs, and CPU time.

use std::fs::read_to_string;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::ClockId;
use nix::unistd::Pid;
use serde_json::{Value, json};

/// CPU features that decide how fast an engine can be, as Linux names them.
const FEATURES: [&str; 6] = ["avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8"];

/// The machine and the version, as far as they matter for numbers.
pub fn describe() -> Value {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.split('\t').next() == Some(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    let flags = field("flags");
    let features: Vec<&str> = flags.split(' ').filter(|flag| FEATURES.contains(flag)).collect();
    json!({
        "cpu": field("model name"),
        "cpu_family": field("cpu family"),
        "cpu_model": field("model"),
        "cpu_features": features.join(" "),
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

/// Does `work`, with all threads and processes that it starts, on one core: which core wakes which no longer matters.
pub fn on_one_core<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let this_thread = Pid::from_raw(0);
    let all = sched_getaffinity(this_thread)?;
    let first = (0..CpuSet::count()).find(|core| all.is_set(*core).unwrap_or(false)).unwrap_or_default();
    let mut one = CpuSet::new();
    one.set(first)?;
    sched_setaffinity(this_thread, &one)?;
    let result = work();
    sched_setaffinity(this_thread, &all)?;
    result
}
