//! Bytes, and what bounds them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{
    Host, connect, dead_address, echo_server, echoes, listener, noise, patient, refuses, serve_echo, until,
    wait_for_end,
};

#[test]
fn the_client_may_finish_first() {
    let (listener, address) = listener();
    let mut host = Host::relay(&[address], &[]);
    let mut client = connect(host.ready());
    let mut enclave = patient(listener.accept().unwrap().0);

    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    enclave.read_to_string(&mut got).unwrap();
    assert_eq!(got, "question");

    enclave.write_all(b"answer").unwrap();
    drop(enclave);
    got.clear();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "answer");
    host.await_metric("connections_active", |n| n == 0);
    for reason in ["idle", "broken", "no_upstream", "local_shortage", "stopped"] {
        assert_eq!(host.metric(&format!("connections_failed_total{{reason=\"{reason}\"}}")), 0);
    }
}

#[test]
fn the_enclave_may_finish_first() {
    let (listener, address) = listener();
    let mut host = Host::relay(&[address], &[]);
    let mut client = connect(host.ready());
    let mut enclave = patient(listener.accept().unwrap().0);

    enclave.write_all(b"goodbye").unwrap();
    enclave.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "goodbye");

    client.write_all(b"last words").unwrap();
    drop(client);
    got.clear();
    enclave.read_to_string(&mut got).unwrap();
    assert_eq!(got, "last words");
}

