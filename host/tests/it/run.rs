//! `run --process` against a shell script in the place of the enclave.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Host, connect, dead_address, echo_server, echoes, own_loopback, refuses, until, wait_for_end,
};

/// Waits until stdin closes, as a trap can interrupt `wait` but no foreground command.
const SERVE: &str = "exec 3<&0; cat <&3 >/dev/null & wait $!";
const READY: &str = r#"echo '{"event":"ready"}'"#;

/// A folder with a copy of the host, a model, and a script named `cocoon-enclave`.
struct Place(TempDir);

impl Place {
    fn empty() -> Self {
        let place = Self(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        // By another program, because a file that this one has open for writing while another thread forks cannot be executed.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_cocoon-host")).arg(place.file("")).status();
        assert!(copied.unwrap().success());
        std::fs::write(place.file("model.gguf"), "weights").unwrap();
        place
    }

    /// `$me` is the path of the script: a prefix for the files that it leaves.
    fn with_enclave(script: &str) -> Self {
        let place = Self::empty();
        crate::support::script(&place.file("cocoon-enclave"), script);
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts the host with the least arguments and `more`.
    fn run(&self, more: &[&str]) -> Host {
        let model = self.file("model.gguf");
        let mut arguments = vec!["run", "--process", "--model", model.to_str().unwrap()];
        let listen = format!("{}:0", own_loopback());
        if !more.contains(&"--listen") {
            arguments.extend(["--listen", &listen]);
        }
        Host::start(&self.file("cocoon-host"), arguments.iter().chain(more))
    }

    /// What the script left in a file beside it, once it did.
    fn left(&self, suffix: &str) -> String {
        let file = self.file(&format!("cocoon-enclave.{suffix}"));
        until(suffix, || std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')))
    }
}

fn listening(address: SocketAddr) -> String {
    format!(r#"echo '{{"event":"listening","address":"{address}","tee":"sim"}}'"#)
}

#[test]
fn an_enclave_is_started_and_served() {
    let script = format!(
        "printf '%s\\n' \"$@\" >\"$me.args\"\n\
         echo \"$$ $(cut -d ' ' -f 5 /proc/$$/stat)\" >\"$me.group\"\n\
         echo '{{\"event\":\"model_loading\",\"read\":1,\"total\":2}}'\n\
         {}\n{READY}\n{READY}\n{}\n\
         trap 'echo asked >\"$me.term\"; exit 0' TERM\n{SERVE}",
        listening(echo_server()),
        // Neither a second address nor a second `ready` does anything.
        listening("127.0.0.1:1".parse().unwrap()),
    );
    let place = Place::with_enclave(&script);
    let mut host = place.run(&[
        "--tee",
        "sim",
        "--policy-out",
        "policy.toml",
        "--model-digest",
        "00ff",
        "--model-name",
        "smol",
        "--threads",
        "2",
        "--metrics",
        "127.0.0.1:0",
    ]);
    let address = host.ready();
    assert!(echoes(&mut connect(address)));
    assert_eq!(host.metric("enclave_ready"), 1);

    let model = place.file("model.gguf");
    let arguments = format!(
        "--listen 127.0.0.1:0 --model {} --tee sim --model-digest 00ff --model-name smol --threads 2 \
         --sim-policy-out policy.toml --max-connections 1024 --drain-timeout 10 --until-stdin-closes ",
        model.display()
    );
    assert_eq!(place.left("args").replace('\n', " "), arguments);

    let group = place.left("group");
    let (process, group) = group.trim().split_once(' ').unwrap();
    assert_eq!(process, group, "a signal to the host's process group does not reach the enclave");

    host.signal(Signal::SIGTERM);
    assert_eq!(host.ended().code(), Some(0));
    assert_eq!(place.left("term"), "asked\n");
    assert_eq!(host.stdout(), format!("ready {address}\n"), "exactly once");
    assert_eq!(host.stderr().lines().count(), 1, "no events without --log-events: {}", host.stderr());
}

#[test]
fn clients_are_refused_until_there_is_an_address_to_relay_to() {
    let script = format!(
        "{READY}\nuntil [ -e \"$me.go\" ]; do sleep 0.02; done\n{}\n{SERVE}",
        listening(echo_server())
    );
    let place = Place::with_enclave(&script);
    let address = dead_address();
    let mut host = place.run(&["--log-events", "--listen", &address.to_string()]);
    until("the first event", || host.stderr().contains("ready").then_some(()));
    assert!(refuses(address));
    assert_eq!(host.stdout(), "");
    std::fs::write(place.file("cocoon-enclave.go"), "").unwrap();
    assert_eq!(host.ready(), address);
    assert!(echoes(&mut connect(address)));
}

#[test]
fn the_event_log_is_shown_when_asked_for_and_garbage_never() {
    let script = format!(
        "echo 'PROMPT that got here by mistake'\n\
         echo '{{\"event\":\"ready\",\"text\":\"PROMPT'\n\
         head -c 40000 /dev/zero | tr '\\0' P; echo 'PROMPT'\n\
         echo '{{\"event\":\"something_new\",\"n\":1}}'\n\
         {}\n{READY}\n{SERVE}",
        listening(echo_server())
    );
    let place = Place::with_enclave(&script);
    for (log, more) in [(true, vec!["--log-events"]), (false, vec![])] {
        let mut host = place.run(&[more, vec!["--metrics", "127.0.0.1:0"]].concat());
        assert!(echoes(&mut connect(host.ready())));
        assert_eq!(host.metric("enclave_events_dropped_total{reason=\"too_long\"}"), 1);
        assert_eq!(host.metric("enclave_events_dropped_total{reason=\"not_an_event\"}"), 2);
        host.signal(Signal::SIGTERM);
        assert_eq!(host.ended().code(), Some(0));
        let stderr = host.stderr();
        assert_eq!(stderr.contains("{\"event\":\"something_new\",\"n\":1}\n"), log, "{stderr}");
        assert_eq!(stderr.contains("{\"event\":\"ready\"}\n"), log, "{stderr}");
        assert!(!stderr.contains("PROMPT") && !stderr.contains("PPP"), "{stderr}");
    }
}

#[test]
fn an_enclave_that_ends_early_is_reported_with_its_status() {
    for (script, code, status) in [
        ("exit 1", 1, "exit status: 1"),
        ("exit 2", 2, "exit status: 2"),
        ("exit 9", 1, "exit status: 9"),
        ("exit 0", 1, "exit status: 0"),
        ("kill -KILL $$", 1, "signal: 9"),
        (r#"echo '{"event":"model_loading","read":1,"total":2}'; exit 2"#, 2, "exit status: 2"),
    ] {
        let place = Place::with_enclave(script);
        let mut host = place.run(&[]);
        assert_eq!(host.ended_saying("before it was ready"), code, "{script}");
        assert!(host.stderr().contains(status), "{script}: {}", host.stderr());
        assert_eq!(host.stderr().lines().count(), 1, "{script}: {}", host.stderr());
        assert_eq!(host.stdout(), "");
    }
}

#[test]
fn an_enclave_that_ends_later_ends_the_host() {
    let script = format!(
        "{}\n{READY}\nuntil [ -e \"$me.end\" ]; do sleep 0.02; done; exit 2",
        listening(echo_server())
    );
    let place = Place::with_enclave(&script);
    let mut host = place.run(&[]);
    let address = host.ready();
    let mut client = connect(address);
    assert!(echoes(&mut client));
    std::fs::write(place.file("cocoon-enclave.end"), "").unwrap();
    wait_for_end(&mut client);
    assert_eq!(host.ended_saying("while it was serving (exit status: 2)"), 1);
    assert!(refuses(address));
}

#[test]
fn an_enclave_that_falls_silent_is_not_waited_for() {
    let place = Place::with_enclave(&format!("exec >&-\n{SERVE}"));
    let mut host = place.run(&[]);
    assert_eq!(host.ended_saying("closed its event log before it was ready"), 1);
}

#[test]
fn the_enclave_ends_when_the_host_is_killed() {
    let script = format!("{}\n{READY}\n{SERVE}\necho done >\"$me.ended\"", listening(echo_server()));
    let place = Place::with_enclave(&script);
    let mut host = place.run(&[]);
    host.ready();
    host.signal(Signal::SIGKILL);
    assert_eq!(host.ended().code(), None);
    assert_eq!(place.left("ended"), "done\n");
}

#[test]
fn stopping_works_before_the_enclave_is_ready() {
    let place = Place::with_enclave(&format!("echo started >\"$me.started\"\n{SERVE}"));
    let mut host = place.run(&[]);
    place.left("started");
    host.signal(Signal::SIGINT);
    assert_eq!(host.ended().code(), Some(0));
    assert_eq!(host.stdout(), "");
}

#[test]
fn an_enclave_that_ignores_the_request_to_end_is_killed() {
    let script = format!("trap '' TERM\n{}\n{READY}\n{SERVE}", listening(echo_server()));
    let place = Place::with_enclave(&script);
    let mut host = place.run(&["--drain-timeout", "1"]);
    let mut client = connect(host.ready());
    assert!(echoes(&mut client));
    host.signal(Signal::SIGTERM);
    wait_for_end(&mut client);
    assert_eq!(host.ended().code(), Some(0));
}

#[test]
fn a_talkative_enclave_can_finish_while_the_host_stops() {
    // Far more than a pipe holds: it ends only if somebody reads on.
    let script = format!(
        "trap 'i=0; while [ $i -lt 5000 ]; do echo \"{{\\\"event\\\":\\\"draining\\\",\\\"n\\\":$i}}\"; i=$((i+1)); done; \
         echo done >\"$me.drained\"; exit 0' TERM\n{}\n{READY}\n{SERVE}",
        listening(echo_server())
    );
    let place = Place::with_enclave(&script);
    let mut host = place.run(&["--drain-timeout", "600"]);
    host.ready();
    host.signal(Signal::SIGTERM);
    assert_eq!(host.ended().code(), Some(0));
    assert_eq!(place.left("drained"), "done\n");
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::empty();
    let mut host = place.run(&[]);
    let program = place.file("cocoon-enclave");
    assert_eq!(host.ended_saying(&format!("no enclave program at {}", program.display())), 2);

    let place = Place::with_enclave("echo started >\"$me.started\"");
    std::fs::remove_file(place.file("model.gguf")).unwrap();
    let mut host = place.run(&[]);
    let model = place.file("model.gguf");
    assert_eq!(host.ended_saying(&format!("cannot read the model {}", model.display())), 2);
    assert_eq!(host.stderr().lines().count(), 1);
    assert!(!place.file("cocoon-enclave.started").exists());
}

#[test]
fn usage_errors_start_nothing() {
    let place = Place::with_enclave("echo started >\"$me.started\"");
    for (more, says) in [
        (vec!["--policy-out", "p.toml"], "--tee sim"),
        (vec!["--tee", "snp", "--policy-out", "p.toml"], "--tee sim"),
        (vec!["--metrics", "0.0.0.0:1"], "loopback"),
        (vec!["--vm", "image"], "--vm"),
        (vec!["--threads", "0"], "--threads"),
    ] {
        let mut host = place.run(&more);
        assert_eq!(host.ended_saying(says), 2, "{more:?}");
        assert_eq!(host.stdout(), "");
    }
    assert!(!place.file("cocoon-enclave.started").exists());
}
