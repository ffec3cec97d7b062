//! What the registry counts, in the text format that Prometheus reads (exposition format 0.0.4).
//!
//! No series has a repository, an address or a user in it: their number is bounded, and who may read them learns no names.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use http::{Method, StatusCode};
use jiff::Timestamp;

use super::collect::Collected;
use super::route::Route;

/// What its answer has as `Content-Type`.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];
const KINDS: [&str; 9] = ["base", "probe", "token", "admin", "list", "manifest", "blob", "upload", "invalid"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug)]
pub(super) struct Metrics {
    started: Timestamp,
    requests: [[[AtomicU64; CLASSES.len()]; KINDS.len()]; METHODS.len()],
    received: AtomicU64,
    sent: AtomicU64,
    connections: AtomicI64,
    refused_connections: AtomicU64,
    collections: AtomicU64,
    failed_collections: AtomicU64,
    collected: [AtomicU64; 4],
    last_collection: AtomicI64,
    /// Seconds since 1970; 0 without TLS.
    certificate_end: AtomicI64,
    certificate_reloads: AtomicU64,
    failed_certificate_reloads: AtomicU64,
}

/// What is asked for at the moment that metrics are read.
pub(super) struct Now {
    pub(super) uploads: usize,
    pub(super) available_bytes: Option<u64>,
    pub(super) ready: bool,
}

impl Metrics {
    pub(super) fn new(started: Timestamp) -> Self {
        Self {
            started,
            requests: Default::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            connections: AtomicI64::default(),
            refused_connections: AtomicU64::default(),
            collections: AtomicU64::default(),
            failed_collections: AtomicU64::default(),
            collected: Default::default(),
            last_collection: AtomicI64::default(),
            certificate_end: AtomicI64::default(),
            certificate_reloads: AtomicU64::default(),
            failed_certificate_reloads: AtomicU64::default(),
        }
    }

