//! Logs that `cocoon-measure` keeps, read by a second implementation (tests/log/check.py).

use std::path::Path;
use std::process::{Command, Output};

use cocoon_attestation::release::{ReleaseBundle, log_entry};
use cocoon_tests::programs::binary;
use cocoon_tests::release::manifest;
use cocoon_tests::repository;

const ORIGIN: &str = "log.test/releases";

fn run(command: &mut Command, dir: &Path) -> Output {
    command.current_dir(dir).output().unwrap()
}

fn measure(args: &[&str], dir: &Path) -> String {
    let output = run(Command::new(binary("cocoon-measure")).args(args), dir);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The second implementation, on the log in `dir`: what it prints, or why it refuses.
fn check(dir: &Path, key: &str, more: &[&str]) -> Result<String, String> {
    let script = repository().join("tests/log/check.py");
    let output = run(
        Command::new("python3").arg(script).args(["log", "log", "--origin", ORIGIN, "--key", key]).args(more),
        dir,
    );
    let [out, err] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap().trim().to_owned());
    if output.status.success() { Ok(out) } else { Err(err) }
}

#[test]
fn a_second_implementation_reads_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    measure(&["key", "create", "log.pem"], dir);
    let key = measure(&["log", "init", "log", "--origin", ORIGIN, "--key", "log.pem"], dir);
    let ours = |older: &[String]| {
        let mut args = vec!["log", "verify", "log", "--origin", ORIGIN, "--key", &key];
        args.extend((!older.is_empty()).then_some("--older"));
        args.extend(older.iter().map(String::as_str));
        measure(&args, dir)
    };
    let (mut from, mut older) = (0, Vec::<String>::new());
    for size in [1_usize, 2, 255, 256, 257, 600] {
        let names: Vec<_> = (from..size).map(|n| format!("{n}.cbor")).collect();
        for (n, name) in (from..size).zip(&names) {
            std::fs::write(dir.join(name), ReleaseBundle::new(manifest(&n.to_string())).encode()).unwrap();
        }
        let mut args = vec!["log", "append", "log", "--key", "log.pem"];
        args.extend(names.iter().map(String::as_str));
        let numbers = measure(&args, dir);
        assert!(numbers.lines().map(|line| line.parse::<usize>().unwrap()).eq(from..size));
        from = size;
        let (last, middle) = ((size - 1).to_string(), (size / 2).to_string());
        let mut more = vec!["--index", "0", "--index", &last, "--index", &middle];
        more.extend(older.iter().flat_map(|path| ["--older", path.as_str()]));
        let theirs = check(dir, &key, &more).unwrap();
        let (entries, root) = theirs.split_once(' ').unwrap();
        assert_eq!(ours(&older), format!("{entries} entries, root {root}"));
        assert_eq!(entries, size.to_string());
        let kept = format!("checkpoint.{size}");
        std::fs::copy(dir.join("log/checkpoint"), dir.join(&kept)).unwrap();
        older.push(kept);
    }
    proofs_are_the_same(dir, &key);
    what_one_refuses_the_other_refuses(dir, &key);
}

/// Proofs that we make are checked by them.
fn proofs_are_the_same(dir: &Path, key: &str) {
    let script = repository().join("tests/log/check.py");
    for n in [0, 255, 256, 511, 512, 599] {
        let name = format!("{n}.cbor");
        assert_eq!(measure(&["log", "prove", "log", &name], dir), n.to_string());
        let mut args = vec![script.to_str().unwrap(), "release", &name, "--origin", ORIGIN, "--key", key];
        let output = run(Command::new("python3").args(&args), dir);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let digest = String::from_utf8(output.stdout).unwrap();
        assert_eq!(digest.trim(), manifest(&n.to_string()).digest().to_string());
        // The proof of one release does for no other.
        let mut other = ReleaseBundle::decode(&std::fs::read(dir.join(&name)).unwrap()).unwrap();
        other.manifest = manifest("other");
        assert!(!other.log.as_ref().unwrap().includes(&other.manifest));
        std::fs::write(dir.join("other.cbor"), other.encode()).unwrap();
        args[2] = "other.cbor";
        let output = run(Command::new("python3").args(&args), dir);
        assert!(String::from_utf8_lossy(&output.stderr).contains("not in the log"));
    }
    let copy = dir.join(format!("log/release/{}.cbor", manifest("7").digest()));
    assert!(ReleaseBundle::decode(&std::fs::read(copy).unwrap()).is_ok(), "who watches the log finds it");
    assert!(log_entry(&manifest("7")).starts_with(b"cocoon-release/1\n7\n"));
}

fn what_one_refuses_the_other_refuses(dir: &Path, key: &str) {
    let refused_by_us = || {
        let args = ["log", "verify", "log", "--origin", ORIGIN, "--key", key];
        run(Command::new(binary("cocoon-measure")).args(args), dir).status.code() == Some(1)
    };
    for (name, at) in
        [("tile/0/001", 5), ("tile/1/000.p/2", 40), ("tile/entries/000", 30), ("checkpoint", 24)]
    {
        let path = dir.join("log").join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(check(dir, key, &[]).is_err() && refused_by_us(), "{name}");
        std::fs::write(&path, good).unwrap();
    }
    let other = measure(&["key", "create", "other.pem"], dir);
    assert!(check(dir, &other, &[]).unwrap_err().contains("not signed by the log"));
    assert!(check(dir, key, &[]).is_ok() && !refused_by_us());
}
