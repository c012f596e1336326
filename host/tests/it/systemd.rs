//! The systemd unit: systemd takes it, and it fits the program.

use std::{fs, path::Path, process::Command};

fn unit() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/cocoon-host.service")).unwrap()
}

/// What follows `key=` on its line.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn systemd_takes_the_unit() {
    let program = Path::new("/usr/bin/systemd-analyze");
    if !program.exists() {
        return;
    }
    let version = Command::new(program).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let version: u32 = version.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    // systemd looks whether the program is there.
    let folder = tempfile::tempdir().unwrap();
    let unit = unit().replace("/usr/bin/cocoon-host", env!("CARGO_BIN_EXE_cocoon-host"));
    let file = folder.path().join("cocoon-host.service");
    fs::write(&file, unit).unwrap();
    let output = Command::new(program).args(["verify", "--man=no"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Other units of this machine are looked at too. Before systemd 254 there was no growing delay: then it stays as it begins.
    let old = |line: &str| {
        version < 254 && (line.contains("'RestartSteps'") || line.contains("'RestartMaxDelaySec'"))
    };
    let ours: Vec<_> = said.lines().filter(|line| line.contains("cocoon-host") && !old(line)).collect();
    assert!(ours.is_empty() && output.status.success(), "{said}");
}

#[test]
fn stopping_is_given_more_time_than_answers_are() {
    let unit = unit();
    let stop: u64 = value(&unit, "TimeoutStopSec").parse().unwrap();
    let start = value(&unit, "ExecStart");
    let drain = start.split_once("--drain-timeout ").unwrap().1.split(' ').next().unwrap();
    assert!(stop >= drain.parse::<u64>().unwrap() + 10, "{stop} {drain}");
    // QEMU must not get the signal: the host asks the enclave to end.
    assert_eq!(value(&unit, "KillMode"), "mixed");
}

#[test]
fn the_command_line_is_one_that_the_program_takes() {
    let unit = unit();
    let mut line = value(&unit, "ExecStart").to_owned();
    for (name, text) in unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('=')) {
        line = line.replace(&format!("${{{name}}}"), text).replace(&format!("${name}"), text);
    }
    assert!(!line.contains('$'), "{line}");
    let arguments = line.split_ascii_whitespace().map(Into::into);
    let cli = cocoon_host::cli::Cli::read(arguments).unwrap();
    assert!(matches!(cli.command, cocoon_host::cli::Command::Run(args) if args.vm.vm.is_some()));
}
