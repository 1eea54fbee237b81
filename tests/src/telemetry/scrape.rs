//! What a proxy shows to Prometheus: its text format, read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};

use crate::client::Ask;
use crate::mesh::pod::Pod;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric; of a histogram with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The number.
    pub value: f64,
}

/// Reads a page.
///
/// # Errors
/// When a line is no sample, or a sample is there twice: Prometheus refuses the page then.
pub fn parse(page: &str) -> anyhow::Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let sample = sample(line).with_context(|| line.to_owned())?;
        ensure!(seen.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
        samples.push(sample);
    }
    Ok(samples)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value = rest.trim().split(' ').next()?;
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().ok()? };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `name="value",...}` and what follows.
fn labels(mut text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        // Prometheus takes no label twice.
        if labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        text = &rest[end..];
    }
}

/// Numbers of Istio's metrics, by name and labels.
pub type Numbers = BTreeMap<(String, Labels), f64>;

impl Pod {
    /// Istio's metrics, as they are at that port (15090: Envoy's own; 15020: all of the pod's).
    ///
    /// # Errors
    /// When there is no answer, or none that Prometheus would take.
    pub fn istio_metrics(&self, port: u16) -> anyhow::Result<Numbers> {
        let page = Ask::get((Ipv4Addr::LOCALHOST, port), "pod", "/stats/prometheus").from(&self.network)?;
        ensure!(page.status.is_success(), "{}: {}", page.status, page.body);
        let samples = parse(&page.body)?.into_iter().filter(|sample| sample.name.starts_with("istio_"));
        Ok(samples.map(|sample| ((sample.name, sample.labels), sample.value)).collect())
    }
}

/// What was added since; what did not change is left out.
#[must_use]
pub fn added(before: &Numbers, after: &Numbers) -> Numbers {
    let added = after.iter().map(|(key, value)| (key.clone(), value - before.get(key).unwrap_or(&0.0)));
    added.filter(|(_, value)| *value != 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let page = "# TYPE a counter\na{b=\"c\",d=\"e \\\"f\\\" \\\\ \\n}\"} 3\nplain 1.5\nx_bucket{le=\"+Inf\"} 2 1700000000000\nempty{} 0\n";
        let samples = parse(page).unwrap();
        assert_eq!(samples.len(), 4);
        assert_eq!(samples[0].labels["d"], "e \"f\" \\ \n}");
        assert_eq!((samples[0].value, samples[1].value), (3.0, 1.5));
        assert_eq!((samples[2].labels["le"].as_str(), samples[2].value), ("+Inf", 2.0));
    }

    #[test]
    fn what_prometheus_refuses_is_refused() {
        for page in ["a{b=\"c\"} 1\na{b=\"c\"} 2\n", "a{b=\"c\",b=\"d\"} 1\n", "a{b=\"c} 1\n", "a b\n"] {
            parse(page).unwrap_err();
        }
    }

    #[test]
    fn only_what_changed_was_added() {
        let of = |value| Numbers::from([(("a".to_owned(), Labels::new()), value)]);
        assert_eq!(added(&of(1.0), &of(3.0)), of(2.0));
        assert!(added(&of(1.0), &of(1.0)).is_empty());
        assert_eq!(added(&Numbers::new(), &of(1.0)), of(1.0));
    }
}