#[test]
fn large_transfers_arrive_intact_both_ways_at_once() {
    const LENGTH: usize = 32 << 20;
    let (listener, address) = listener();
    let mut host = Host::relay(&[address], &[]);
    let client = connect(host.ready());
    let enclave = patient(listener.accept().unwrap().0);

    let exchange = |stream: TcpStream, seed: u64, other_seed: u64| {
        let mut writer = stream.try_clone().unwrap();
        thread::spawn(move || {
            let sender = thread::spawn(move || {
                writer.write_all(&noise(seed, LENGTH)).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            (&stream).read_to_end(&mut got).unwrap();
            assert!(got == noise(other_seed, LENGTH), "{} bytes came", got.len());
            sender.join().unwrap();
        })
    };
    let sides = [exchange(client, 1, 2), exchange(enclave, 2, 1)];
    for side in sides {
        side.join().unwrap();
    }
    for direction in ["to_enclave", "from_enclave"] {
        let bytes = host.metric(&format!("bytes_total{{direction=\"{direction}\",upstream=\"{address}\"}}"));
        assert_eq!(bytes, LENGTH as u64, "{direction}");
    }
}

#[test]
fn a_slow_enclave_blocks_its_client_and_not_the_host() {
    const MUCH: usize = 1 << 30;
    let (listener, address) = listener();
    let mut host = Host::relay(&[address], &[]);
    let mut client = connect(host.ready());
    let mut enclave = patient(listener.accept().unwrap().0);

    // Nothing is read, so at some point nothing can be written. A pause that is not yet that point makes the test weaker, not wrong.
    client.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let chunk = vec![5; 1 << 20];
    let mut sent = 0;
    let blocked = loop {
        match client.write(&chunk) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
        assert!(sent < MUCH, "the relay swallows everything");
    };
    assert!(matches!(blocked.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{blocked}");
    assert!(resident_kib(&host) < 64 << 10, "{} KiB resident", resident_kib(&host));

    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    enclave.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), sent, "all that was sent arrives, however late");
}

fn resident_kib(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn many_connections_at_once_do_not_mix() {
    const CONNECTIONS: u64 = 300;
    let mut host = Host::relay(&[echo_server(), echo_server()], &[]);
    let address = host.ready();
    let mut clients: Vec<_> = (1..=CONNECTIONS).map(|n| (n, connect(address))).collect();
    for (n, client) in &mut clients {
        client.write_all(&noise(*n, 4000)).unwrap();
    }
    for (n, client) in clients.iter_mut().rev() {
        let mut got = vec![0; 4000];
        client.read_exact(&mut got).unwrap();
        assert!(got == noise(*n, 4000), "connection {n}");
    }
    assert_eq!(host.metric("connections_accepted_total"), CONNECTIONS);
    assert_eq!(host.metric("connections_active"), CONNECTIONS);
    drop(clients);
    host.await_metric("connections_active", |n| n == 0);
}

#[test]
fn one_connection_too_many_is_closed_at_once() {
    let mut host = Host::relay(&[echo_server()], &["--max-connections", "2"]);
    let address = host.ready();
    let mut first = connect(address);
    let mut second = connect(address);
    assert!(echoes(&mut first) && echoes(&mut second));

    wait_for_end(&mut connect(address));
    assert_eq!(host.metric("connections_refused_total"), 1);
    assert!(echoes(&mut first) && echoes(&mut second), "the others do not notice");

    drop(second);
    until("a free slot", || echoes(&mut connect(address)).then_some(()));
    assert!(echoes(&mut first));
}

#[test]
fn an_idle_connection_is_closed_on_both_sides() {
    let (listener, address) = listener();
    let mut host = Host::relay(&[address], &["--idle-timeout", "1"]);
    let mut client = connect(host.ready());
    let mut enclave = patient(listener.accept().unwrap().0);
    wait_for_end(&mut client);
    wait_for_end(&mut enclave);
    host.await_metric("connections_failed_total{reason=\"idle\"}", |n| n == 1);
}

#[test]
fn a_dead_upstream_costs_nobody_a_connection() {
    const CONNECTIONS: u64 = 50;
    let (dead, live) = (dead_address(), echo_server());
    let mut host = Host::relay(&[dead, live], &[]);
    let address = host.ready();
    for _ in 0..CONNECTIONS {
        assert!(echoes(&mut connect(address)));
    }
    let of_dead = |metric: &str| format!("{metric}{{upstream=\"{dead}\"}}");
    assert_eq!(host.metric(&of_dead("upstream_healthy")), 0);
    assert_eq!(host.metric(&format!("upstream_healthy{{upstream=\"{live}\"}}")), 1);
    let failures = host.metric(&of_dead("upstream_connect_failures_total"));
    assert!((1..CONNECTIONS / 2).contains(&failures), "it rests between attempts: {failures}");

    serve_echo(TcpListener::bind(dead).expect("the port is still free"));
    until("the upstream to be used again", || {
        assert!(echoes(&mut connect(address)));
        (host.metric(&of_dead("upstream_healthy")) == 1).then_some(())
    });
}

#[test]
fn without_any_upstream_connections_end() {
    let mut host = Host::relay(&[dead_address(), dead_address()], &[]);
    let address = host.ready();
    for n in 1..=3 {
        wait_for_end(&mut connect(address));
        host.await_metric("connections_failed_total{reason=\"no_upstream\"}", |failed| failed == n);
    }
}

#[test]
fn connections_spread_evenly() {
    let upstreams = [echo_server(), echo_server(), echo_server()];
    let mut host = Host::relay(&upstreams, &[]);
    let address = host.ready();
    let mut clients: Vec<_> = (0..12).map(|_| connect(address)).collect();
    assert!(clients.iter_mut().all(echoes));
    for upstream in upstreams {
        assert_eq!(host.metric(&format!("upstream_connections_active{{upstream=\"{upstream}\"}}")), 4);
    }
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_needed() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -S -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_cocoon-host")]);
    command.args(["relay", "--listen", "127.0.0.1:0", "--max-connections", "100"]);
    command.args(["--upstream", &echo_server().to_string()]);
    let mut host = Host::spawn(command);
    let address = host.ready();
    let mut clients: Vec<_> = (0..100).map(|_| connect(address)).collect();
    assert!(clients.iter_mut().all(echoes));
    assert_eq!(host.stderr(), "");
}

#[test]
fn running_out_of_descriptors_passes() {
    let upstream = echo_server();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_cocoon-host")]);
    command.args(["relay", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    command.args(["--upstream", &upstream.to_string()]);
    let mut host = Host::spawn(command);
    let address = host.ready();

    assert!(host.stderr().contains("allows 32 open files"), "{}", host.stderr());
    let mut early = connect(address);
    assert!(echoes(&mut early));

    // More than it has descriptors for. Some wait in the queue of the listener, some fail.
    let clients: Vec<_> = (0..40).map(|_| connect(address)).collect();
    // Its last descriptor goes to a client whose upstream connection then fails, or to nobody.
    until("a connection that fails", || {
        let mut late = connect(address);
        late.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        (!echoes(&mut late)).then_some(())
    });
    assert!(echoes(&mut early), "what is open goes on");
    drop(clients);

    until("a connection that works", || echoes(&mut connect(address)).then_some(()));
    let shortage = host.metric("connections_failed_total{reason=\"local_shortage\"}");
    assert!(host.metric("accept_errors_total") + shortage > 0);
    let failures = host.metric(&format!("upstream_connect_failures_total{{upstream=\"{upstream}\"}}"));
    assert_eq!(failures, 0, "the upstream is not to blame");
}

#[test]
fn stopping_lets_connections_finish() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut host = Host::relay(&[echo_server()], &["--drain-timeout", "600"]);
        let address = host.ready();
        let mut client = connect(address);
        assert!(echoes(&mut client));

        host.signal(signal);
        until("the listener to close", || refuses(address).then_some(()));
        assert!(echoes(&mut client), "an open connection goes on");
        drop(client);
        assert_eq!(host.ended().code(), Some(0));
    }
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let mut host = Host::relay(&[echo_server()], &["--drain-timeout", "1"]);
    let mut client = connect(host.ready());
    assert!(echoes(&mut client));
    host.signal(Signal::SIGTERM);
    wait_for_end(&mut client);
    assert_eq!(host.ended().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut host = Host::relay(&[echo_server()], &["--drain-timeout", "600"]);
    let address = host.ready();
    let mut client = connect(address);
    assert!(echoes(&mut client));
    host.signal(Signal::SIGTERM);
    until("the listener to close", || refuses(address).then_some(()));
    host.signal(Signal::SIGTERM);
    wait_for_end(&mut client);
    assert_eq!(host.ended().code(), Some(0));
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let taken = echo_server().to_string();
    let program = env!("CARGO_BIN_EXE_cocoon-host");
    for (arguments, says) in [
        (vec!["relay", "--upstream", "127.0.0.1:1", "--listen", &taken], "cannot listen on"),
        (vec!["relay", "--upstream", "127.0.0.1:1", "127.0.0.1:1", "--listen", "127.0.0.1:0"], "given twice"),
    ] {
        let mut host = Host::start(program.as_ref(), arguments);
        assert_eq!(host.ended_saying(says), 2);
        assert_eq!(host.stderr().lines().count(), 1, "{}", host.stderr());
        assert_eq!(host.stdout(), "");
    }
}
