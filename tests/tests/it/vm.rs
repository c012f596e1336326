//! The VM image, booted with the production firmware of SEV-SNP under emulation.

use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_client::{Policy, connect};
use cocoon_tests::programs::{binary, cocoon, event};
use cocoon_tests::vm::{Lab, SHAPE, Vm};
use cocoon_tests::{model, repository};
use serde_json::{Value, json};

fn verify(address: &str, policy: &str) -> (Option<i32>, Value) {
    let output = cocoon(&["verify", address, "--policy", policy, "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

/// Names of factors that failed.
fn failed(result: &Value) -> Vec<&str> {
    let factors = result["factors"].as_array().map(Vec::as_slice).unwrap_or_default();
    factors.iter().filter(|f| f["status"] == "fail").map(|f| f["name"].as_str().unwrap()).collect()
}

fn got<'a>(result: &'a Value, name: &str) -> &'a str {
    let factors = result["factors"].as_array().unwrap();
    factors.iter().find(|f| f["name"] == name).unwrap()["got"].as_str().unwrap()
}

/// A folder as a disk, made as the host says.
fn packed(lab: &Lab, folder: &Path) -> PathBuf {
    let archive = lab.path("embeddings.tar");
    let mut tar = Command::new("tar");
    tar.args(["--format=gnu", "--dereference", "-C"]).arg(folder).arg("-cf").arg(&archive).arg(".");
    assert!(tar.status().unwrap().success());
    archive
}

/// How many numbers a text becomes.
fn dimensions(address: &str, policy: &str) -> usize {
    let policy = Policy::from_toml(&std::fs::read_to_string(policy).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let body = json!({ "model": "embeddings", "input": "a rainbow" });
    let answered = runtime.block_on(async {
        let session = connect(address, policy).await.unwrap();
        crate::embeddings::ask(&session, "/v1/embeddings", &body).await
    });
    assert!(answered.receipt.is_some());
    answered.body["data"][0]["embedding"].as_array().unwrap().len()
}

#[test]
fn the_image_is_what_was_predicted_serves_and_ends_in_order() {
    let Some(lab) = Lab::open() else { return };
    let embeds = repository().join("tests/vectors/embedding/tiny");
    let policy = lab.policy_for(&[&model(), &embeds]);
    let policy = policy.to_str().unwrap();
    // A copy of the model, to be ruined while the enclave runs.
    let disk = lab.path("model.gguf");
    std::fs::copy(model(), &disk).unwrap();
    let mut predicted = Command::new(binary("cocoon-measure"));
    predicted.args(["predict", "host-data", "--image"]).arg(&lab.image);
    let host_data = predicted.arg("--model").arg(&disk).arg("--model").arg(&embeds).output().unwrap();
    let host_data = String::from_utf8(host_data.stdout).unwrap();
    let archive = packed(&lab, &embeds);
    let more = ["--host-data", host_data.trim(), "--model", archive.to_str().unwrap()];
    let mut vm = lab.boot_with(&lab.image, &disk, &more);
    let address = vm.ready();
    let (status, result) = verify(&address, policy);
    assert_eq!(status, Some(0), "{result:#}");
    assert_eq!(result["claims"]["host_data"], host_data.trim());
    let ask = || {
        let output = cocoon(&[
            "chat",
            &address,
            "What is a rainbow?",
            "--policy",
            policy,
            "--temperature",
            "0",
            "--max-tokens",
            "8",
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = ask();
    assert!(answer.contains("rainbow is"), "{answer}");
    assert_eq!(dimensions(&address, policy), 32);
    // The disk is not looked at again.
    let size = std::fs::metadata(&disk).unwrap().len();
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(0).unwrap();
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(size).unwrap();
    assert_eq!(ask(), answer);
    vm.0.terminate();
    assert_eq!(vm.0.wait().code(), Some(0), "{}", vm.0.output());
    assert!(vm.had("stopping") && vm.had("stopped"), "{}", vm.0.output());
}

#[test]
fn one_byte_of_the_command_line_is_refused_and_explained() {
    let Some(lab) = Lab::open() else { return };
    let policy = lab.policy();
    let other = lab.with_command_line("other", |line| line.replace("quiet", "quieT"));
    let mut vm = lab.boot(&other, &[]);
    let address = vm.ready();
    let (status, result) = verify(&address, policy.to_str().unwrap());
    assert_eq!((status, failed(&result)), (Some(1), vec!["snp.measurement"]), "{result:#}");
    let mut explain = Command::new(binary("cocoon-measure"));
    explain.args(["explain", got(&result, "snp.measurement")]).arg(&lab.image).args(SHAPE);
    let explained = String::from_utf8(explain.output().unwrap().stdout).unwrap();
    assert!(explained.starts_with("DIFFERS cmdline") && explained.contains("'T' at byte 18"), "{explained}");
}

/// Hosts that show the hashes of the good files to the processor and boot others. The control has the same QEMU between, and cheats
/// not: once it runs, the others have had as much time, and get as much again.
#[test]
fn firmware_does_not_boot_what_was_not_measured() {
    let Some(lab) = Lab::open() else { return };
    let other = lab.copy("other");
    let change = |name: &str| {
        let path = other.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    change("vmlinuz");
    change("initrd");
    let cheat = |name: &str, bash: &str| lab.cheating_qemu(name, bash).to_str().unwrap().to_owned();
    let swap = |option: &str, path: &std::path::Path| {
        format!(
            "for i in \"${{!args[@]}}\"; do [ \"${{args[i]}}\" != {option} ] || args[i+1]='{}'; done",
            path.display()
        )
    };
    let cheats = [
        cheat("kernel", &swap("-kernel", &other.join("vmlinuz"))),
        cheat("initrd", &swap("-initrd", &other.join("initrd"))),
        cheat(
            "append",
            "for i in \"${!args[@]}\"; do [ \"${args[i]}\" != -append ] || args[i+1]+=' x'; done",
        ),
    ];
    let honest = cheat("honest", "true");
    let start = std::time::Instant::now();
    let mut control = lab.boot(&lab.image, &["--qemu", &honest]);
    let cheated: Vec<Vm> = cheats.iter().map(|qemu| lab.boot(&lab.image, &["--qemu", qemu])).collect();
    control.event("booting");
    drop(control);
    std::thread::sleep(start.elapsed());
    for (vm, qemu) in cheated.iter().zip(&cheats) {
        assert!(!vm.had("booting"), "{qemu}: {}", vm.0.output());
    }
}

#[test]
fn nothing_else_is_in_the_machine() {
    let Some(lab) = Lab::open() else { return };
    let image = lab.with_command_line("inside", |line| format!("{line} cocoon.sim-look-inside"));
    let mut vm = lab.boot(&image, &[]);
    let inside = vm.event("inside");
    println!("{inside:#}");
    let list = |key: &str| -> Vec<String> {
        inside[key].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list("processes"), ["init"]);
    assert_eq!(list("setuid"), Vec::<String>::new());
    assert_eq!(list("writable"), ["/run"]);
    assert!(list("files").iter().all(|file| file == "/init" || file.starts_with("/modules/")));
    assert!(
        list("mounts").contains(&"/ rootfs ro".to_owned())
            && list("mounts").contains(&"/run tmpfs rw".to_owned())
    );
    assert_eq!(
        (&inside["can_exec"], &inside["can_load_modules"]),
        (&Value::Bool(false), &Value::Bool(false))
    );
    // Before it serves nothing listens; then one socket does, which the relay connects to: 10.0.2.15:8443, as /proc/net/tcp has it.
    assert_eq!(list("sockets"), Vec::<String>::new());
    assert_eq!(vm.event("listening")["address"], "10.0.2.15:8443");
    vm.ready();
    let text = vm.0.output();
    let last =
        text.lines().rev().find_map(|line| event(line.trim_start_matches("stderr: "), "inside")).unwrap();
    let sockets = last["sockets"].as_array().unwrap().iter().map(|socket| socket.as_str().unwrap());
    // The runtime wakes itself through a pair of sockets without a name, connected to each other.
    let (own, others): (Vec<_>, Vec<_>) = sockets.partition(|socket| socket.starts_with("unix "));
    assert!(own.iter().all(|socket| socket.contains(" 0001 03 ") && !socket.contains(['/', '@'])), "{own:?}");
    assert!(
        others.len() == 1 && others[0].starts_with("tcp 0: 0F02000A:20FB 00000000:0000 0A"),
        "{others:?}"
    );
}

/// What a host can do wrong, and the event that says so; none of them serves.
#[test]
fn machines_that_lack_something_say_so_and_end() {
    let Some(lab) = Lab::open() else { return };
    let drop_option = |option: &str, value: &str| {
        format!(
            "for i in \"${{!args[@]}}\"; do if [ \"${{args[i]}}\" = {option} ] && [[ \"${{args[i+1]}}\" == {value}* ]]; then unset 'args[i]' 'args[i+1]'; fi; done"
        )
    };
    let no_disk = lab.cheating_qemu("no-disk", &drop_option("-device", "virtio-blk-pci"));
    let no_network = lab.cheating_qemu("no-network", &drop_option("-device", "virtio-net-pci"));
    let broken = "for i in \"${!args[@]}\"; do [[ \"${args[i]}\" != if=none,id=model0,* ]] || \
        args[i]=\"if=none,id=model0,readonly=on,file.driver=blkdebug,file.image.driver=file,file.image.filename=${args[i]##*file=},\
file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,file.inject-error.0.sector=2048,driver=raw\"; done";
    let broken_disk = lab.cheating_qemu("broken-disk", broken);
    let unknown_key = lab.with_command_line("unknown-key", |line| format!("{line} cocoon.nonsense=1"));
    let image = lab.image.clone();
    let qemu = |path: &std::path::Path| vec!["--qemu".to_owned(), path.to_str().unwrap().to_owned()];
    let garbage = lab.path("garbage");
    std::fs::write(&garbage, b"no bundle").unwrap();
    let garbage = vec!["--endorsements".to_owned(), garbage.to_str().unwrap().to_owned()];
    let small = vec!["--memory".to_owned(), "256".to_owned()];
    let cases = [
        (&image, qemu(&no_disk), "boot_failed", "step", "model_disk"),
        (&image, qemu(&no_network), "boot_failed", "step", "network"),
        (&image, qemu(&broken_disk), "failed", "reason", "model"),
        (&unknown_key, Vec::new(), "boot_failed", "step", "command_line"),
        (&image, garbage, "failed", "reason", "endorsements"),
        (&image, small, "boot_failed", "step", "memory"),
    ];
    for (image, more, kind, key, want) in cases {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let mut vm = lab.boot(image, &more);
        let event = vm.event(kind);
        assert_eq!(event[key], want, "{more:?}: {event}");
        assert_eq!(vm.0.wait().code(), Some(1), "{more:?}: the host says that it ended");
        assert!(!vm.0.output().contains("\nready "), "{more:?}");
    }
}

#[test]
fn another_model_or_another_purpose_is_refused() {
    let Some(lab) = Lab::open() else { return };
    let policy = lab.policy();
    let disk = lab.path("model.gguf");
    let mut bytes = std::fs::read(model()).unwrap();
    // Somewhere in the weights: it is a model still.
    let middle = bytes.len() - 1000;
    bytes[middle] ^= 1;
    std::fs::write(&disk, bytes).unwrap();
    let mut vm = lab.boot_with(&lab.image, &disk, &[]);
    let (status, result) = verify(&vm.ready(), policy.to_str().unwrap());
    assert_eq!((status, failed(&result)), (Some(1), vec!["claims.model"]), "{result:#}");
    drop(vm);
    // The host told the processor that it starts the machine for something else.
    let mut vm = lab.boot(&lab.image, &["--host-data", &"ab".repeat(32)]);
    let (status, _) = verify(&vm.ready(), policy.to_str().unwrap());
    assert_eq!(status, Some(2), "no evidence, so nobody can tell");
    assert_eq!(vm.event("attester_failed")["reason"], "host_data");
}

/// A kernel that panics would show what was in the processor's registers: keys, or words of a prompt.
#[test]
fn a_crash_shows_the_host_nothing() {
    let Some(lab) = Lab::open() else { return };
    let image = lab.with_command_line("crash", |line| format!("{line} cocoon.sim-crash"));
    let console = lab.path("console");
    let to_file = format!(
        "for i in \"${{!args[@]}}\"; do [ \"${{args[i]}}\" != stdio ] || args[i]=file:{}; done",
        console.display()
    );
    let qemu = lab.cheating_qemu("qemu", &to_file);
    let mut vm = lab.boot(&image, &["--qemu", qemu.to_str().unwrap()]);
    assert_eq!(vm.0.wait().code(), Some(1), "{}", vm.0.output());
    let text = String::from_utf8_lossy(&std::fs::read(&console).unwrap()).into_owned();
    assert!(text.contains(r#"{"event":"booting""#), "{text}");
    let behind = text.split_once(r#"{"event":"booting""#).unwrap().1;
    for word in ["panic", "RIP", "R12", "Kernel Offset", "Call Trace", "traps:", "init["] {
        assert!(!behind.contains(word), "{word}: {behind}");
    }
    // The control: with a louder kernel, which is another image, the same crash says a lot.
    let loud = lab.with_command_line("loud", |line| {
        format!("{} cocoon.sim-crash", line.replace("quiet loglevel=0", "loglevel=7"))
    });
    let mut vm = lab.boot(&loud, &["--qemu", qemu.to_str().unwrap()]);
    assert_eq!(vm.0.wait().code(), Some(1), "{}", vm.0.output());
    let text = String::from_utf8_lossy(&std::fs::read(&console).unwrap()).into_owned();
    assert!(text.contains("Kernel panic") && text.contains("RIP"), "{text}");
}
