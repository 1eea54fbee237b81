//! Metrics in Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

type Labels = BTreeMap<String, String>;

/// All of one scrape.
pub(crate) struct Metrics {
    kinds: BTreeMap<String, String>,
    values: Vec<(String, Labels, u64)>,
}

/// Scrapes until `enough`, or for so long that it never will be.
pub(crate) fn until(port: u16, enough: impl Fn(&Metrics) -> bool) -> Metrics {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let metrics = Metrics::scrape(port);
        if enough(&metrics) || Instant::now() > end {
            return metrics;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

impl Metrics {
    fn scrape(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // HTTP 1.0: no chunks in the answer.
        stream.write_all(b"GET /stats/prometheus HTTP/1.0\r\nhost: b\r\naccept: application/vnd.google.protobuf\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"), "{head}");
        Self::parse(body)
    }

    /// Panics on what Prometheus would refuse.
    fn parse(text: &str) -> Self {
        let mut metrics = Self { kinds: BTreeMap::new(), values: Vec::new() };
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(metrics.kinds.insert(name.into(), kind.into()).is_none(), "{name} is there twice");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            if !series.starts_with("istio_") {
                metrics.values.push((series.split('{').next().unwrap().into(), Labels::new(), 0));
                continue;
            }
            assert!(seen.insert(series.to_owned()), "{series} is there twice");
            let (name, labels) = series.strip_suffix('}').unwrap().split_once('{').unwrap();
            let labels = labels.strip_suffix('"').unwrap_or(labels);
            let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
            let labels = pairs.map(|pair| pair.split_once("=\"").unwrap());
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            metrics.values.push((name.into(), labels, value.parse().unwrap()));
        }
        metrics
    }

    /// The value with these labels and no others.
    pub(crate) fn exact(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.values.iter().find(|(known, own, _)| known == name && *own == labels).map(|(.., value)| *value)
    }

    /// The sum of all with these labels and any others.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let fits =
            |own: &Labels| labels.iter().all(|(name, value)| own.get(*name).is_some_and(|own| own == value));
        self.values.iter().filter(|(known, own, _)| known == name && fits(own)).map(|(.., value)| value).sum()
    }

    /// What it is said to be.
    pub(crate) fn kind(&self, name: &str) -> Option<&str> {
        self.kinds.get(name).map(String::as_str)
    }

    /// Whether it is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(known, ..)| known == name)
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours =
            self.values.iter().filter(|(name, ..)| name.starts_with("istio_") && !name.ends_with("_bucket"));
        for (name, labels, value) in ours {
            writeln!(f, "{name} {value} {labels:?}")?;
        }
        Ok(())
    }
}
