//! `cocoon-measure` as auditors call it: exit codes, JSON, and that errors name what to do.

use std::path::Path;
use std::process::{Command, Output};

use cocoon_measurements::image::archive;
use cocoon_measurements::image::directory::{MANIFEST, SNP_FIRMWARE, TDX_FIRMWARE};
use cocoon_measurements::image::manifest::{Content, FORMAT, Manifest, Profile, Tool};
use cocoon_measurements::image::newc::Initramfs;
use cocoon_tests::programs::binary;
use cocoon_tests::{factory, repository};
use serde_json::Value;

const LINE: &str = "console=ttyS0 quiet";

fn measure(args: &[&str], dir: &Path) -> Output {
    Command::new(binary("cocoon-measure")).args(args).current_dir(dir).output().unwrap()
}

fn json(args: &[&str], dir: &Path, code: i32) -> Value {
    let output = measure(&[args, &["--json"]].concat(), dir);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(args: &[&str], dir: &Path, code: i32, because: &str) {
    let output = measure(args, dir);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    assert!(errors.contains(because) && errors.trim().lines().count() == 1, "{errors}");
}

#[test]
fn the_enclave_states_the_digest_that_is_printed() {
    for family in ["llama", "qwen3"] {
        let folder = repository().join("tests/vectors/huggingface").join(family);
        let read = cocoon_inference::read_model(&folder, None, |_, _| ()).unwrap();
        let stated = cocoon_enclave::model::manifest(&read).unwrap();
        let output = measure(&["model", "digest", "."], &folder);
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), stated.digest().to_string());
        let names: Vec<_> = stated.files().iter().map(|file| file.name.as_str()).collect();
        assert!(names.contains(&"tokenizer.json") && !names.contains(&"logits.json"), "{names:?}");
    }
    // Both know the same names.
    for name in [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors",
        "README.md",
        "x",
        "chat_template.jinja",
    ] {
        let files = vec![(name.to_owned(), Vec::new())];
        let read = cocoon_inference::ModelBytes::from_files(files);
        assert_eq!(
            !read.files().is_empty(),
            cocoon_attestation::wire::ModelManifest::is_part(name),
            "{name}"
        );
    }
}

/// An image in the folder `name`, with a small firmware that no verifier is in.
fn image(dir: &Path, name: &str, line: &str) {
    let vectors = repository().join("tests/vectors");
    let (firmware, kernel) = (vectors.join("launch.fd"), vectors.join("launch.efi"));
    let (firmware, kernel) = (std::fs::read(firmware).unwrap(), std::fs::read(kernel).unwrap());
    let mut initramfs = Initramfs::new();
    initramfs.file("init", 0o555, b"the enclave".to_vec());
    let initrd = initramfs.encode().unwrap();
    let parts: [(&str, &[u8]); 5] = [
        ("vmlinuz", &kernel),
        ("initrd", &initrd),
        ("cmdline", line.as_bytes()),
        (SNP_FIRMWARE, &firmware),
        (TDX_FIRMWARE, &firmware),
    ];
    let tool = Tool {
        name: "ld".into(),
        package: "p 1".into(),
        sha256: cocoon_attestation::Digest([1; 32]),
        locked: false,
    };
    let manifest = Manifest {
        format: FORMAT.into(),
        profile: Profile::Cpu,
        simulated: true,
        config: cocoon_attestation::Digest([0; 32]),
        parts: parts.iter().map(|(path, content)| ((*path).to_owned(), Content::of(content))).collect(),
        initrd: archive::entries(&initrd).unwrap(),
        inputs: Vec::new(),
        lock: cocoon_attestation::Digest([2; 32]),
        toolchain: vec![tool],
        not_locked: vec!["the phase of the moon".into()],
    };
    for (path, content) in parts {
        let path = dir.join(name).join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(dir.join(name).join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn image_verify_says_what_is_inside_and_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "i", LINE);
    let good = json(&["image", "verify", "i"], dir.path(), 0);
    assert_eq!(
        (&good["ok"], &good["simulated"], &good["profile"]),
        (&true.into(), &true.into(), &"cpu".into())
    );
    assert_eq!(good["tools_not_locked"][0], "ld");
    assert_eq!(good["parts"].as_array().unwrap().len(), 5);
    assert_eq!(good["initrd"][0]["path"], "init");
    let text = String::from_utf8(measure(&["image", "verify", "i"], dir.path()).stdout).unwrap();
    for said in [
        "vmlinuz",
        "0100555  init",
        "ld is not locked",
        "the phase of the moon",
        "WARNING: the simulated platform",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    std::fs::write(dir.path().join("i/cmdline"), "console=ttyS1 quiet").unwrap();
    std::fs::write(dir.path().join("i/extra"), "").unwrap();
    let bad = json(&["image", "verify", "i"], dir.path(), 1);
    let names: Vec<_> = bad["differences"].as_array().unwrap().iter().map(|one| &one["file"]).collect();
    assert_eq!(names, ["extra", "cmdline"]);
    assert_eq!(bad["differences"][1]["want"], Content::of(LINE.as_bytes()).sha256.to_string());
    fails(&["image", "verify", "missing"], dir.path(), 2, "cannot read missing/manifest.json");
    std::fs::write(dir.path().join("i").join(MANIFEST), "{}").unwrap();
    fails(&["image", "verify", "i"], dir.path(), 1, "manifest.json: is no manifest of an image");
}

#[test]
fn predict_gives_measurements_and_refuses_firmware_that_does_not_compare() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "i", LINE);
    let shape = ["--vcpus", "2", "--vcpu-type", "EPYC-Genoa"];
    let snp = [&["predict", "snp", "--image", "i"][..], &shape].concat();
    fails(&snp, dir.path(), 1, "no blob verifier");
    fails(&[&snp[..], &["--ovmf", "i/vmlinuz"]].concat(), dir.path(), 1, "firmware: it has 1792 bytes");
    fails(&[&snp[..], &["--ovmf", "missing"]].concat(), dir.path(), 2, "cannot read missing");
    // A prediction needs no manifest.
    std::fs::remove_file(dir.path().join("i").join(MANIFEST)).unwrap();
    let tdx = json(&["predict", "tdx", "--image", "i", "--vcpus", "2", "--memory", "2048"], dir.path(), 0);
    assert!(tdx["rtmr0"].is_null() && tdx["mr_td"].as_str().unwrap().len() == 96);
    let notes = tdx["notes"].to_string();
    assert!(notes.contains("rtmr0: not predicted") && notes.contains("not confirmed on hardware"), "{notes}");
    std::fs::write(dir.path().join("i/cmdline"), format!("{LINE}\n")).unwrap();
    let args = ["predict", "tdx", "--image", "i", "--vcpus", "2", "--memory", "2048"];
    fails(&args, dir.path(), 1, "command line: it has the byte 0x0a");
}

