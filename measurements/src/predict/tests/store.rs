//! The locked firmware and kernel, where the packages are at hand.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cocoon_attestation::Digest;

use crate::image::deb;
use crate::image::lock::Lock;
use crate::image::store::Store;
use crate::predict::enforcement::{KNOWN, enforcing};
use crate::predict::firmware::Firmware;
use crate::predict::snp::{Shape, predict};
use crate::predict::{Boot, tdx};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn folder() -> PathBuf {
    repository().join("../shared/store")
}

/// A file of a locked package, `None` where there is no store.
fn locked(package: &str, path: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let lock = Lock::parse(include_str!("../../../inputs.lock"), Path::new("inputs.lock")).unwrap();
    if !folder().is_dir() {
        println!("skipped: no package store");
        return None;
    }
    let package = lock.package(package).unwrap();
    let bytes = Store::new(vec![folder()]).read(package).unwrap();
    deb::extract(package.file(), &bytes, path).unwrap().into_values().next()
}

/// The build that measures hashes and does not compare them; it is in the store for tests only, so no lock names it.
fn generic() -> Option<Vec<u8>> {
    let package = std::fs::read(folder().join("ovmf-generic_2026.08+ds-2_all.deb")).ok()?;
    deb::extract("ovmf-generic", &package, |path| path == "usr/share/ovmf/OVMF.fd")
        .unwrap()
        .into_values()
        .next()
}

/// Arguments of `tests/vectors/launch.py`: firmware, kernel, initrd, command line.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(firmware: &[u8], boot: &Boot<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = [("1", firmware), ("2", boot.kernel), ("3", boot.initrd), ("4", boot.command_line)];
        files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
        Self { dir }
    }

    fn ask(&self, python: &Path, what: &str, input: &str) -> String {
        let mut child = Command::new(python)
            .arg(repository().join("tests/vectors/launch.py"))
            .arg(what)
            .args(["1", "2", "3", "4"])
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Python with sev-snp-measure, as `scripts/peers install` makes it.
fn peers() -> Option<PathBuf> {
    let target = PathBuf::from(std::env::current_exe().unwrap().ancestors().nth(3).unwrap());
    let python = target.join("peers/python/bin/python");
    let found = Command::new(&python).args(["-c", "import sevsnpmeasure"]).output();
    found.is_ok_and(|output| output.status.success()).then_some(python)
}

#[test]
fn the_locked_firmware_is_known_and_the_generic_one_is_refused() {
    let Some(amdsev) = locked("ovmf-amdsev", |path| path == "usr/share/ovmf/OVMF.amdsev.fd") else { return };
    assert_eq!(Digest::of(&amdsev), KNOWN[0]);
    assert!(enforcing(Firmware::parse(&amdsev).unwrap(), &[]).is_ok());
    let generic = generic().unwrap();
    let firmware = Firmware::parse(&generic).unwrap();
    assert!(
        firmware.hash_table().is_some_and(|(base, size)| base != 0 && size != 0),
        "it looks as if it did"
    );
    let refused = enforcing(firmware, &[Digest::of(&generic)]).unwrap_err().to_string();
    assert!(refused.contains("no blob verifier"), "{refused}");
    // The firmware for TDX has no place for hashes at all.
    let Some(tdx) = locked("ovmf", |path| path == "usr/share/ovmf/OVMF.fd") else { return };
    assert!(enforcing(Firmware::parse(&tdx).unwrap(), &[]).unwrap_err().is_rejection());
}

#[test]
fn twelve_shapes_of_the_locked_parts_as_sev_snp_measure_has_them() {
    let Some(ovmf) = locked("ovmf-amdsev", |path| path == "usr/share/ovmf/OVMF.amdsev.fd") else { return };
    let Some(python) = peers() else {
        println!("skipped: no sev-snp-measure; scripts/peers install gets it");
        return;
    };
    let kernel = locked("linux-image-", |path| path.starts_with("boot/vmlinuz-")).unwrap();
    let boot = Boot {
        kernel: &kernel,
        initrd: b"an initrd",
        command_line: crate::image::build::COMMAND_LINE.as_bytes(),
    };
    let types = ["EPYC-v4", "EPYC-Rome", "EPYC-Milan-v2", "EPYC-Genoa"];
    let shapes: Vec<_> =
        types.iter().flat_map(|name| [(1, name, 1), (8, name, 1), (64, name, 0x21)]).collect();
    let input: String =
        shapes.iter().map(|(vcpus, name, features)| format!("{vcpus} {name} {features:x}\n")).collect();
    let want = Files::new(&ovmf, &boot).ask(&python, "snp", &input);
    let firmware = enforcing(Firmware::parse(&ovmf).unwrap(), &[]).unwrap();
    assert_eq!(want.lines().count(), 12);
    for ((vcpus, name, guest_features), want) in shapes.into_iter().zip(want.lines()) {
        let shape = Shape { vcpus, vcpu_type: name.parse().unwrap(), guest_features };
        assert_eq!(predict(&firmware, &boot, &shape).unwrap().measurement.to_string(), want, "{shape:?}");
    }
}

#[test]
fn registers_of_the_locked_parts_as_the_script_has_them() {
    let Some(ovmf) = locked("ovmf", |path| path == "usr/share/ovmf/OVMF.fd") else { return };
    let kernel = locked("linux-image-", |path| path.starts_with("boot/vmlinuz-")).unwrap();
    let boot = Boot { kernel: &kernel, initrd: b"an initrd", command_line: b"console=ttyS0 quiet" };
    let want = Files::new(&ovmf, &boot).ask(Path::new("python3"), "tdx", "");
    let found = tdx::predict(&Firmware::parse(&ovmf).unwrap(), &boot).unwrap();
    assert_eq!(want, format!("mr_td {}\nrtmr1 {}\nrtmr2 {}\n", found.mr_td, found.rtmr1, found.rtmr2));
    // The beginning of what another tool, tinfoil's tdx-measure, gave for this build.
    let generic = generic().unwrap();
    let mr_td = tdx::mr_td(&Firmware::parse(&generic).unwrap(), tdx::Order::SinglePass).unwrap();
    assert!(mr_td.to_string().starts_with("ab742989"), "{mr_td}");
}
