//! What is found on a machine.

use std::sync::Arc;

use super::kernel::FakeKernel;
use super::log;
use crate::attest::ReportData;
use crate::platform::DetectError;
use crate::platform::detect::{Hardware, Way, detect};
use crate::platform::start::on_hardware;
use crate::platform::tsm::{Provider, TsmError};

const ANY: Option<Provider> = None;
const SNP: Option<Provider> = Some(Provider::SevGuest);
const TDX: Option<Provider> = Some(Provider::TdxGuest);

fn find(kernel: &Arc<FakeKernel>, want: Option<Provider>) -> Result<Hardware, DetectError> {
    detect(want, &kernel.files(), kernel.root())
}

fn with_device(kernel: &Arc<FakeKernel>, device: &str) {
    std::fs::create_dir_all(kernel.root().join("dev")).unwrap();
    std::fs::write(kernel.root().join("dev").join(device), "").unwrap();
}

#[test]
fn configfs_comes_first() {
    for (name, provider, other) in [("sev_guest", SNP, TDX), ("tdx_guest", TDX, SNP)] {
        let kernel = FakeKernel::new(name, b"report", None);
        with_device(&kernel, "sev-guest");
        with_device(&kernel, "tdx_guest");
        for want in [ANY, provider] {
            let found = find(&kernel, want).unwrap();
            assert!(Some(found.provider) == provider && matches!(found.way, Way::Tsm(_)), "{found:?}");
        }
        // What is asked for by name is taken from its device, where configfs-tsm is another's.
        let found = find(&kernel, other).unwrap();
        assert!(Some(found.provider) == other && matches!(found.way, Way::Device(_)), "{found:?}");
    }
}

#[test]
fn devices_serve_older_kernels() {
    for (device, provider) in [("sev-guest", SNP), ("tdx_guest", TDX)] {
        let kernel = FakeKernel::bare();
        with_device(&kernel, device);
        for want in [ANY, provider] {
            let found = find(&kernel, want).unwrap();
            assert!(Some(found.provider) == provider && matches!(found.way, Way::Device(_)), "{found:?}");
        }
    }
    // configfs-tsm without a driver, as a kernel module that was not loaded leaves it.
    let kernel = FakeKernel::new("", b"", None);
    kernel.change(|b| b.mkdir = Some(6));
    assert!(matches!(find(&kernel, ANY), Err(DetectError::NoTee)));
    with_device(&kernel, "sev-guest");
    assert!(matches!(find(&kernel, ANY).unwrap().way, Way::Device(_)));
}

#[test]
fn says_what_is_missing() {
    let text = |kernel: &Arc<FakeKernel>, want| find(kernel, want).unwrap_err().to_string();
    let bare = FakeKernel::bare();
    assert!(text(&bare, ANY).starts_with("no TEE here: this is not an SEV-SNP or TDX guest"));
    let missing = text(&bare, SNP);
    assert!(missing.starts_with("--tee snp, but this machine has no /dev/sev-guest"), "{missing}");
    let tdx = FakeKernel::new("tdx_guest", b"quote", None);
    let missing = text(&tdx, SNP);
    assert!(missing.contains("no /dev/sev-guest") && missing.contains("that of a TDX guest"), "{missing}");
}

#[test]
fn what_cannot_be_used_is_not_passed_over() {
    let kernel = FakeKernel::new("arm_cca_guest", b"token", None);
    with_device(&kernel, "sev-guest");
    let error = find(&kernel, ANY).unwrap_err();
    assert!(matches!(error, DetectError::Tsm(TsmError::UnknownProvider(_))), "{error}");
    let kernel = FakeKernel::new("sev_guest", b"report", None);
    kernel.change(|b| b.mkdir = Some(13));
    let error = find(&kernel, ANY).unwrap_err().to_string();
    assert!(error.contains("Permission denied") && error.contains("root"), "{error}");
    // A device that is there and cannot be opened; a loop of links, since these tests may run as root.
    let kernel = FakeKernel::bare();
    std::fs::create_dir(kernel.root().join("dev")).unwrap();
    std::os::unix::fs::symlink("tdx_guest", kernel.root().join("dev/tdx_guest")).unwrap();
    let error = find(&kernel, ANY).unwrap_err().to_string();
    assert!(error.contains("/dev/tdx_guest cannot be opened"), "{error}");
}

#[test]
fn an_attester_asks_what_was_found() {
    for (name, len) in [("sev_guest", 1184), ("tdx_guest", 5000)] {
        let kernel = FakeKernel::new(name, &vec![1; len], None);
        let (events, _) = log();
        let started = on_hardware(find(&kernel, ANY).unwrap(), 4050, &events);
        let evidence = started.attester().attest(&ReportData::for_test(1)).unwrap();
        assert_eq!(evidence.item.bytes.len(), len);
        assert_eq!(kernel.written().last().unwrap().1, [1; 64]);
    }
}
