//! The configuration of one filter: the `Struct` that istiod writes, which Envoy hands
//! over as JSON.
//!
//! Names and meaning are those of Istio's `stats.PluginConfig`, so whoever knows that
//! knows this.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Most series of one metric, where the configuration does not tell.
pub const MAX_SERIES: usize = 10_000;
/// How long a series may be idle, where the configuration does not tell.
pub const IDLE: Duration = Duration::from_hours(24);

/// On which side of the traffic a filter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Before the application: the reporter is the destination.
    Inbound,
    /// Behind the application: the reporter is the source.
    Outbound,
    /// At the edge of the mesh: the reporter is the source, and nothing that a client
    /// says about itself is believed.
    Gateway,
}

/// One filter's settings.
#[derive(Clone, Debug, Deserialize)]
pub struct Settings {
    /// Where the filter stands.
    pub direction: Direction,
    /// Whether peers tell each other who they are, over headers.
    #[serde(default = "yes")]
    pub metadata_exchange: bool,
    /// Changes of metrics, in order.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// Metrics beside the standard ones.
    #[serde(default)]
    pub definitions: Vec<Definition>,
    /// Whether the host that a client names stays out of `destination_service`.
    #[serde(default)]
    pub disable_host_header_fallback: bool,
    /// After how long an idle series is forgotten; zero: never.
    #[serde(default, deserialize_with = "duration")]
    pub rotation_interval: Option<Duration>,
    /// Most series of one metric; what comes then is counted with `unknown` labels.
    #[serde(default)]
    pub max_series: Option<usize>,
    /// The one service behind this filter chain, where there is one.
    #[serde(default)]
    pub service: Option<Service>,
}

/// A service by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Service {
    /// Host name, `reviews.default.svc.cluster.local`.
    pub host: String,
    /// Name, `reviews`; the first label of `host` where it is missing.
    #[serde(default)]
    pub name: String,
}

/// Changes of one metric, or of all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metric {
    /// Name without `istio_`; empty: all metrics.
    pub name: String,
    /// Tags to set, each to the value of an expression.
    pub dimensions: BTreeMap<String, String>,
    /// Tags to leave out.
    pub tags_to_remove: Vec<String>,
    /// Whether the metric is left out.
    pub drop: bool,
}

/// A metric beside the standard ones.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Definition {
    /// Name without `istio_`.
    pub name: String,
    /// An expression whose value is counted.
    pub value: String,
    /// Kind of metric.
    #[serde(rename = "type")]
    pub kind: DefinitionKind,
}

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DefinitionKind {
    /// Goes up only.
    #[default]
    Counter,
    /// The last value.
    Gauge,
    /// How often which value.
    Histogram,
}

impl Settings {
    /// Reads the JSON.
    ///
    /// # Errors
    /// When the direction is missing or a field is not of its type.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Most series of one metric.
    #[must_use]
    pub fn max_series(&self) -> usize {
        self.max_series.unwrap_or(MAX_SERIES).max(1)
    }

    /// After how long an idle series is forgotten.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        Some(self.rotation_interval.unwrap_or(IDLE)).filter(|idle| !idle.is_zero())
    }
}

const fn yes() -> bool {
    true
}

/// A duration as in the JSON of protobuf: `15s`, `0.5s`; a plain number is seconds.
fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Text(String),
        Number(f64),
    }
    let Some(given) = Option::<Text>::deserialize(input)? else { return Ok(None) };
    let seconds = match given {
        Text::Number(number) => Some(number),
        Text::Text(text) => text.strip_suffix('s').and_then(|text| text.parse().ok()),
    };
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.map(Some).ok_or_else(|| serde::de::Error::custom("a duration is written like 15s"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Direction, IDLE, Settings};

    #[test]
    fn only_the_direction_must_be_there() {
        let settings = Settings::parse(br#"{"direction":"gateway"}"#).unwrap();
        assert_eq!(settings.direction, Direction::Gateway);
        assert!(settings.metadata_exchange);
        assert_eq!(settings.idle(), Some(IDLE));
        assert!(Settings::parse(b"{}").is_err());
        assert!(Settings::parse(br#"{"direction":"up"}"#).is_err());
    }

    #[test]
    fn numbers_and_durations_are_as_protobuf_writes_them() {
        let settings = Settings::parse(
            br#"{"direction":"inbound","max_series":5.0,"rotation_interval":"0.5s","tcp_reporting_duration":"15s"}"#,
        );
        assert!(settings.is_err(), "a Struct's whole numbers come without a point");
        let settings =
            Settings::parse(br#"{"direction":"inbound","max_series":5,"rotation_interval":"0.5s"}"#).unwrap();
        assert_eq!((settings.max_series(), settings.idle()), (5, Some(Duration::from_millis(500))));
        let never = Settings::parse(br#"{"direction":"inbound","rotation_interval":"0s"}"#).unwrap();
        assert_eq!(never.idle(), None);
        assert!(Settings::parse(br#"{"direction":"inbound","rotation_interval":"soon"}"#).is_err());
    }
}