    pub(super) fn answered(&self, method: &Method, kind: usize, status: StatusCode) {
        let method = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[method][kind][class].fetch_add(1, Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    pub(super) fn connected(&self, by: i64) {
        self.connections.fetch_add(by, Relaxed);
    }

    pub(super) fn refused_connection(&self) {
        self.refused_connections.fetch_add(1, Relaxed);
    }

    pub(super) fn collected(&self, what: Option<&Collected>, now: Timestamp) {
        let Some(Collected { manifests, blobs, contents, bytes, .. }) = what else {
            self.failed_collections.fetch_add(1, Relaxed);
            return;
        };
        self.collections.fetch_add(1, Relaxed);
        self.last_collection.store(now.as_second(), Relaxed);
        for (counter, count) in self.collected.iter().zip([manifests, blobs, contents, bytes]) {
            counter.fetch_add(*count, Relaxed);
        }
    }

    pub(super) fn certificate(&self, end: Timestamp) {
        self.certificate_end.store(end.as_second(), Relaxed);
    }

    pub(super) fn reloaded(&self, worked: bool) {
        let counter = if worked { &self.certificate_reloads } else { &self.failed_certificate_reloads };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn text(&self, now: &Now) -> String {
        let mut text = String::with_capacity(4096);
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, i128)]| {
            let _ = writeln!(text, "# HELP gapscan_registry_{name} {help}\n# TYPE gapscan_registry_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "gapscan_registry_{name}{labels} {value}");
            }
        };
        let one = |value: i128| vec![(String::new(), value)];
        let count = |counter: &AtomicU64| one(i128::from(counter.load(Relaxed)));
        let outcome = |good: &AtomicU64, bad: &AtomicU64| {
            let sample = |name: &str, counter: &AtomicU64| {
                (format!("{{outcome=\"{name}\"}}"), i128::from(counter.load(Relaxed)))
            };
            vec![sample("done", good), sample("failed", bad)]
        };
        family(
            "build_info",
            "gauge",
            "The version that runs.",
            &[(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1)],
        );
        family(
            "start_time_seconds",
            "gauge",
            "When the registry was started, in seconds since 1970.",
            &one(i128::from(self.started.as_second())),
        );
        let mut requests = Vec::new();
        for (method, kinds) in METHODS.iter().zip(&self.requests) {
            for (kind, classes) in KINDS.iter().zip(kinds) {
                for (class, counter) in CLASSES.iter().zip(classes) {
                    let value = counter.load(Relaxed);
                    if value > 0 {
                        let labels = format!("{{method=\"{method}\",kind=\"{kind}\",status=\"{class}\"}}");
                        requests.push((labels, i128::from(value)));
                    }
                }
            }
        }
        family("requests_total", "counter", "Requests that were answered.", &requests);
        family("received_bytes_total", "counter", "Bytes of blobs and manifests received.", &count(&self.received));
        family("sent_bytes_total", "counter", "Bytes of blobs and manifests sent.", &count(&self.sent));
        family("connections", "gauge", "Connections that are open.", &one(self.connections.load(Relaxed).into()));
        family(
            "refused_connections_total",
            "counter",
            "Connections closed because their address had too many.",
            &count(&self.refused_connections),
        );
        family("uploads", "gauge", "Uploads that were begun and are not complete.", &one(now.uploads as i128));
        if let Some(bytes) = now.available_bytes {
            family("available_bytes", "gauge", "Bytes that can still be stored.", &one(bytes.into()));
        }
        family("ready", "gauge", "Whether the registry can take content.", &one(now.ready.into()));
        family(
            "collections_total",
            "counter",
            "Searches for content that nobody needs.",
            &outcome(&self.collections, &self.failed_collections),
        );
        let last = self.last_collection.load(Relaxed);
        if last > 0 {
            family(
                "last_collection_time_seconds",
                "gauge",
                "When the last one ended, in seconds since 1970.",
                &one(last.into()),
            );
        }
        let collected: Vec<_> = ["manifest", "blob", "content"]
            .iter()
            .zip(&self.collected)
            .map(|(kind, counter)| (format!("{{kind=\"{kind}\"}}"), i128::from(counter.load(Relaxed))))
            .collect();
        family("collected_total", "counter", "What was removed because nobody needs it.", &collected);
        family("collected_bytes_total", "counter", "Bytes of removed content.", &count(&self.collected[3]));
        let end = self.certificate_end.load(Relaxed);
        if end != 0 {
            family(
                "certificate_expiry_time_seconds",
                "gauge",
                "When the server's certificate ends, in seconds since 1970.",
                &one(end.into()),
            );
            family(
                "certificate_reloads_total",
                "counter",
                "Certificates that were taken into use, or could not be.",
                &outcome(&self.certificate_reloads, &self.failed_certificate_reloads),
            );
        }
        text
    }
}

/// The kind of what a request asked for, as metrics know it.
pub(super) fn kind(route: Option<&Route>) -> usize {
    match route {
        Some(Route::Base) => 0,
        Some(Route::Live | Route::Ready | Route::Metrics) => 1,
        Some(Route::Token) => 2,
        Some(Route::Space | Route::Collect) => 3,
        Some(Route::Catalog | Route::Tags(_) | Route::Referrers(..)) => 4,
        Some(Route::Manifest(..)) => 5,
        Some(Route::Blob(..)) => 6,
        Some(Route::Uploads(_) | Route::Upload(..)) => 7,
        None => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_announced_once_and_has_a_number() {
        let metrics = Metrics::new(Timestamp::from_second(1_800_000_000).expect("a time"));
        metrics.answered(&Method::PUT, kind(Some(&Route::Base)), StatusCode::CREATED);
        metrics.answered(&Method::TRACE, kind(None), StatusCode::METHOD_NOT_ALLOWED);
        metrics.certificate(Timestamp::from_second(1_900_000_000).expect("a time"));
        metrics.collected(Some(&Collected { bytes: 7, ..Collected::default() }), Timestamp::UNIX_EPOCH);
        let text = metrics.text(&Now { uploads: 2, available_bytes: Some(5), ready: true });
        let mut announced = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                announced.push(rest.split_once(' ').expect("a type").0);
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                assert_eq!(announced.last().copied(), series.split('{').next());
                value.parse::<f64>().expect(line);
            }
        }
        let mut once = announced.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), announced.len());
        assert!(text.contains("requests_total{method=\"PUT\",kind=\"base\",status=\"2xx\"} 1\n"));
        assert!(text.contains("requests_total{method=\"other\",kind=\"invalid\",status=\"4xx\"} 1\n"));
        assert!(text.contains("gapscan_registry_collected_bytes_total 7\n"));
    }
}
