//! Counts as Prometheus text, version 0.0.4.

use std::{
    fmt::{Display, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{EnclaveMetrics, Failure, Metrics};
use crate::relay::UpstreamStatus;

/// The media type of [`Metrics::text`].
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Metrics {
    /// All counts, as a scraper reads them.
    pub(super) fn text(&self) -> String {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut page = Page::default();
        page.counter("connections_accepted", "Client connections accepted.");
        page.sample("", load(&self.accepted));
        page.gauge("connections_active", "Client connections open now.");
        page.sample("", load(&self.active));
        page.counter(
            "connections_refused",
            "Client connections closed at once because the limit was reached.",
        );
        page.sample("", load(&self.refused));
        page.counter(
            "connections_failed",
            "Accepted connections that did not end by both sides closing them.",
        );
        for (reason, count) in Failure::ALL.iter().zip(&self.failed) {
            page.sample(&format!("reason=\"{}\"", reason.label()), load(count));
        }
        page.counter("accept_errors", "Errors while accepting connections.");
        page.sample("", load(&self.accept_errors));
        if let Some(upstreams) = self.upstreams.get() {
            page.upstreams(&upstreams.status());
        }
        if let Some(enclave) = &self.enclave {
            page.enclave(enclave);
        }
        page.text
    }
}

/// A page under construction; samples belong to the metric named last.
#[derive(Default)]
struct Page {
    text: String,
    metric: String,
}

impl Page {
    fn counter(&mut self, name: &str, help: &str) {
        self.metric(&format!("{name}_total"), "counter", help);
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.metric(name, "gauge", help);
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.metric = format!("cocoon_host_{name}");
        let name = &self.metric;
        line(&mut self.text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// `labels` is what stands between the braces. Its values are our own words and addresses, whose alphabet needs no escapes.
    fn sample(&mut self, labels: &str, value: impl Display) {
        let name = &self.metric;
        if labels.is_empty() {
            line(&mut self.text, format_args!("{name} {value}"));
        } else {
            line(&mut self.text, format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn upstreams(&mut self, all: &[UpstreamStatus]) {
        let label = |u: &UpstreamStatus| format!("upstream=\"{}\"", u.address);
        self.counter("bytes", "Bytes delivered.");
        for u in all {
            self.sample(&format!("direction=\"to_enclave\",{}", label(u)), u.to_enclave);
            self.sample(&format!("direction=\"from_enclave\",{}", label(u)), u.from_enclave);
        }
        self.gauge("upstream_healthy", "1 unless the last attempt to connect failed.");
        all.iter().for_each(|u| self.sample(&label(u), u8::from(u.healthy)));
        self.gauge("upstream_connections_active", "Connections to the upstream, open or being made.");
        all.iter().for_each(|u| self.sample(&label(u), u.active));
        self.counter("upstream_connect_failures", "Failed attempts to connect to the upstream.");
        all.iter().for_each(|u| self.sample(&label(u), u.connect_failures));
    }

    fn enclave(&mut self, enclave: &EnclaveMetrics) {
        self.gauge("enclave_ready", "1 while the enclave that this host started serves.");
        self.sample("", u8::from(enclave.ready.load(Ordering::Relaxed)));
        self.counter("enclave_events_dropped", "Lines of the enclave's event log that were no events.");
        self.sample("reason=\"too_long\"", enclave.too_long.load(Ordering::Relaxed));
        self.sample("reason=\"not_an_event\"", enclave.not_an_event.load(Ordering::Relaxed));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _infallible = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::Dropped,
        relay::{Limits, Relay},
    };

    #[test]
    fn every_sample_follows_its_help_and_type() {
        let metrics = Metrics::with_enclave();
        let upstreams = vec!["vsock:3:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        Relay::new(upstreams, Limits::default(), metrics.clone()).unwrap();
        let text = metrics.text();
        assert!(text.ends_with('\n'));
        let mut metric = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                metric = help.split(' ').next().unwrap();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, metric);
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next().unwrap(), metric, "{line}");
                value.parse::<u64>().unwrap();
            }
        }
        assert!(text.contains("cocoon_host_bytes_total{direction=\"to_enclave\",upstream=\"[::1]:2\"} 0\n"));
        assert!(text.contains("cocoon_host_upstream_healthy{upstream=\"vsock:3:1\"} 1\n"));
    }

    #[test]
    fn what_is_counted_shows() {
        let metrics = Metrics::with_enclave();
        let active = metrics.accepted();
        metrics.refused();
        metrics.failed(Failure::Idle);
        metrics.event_dropped(Dropped::TooLong);
        metrics.enclave_ready(true);
        let text = metrics.text();
        for line in [
            "cocoon_host_connections_accepted_total 1",
            "cocoon_host_connections_active 1",
            "cocoon_host_connections_refused_total 1",
            "cocoon_host_connections_failed_total{reason=\"idle\"} 1",
            "cocoon_host_connections_failed_total{reason=\"broken\"} 0",
            "cocoon_host_enclave_events_dropped_total{reason=\"too_long\"} 1",
            "cocoon_host_enclave_ready 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        drop(active);
        assert!(metrics.text().contains("cocoon_host_connections_active 0\n"));
        assert!(!Metrics::of_relay().text().contains("enclave_ready"), "a relay has no enclave of its own");
    }
}
