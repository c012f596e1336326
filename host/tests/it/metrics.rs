//! Metrics over HTTP.

use std::io::Write;

use crate::support::{Host, connect, echo_server, echoes, http, wait_for_end};

#[test]
fn the_page_says_what_happened_and_not_to_whom() {
    let upstream = echo_server();
    let mut host = Host::relay(&[upstream], &[]);
    let mut client = connect(host.ready());
    assert!(echoes(&mut client));
    let page = host.metrics();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    for line in [
        "cocoon_host_connections_accepted_total 1",
        "cocoon_host_connections_active 1",
        "cocoon_host_connections_refused_total 0",
        &format!("cocoon_host_bytes_total{{direction=\"to_enclave\",upstream=\"{upstream}\"}} 14"),
        &format!("cocoon_host_bytes_total{{direction=\"from_enclave\",upstream=\"{upstream}\"}} 14"),
        &format!("cocoon_host_upstream_healthy{{upstream=\"{upstream}\"}} 1"),
    ] {
        assert!(page.lines().any(|l| l == line), "{line} in {page}");
    }
    let client = client.local_addr().unwrap();
    assert!(!page.contains(&client.to_string()), "{page}");
    assert!(!page.contains("are you there"), "{page}");
}

#[test]
fn there_is_nothing_else_to_ask() {
    let mut host = Host::relay(&[echo_server()], &[]);
    host.ready();
    let status = |method: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        http(host.metrics_address(), &request).split(' ').nth(1).map(str::to_owned).unwrap()
    };
    assert_eq!(status("GET", "/metrics"), "200");
    assert_eq!(status("GET", "/metrics?x=1"), "200");
    assert_eq!(status("GET", "/"), "404");
    assert_eq!(status("GET", "/metrics/"), "404");
    assert_eq!(status("POST", "/x"), "404");
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        assert_eq!(status(method, "/metrics"), "405", "{method}");
    }
}

#[test]
fn a_request_that_does_not_come_is_not_waited_for() {
    let mut host = Host::relay(&[echo_server()], &[]);
    host.ready();
    let address = host.metrics_address();
    // More than are served at once: the next scraper has its turn when they are gone.
    let mut stuck: Vec<_> = (0..20).map(|_| connect(address)).collect();
    for scraper in &mut stuck {
        scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
    }
    assert_eq!(host.metric("connections_active"), 0);
    wait_for_end(&mut stuck[0]);
}

#[test]
fn only_this_machine_may_ask() {
    let program = env!("CARGO_BIN_EXE_cocoon-host");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9464", "example.org:9464"] {
        let mut host =
            Host::start(program.as_ref(), ["relay", "--upstream", "127.0.0.1:1", "--metrics", address]);
        assert_eq!(host.ended_saying("loopback address"), 2, "{address}");
        assert_eq!(host.stdout(), "");
    }
}

#[test]
fn metrics_are_off_unless_asked_for() {
    let mut host = Host::start(
        env!("CARGO_BIN_EXE_cocoon-host").as_ref(),
        ["relay", "--upstream", "127.0.0.1:1", "--listen", "127.0.0.1:0"],
    );
    host.ready();
    assert_eq!(host.stderr(), "");
}
