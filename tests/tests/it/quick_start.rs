//! The README's way from a clone to a first answer in a script that uses OpenAI's library: its commands, as they stand there.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use cocoon_tests::programs::{binary, target_dir};
use cocoon_tests::{model, repository, state_home};

/// The fenced block with the script in it.
fn commands() -> String {
    let text = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let blocks = text.split("```\n").skip(1).step_by(2);
    let mut with_script = blocks.filter(|block| block.contains("tests/openai/ask.py"));
    let block = with_script.next().expect("the README shows how to run a script");
    assert!(with_script.next().is_none());
    block.to_owned()
}

/// What stands for a clone: the scripts that the commands run, and what earlier steps of `scripts/test` built, fetched and installed, so
/// that it is not done again. A `cargo` that takes the README's arguments only if they name packages and features that there are, and
/// builds nothing.
fn clone(dir: &Path) {
    for folder in ["scripts", "tests/openai", "target", "bin"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    for file in ["scripts/model", "scripts/openai", "tests/openai/ask.py"] {
        std::fs::copy(repository().join(file), dir.join(file)).unwrap();
    }
    symlink(model().parent().unwrap(), dir.join("models")).unwrap();
    symlink(target_dir(), dir.join("target/debug")).unwrap();
    symlink(target_dir().join("../openai"), dir.join("target/openai")).unwrap();
    let root = repository().display();
    let cargo = format!(
        "#!/bin/sh\n[ \"$1\" = build ] && shift && exec '{}' tree --offline --quiet --depth 0 --manifest-path '{root}/Cargo.toml' \"$@\"\n",
        env!("CARGO")
    );
    std::fs::write(dir.join("bin/cargo"), cargo).unwrap();
    let status = Command::new("chmod").arg("+x").arg(dir.join("bin/cargo")).status().unwrap();
    assert!(status.success());
}

/// Whether programs can have a network of their own here, where the README's ports are free.
fn has_namespaces() -> bool {
    let probe =
        Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}

#[test]
fn a_script_gets_its_first_answer_by_the_commands_of_the_readme() {
    let python = target_dir().join("../openai/python/bin/python");
    if !python.exists() || !has_namespaces() {
        println!("skipped: no OpenAI library for Python (see scripts/openai), or no network namespaces");
        return;
    }
    for name in ["cocoon", "cocoon-host", "cocoon-enclave"] {
        assert!(binary(name).is_file());
    }
    let dir = tempfile::tempdir().unwrap();
    clone(dir.path());
    let commands = commands();
    assert!(commands.starts_with("cargo build --locked "), "{commands}");
    let script = format!(
        "set -e\nPATH=$PWD/bin:$PATH\nip link set lo up\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{commands}"
    );
    // The first process of the namespace takes all others with it, should a command fail. Only the loopback is there.
    let output = Command::new("timeout")
        .args(["300", "unshare", "-rn", "--pid", "--fork", "--kill-child", "bash", "-c", &script])
        .current_dir(dir.path())
        .env("XDG_STATE_HOME", state_home())
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("OPENAI_BASE_URL")
        .env_remove("OPENAI_API_KEY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let [printed, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{printed}\n{errors}");
    for step in ["cocoon-host v", "ready 127.0.0.1:8443", "ready http://127.0.0.1:8787/v1", "\"gpt-4o-mini\""]
    {
        assert!(printed.contains(step), "{step}: {printed}\n{errors}");
    }
    let answer = printed.rsplit_once('}').unwrap().1; // behind what curl printed
    assert!(answer.to_lowercase().contains("rainbow is"), "{printed}\n{errors}");
}
