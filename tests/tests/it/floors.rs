//! Signed TCB floors, from the signer to the client.

use std::path::Path;
use std::process::{Command, Output};

use cocoon_tests::programs::{EnclaveProcess, binary, cocoon};
use cocoon_tests::repository;

fn measure(args: &[&str], dir: &Path) -> Output {
    Command::new(binary("cocoon-measure")).args(args).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_policy_takes_newer_floors_from_the_signer_that_it_names_and_from_no_other() {
    let enclave = EnclaveProcess::start(&[]);
    let built_in = repository().join("attestation/src/policy/floors.toml");
    let built_in = std::fs::read_to_string(built_in).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let signer = stdout(&measure(&["key", "create", "signer.pem"], dir.path()));
    let other = stdout(&measure(&["key", "create", "other.pem"], dir.path()));
    let publish = |text: &str, key: &str| {
        std::fs::write(dir.path().join("floors.toml"), text).unwrap();
        measure(&["floors", "sign", "floors.toml", "--key", key], dir.path())
    };

    let row = format!("tcb = {{ signed_floors = {{ file = \"floors.toml\", signed_by = \"{signer}\" }} }}");
    let policy = enclave.policy_with("tcb = \"floors\"", &row);
    let moved = dir.path().join("policy.toml");
    std::fs::copy(policy, &moved).unwrap();
    let verify = || {
        let output = cocoon(&["verify", &enclave.address, "--policy", moved.to_str().unwrap()]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let refused = |because: &str| {
        let (code, said) = verify();
        assert!(code == Some(2) && said.contains(because), "{code:?} {said}");
    };

    refused("cannot read");
    assert_eq!(stdout(&publish(&built_in, "signer.pem")), signer);
    let listed = stdout(&measure(&["floors", "verify", "floors.toml", "--signer", &signer], dir.path()));
    assert!(listed.starts_with("version 1, issued ") && listed.contains("Genoa 191101: "), "{listed}");
    let (code, said) = verify();
    assert_eq!(code, Some(0), "{said}");

    // What the processor runs is below the newer floors.
    let newer = built_in.replace("version = 1", "version = 2").replace("snp = 23", "snp = 255");
    publish(&newer, "signer.pem");
    let (code, said) = verify();
    assert!(code == Some(1) && said.contains("snp.tcb") && said.contains("snp 255"), "{code:?} {said}");

    publish(&newer, "other.pem");
    refused("not signed by the key");
    let wrong = measure(&["floors", "verify", "floors.toml", "--signer", &signer], dir.path());
    assert_eq!(wrong.status.code(), Some(1));
    stdout(&measure(&["floors", "verify", "floors.toml", "--signer", &other], dir.path()));
    std::fs::remove_file(dir.path().join("floors.toml.sig")).unwrap();
    refused("cannot read");

    // What no Verifier would take is not signed.
    for (text, why) in [(built_in.replace("version = 1", "version = 0"), "older"), (String::new(), "missing")]
    {
        let refused = publish(&text, "signer.pem");
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(why));
        assert!(!dir.path().join("floors.toml.sig").exists());
    }
    assert_eq!(measure(&["key", "create", "signer.pem"], dir.path()).status.code(), Some(2), "replaced");
}