/// The production firmware, where the packages are at hand: a policy's measurement, and the ID block's.
#[test]
fn predict_takes_the_locked_firmware() {
    let package = repository().join("../shared/store/ovmf-amdsev_2026.08+ds-2_all.deb");
    let Ok(package) = std::fs::read(package) else {
        println!("skipped: no package store");
        return;
    };
    let name = "usr/share/ovmf/OVMF.amdsev.fd";
    let files =
        cocoon_measurements::image::deb::extract("ovmf-amdsev", &package, |path| path == name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "i", LINE);
    std::fs::write(dir.path().join("ovmf"), &files[name]).unwrap();
    let args =
        ["predict", "snp", "--image", "i", "--ovmf", "ovmf", "--vcpus", "2", "--vcpu-type", "EPYC-Genoa"];
    let found = json(&[&args[..], &["--policy", "0x30000"]].concat(), dir.path(), 0);
    assert_eq!(found["id_block"]["ld"], found["measurement"]);
    assert_eq!(found["id_block"]["policy"], "0x30000");
    fails(&[&args[..], &["--policy", "0"]].concat(), dir.path(), 2, "bit 17 must be set");
    // A number of vCPUs is a measurement of its own; `explain` finds which.
    let other = json(&[&args[..7], &["3", "--vcpu-type", "EPYC-Genoa"]].concat(), dir.path(), 0);
    let got = other["measurement"].as_str().unwrap();
    let explain = ["explain", got, "i", "--ovmf", "ovmf", "--vcpus", "2", "--vcpu-type", "EPYC-Genoa"];
    let why = json(&explain, dir.path(), 0);
    let inputs: Vec<_> = why["differences"].as_array().unwrap().iter().map(|one| &one["input"]).collect();
    assert_eq!(inputs, ["firmware", "vcpus"]);
}

#[test]
fn explain_names_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "i", LINE);
    image(dir.path(), "other", "console=ttyS0 quiet debug=1");
    let predict = ["predict", "tdx", "--image", "other", "--vcpus", "1", "--memory", "512"];
    let other = json(&predict, dir.path(), 0);
    let register = |name: &str| other[name].as_str().unwrap().to_owned();
    let got = format!("mrtd={},rtmr1={},rtmr2={}", register("mr_td"), register("rtmr1"), register("rtmr2"));
    let unexplained = json(&["explain", &got, "i"], dir.path(), 1);
    assert!(unexplained["unexplained"][0].as_str().unwrap().starts_with("rtmr2: the command line"));
    for more in [["--word", "debug=1"], ["--candidate", "other"]] {
        let found = json(&[&["explain", &got, "i"][..], &more].concat(), dir.path(), 0);
        assert_eq!(found["differences"][0]["input"], "cmdline");
        assert_eq!(found["same"], false);
    }
    assert_eq!(json(&["explain", &got, "other"], dir.path(), 0)["same"], true);
    assert_eq!(json(&["explain", &got, &got], dir.path(), 0)["same"], true);
    let odd = "ab".repeat(48);
    fails(&["explain", &got, &odd], dir.path(), 2, "give the image with --image DIR");
    fails(&["explain", &got, &odd, "--image", "i"], dir.path(), 2, "of different platforms");
    fails(&["explain", "missing", "i"], dir.path(), 2, "GOT \"missing\": expected 96 hexadecimal digits");
    fails(&["explain", "i/vmlinuz", "i"], dir.path(), 1, "GOT \"i/vmlinuz\" is not evidence");
}

/// A report as `cocoon inspect` takes it.
#[test]
fn explain_reads_reports() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "i", LINE);
    let report = factory::Processor::of(cocoon_attestation::snp::Product::Genoa).report.sign();
    std::fs::write(dir.path().join("report.bin"), report).unwrap();
    let found =
        json(&["explain", "report.bin", "i", "--vcpus", "1", "--vcpu-type", "EPYC-Genoa"], dir.path(), 1);
    assert_eq!((&found["platform"], &found["unexplained"][0]), (&"snp".into(), &"measurement".into()));
}
