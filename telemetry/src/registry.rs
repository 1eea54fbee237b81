//! What was counted, in the whole process.
//!
//! Envoy's own statistics are not used: each of its calls names all label values as
//! text and costs microseconds, and a network filter has no labels at all there. Here a
//! series is looked up once and its handle kept, so counting is an atomic addition; it
//! also outlives the listener that counted, and is forgotten when idle.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::log;

mod value;

pub use value::Value;

/// The variable of Envoy's environment with limits of buckets, JSON: the beginning of
/// metrics' names to limits. `istiocustom` is Istio's name for all metrics here.
pub const BUCKETS: &str = "ISTIO_TELEMETRY_BUCKETS";

/// Envoy's own.
const DEFAULT_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Bytes after which a piece of the text is given away.
const PIECE: usize = 256 * 1024;

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// The last value.
    Gauge,
    /// How often which value.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric with one set of labels.
#[derive(Debug)]
pub struct Series {
    value: Value,
    /// When it was last counted: seconds since the process began to count.
    used: AtomicU32,
}

impl Series {
    /// Counts `value` at the time `now` of [`seconds`].
    pub fn add(&self, value: u64, now: u32) {
        self.value.add(value);
        self.used.store(now, Ordering::Relaxed);
    }

    /// What was counted.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }
}

/// All series of one metric, by the text of their labels.
#[derive(Debug)]
struct Family {
    kind: Kind,
    series: BTreeMap<Arc<str>, Arc<Series>>,
}

/// All metrics.
#[derive(Debug, Default)]
pub struct Registry {
    families: Mutex<BTreeMap<String, Family>>,
    /// Changes whenever series were forgotten; who keeps handles drops them then.
    generation: AtomicU64,
    /// After how many seconds a series is forgotten; 0: never.
    idle: AtomicU64,
    /// Series that were not made, as there were too many.
    overflowed: AtomicU64,
    buckets: Vec<(String, Arc<[f64]>)>,
}

/// The one of this process.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "Envoy's environment is what the agent sets for this")]
pub fn global() -> &'static Registry {
    static GLOBAL: OnceLock<Registry> = OnceLock::new();
    GLOBAL.get_or_init(|| Registry::new(std::env::var(BUCKETS).ok().as_deref()))
}

/// Seconds from when the process began to count to `now`.
#[must_use]
pub fn seconds(now: Instant) -> u32 {
    static START: OnceLock<Instant> = OnceLock::new();
    u32::try_from(now.duration_since(*START.get_or_init(Instant::now)).as_secs()).unwrap_or(u32::MAX)
}

impl Registry {
    /// An empty one. `buckets`: limits by the beginning of a name, as JSON.
    #[must_use]
    pub fn new(buckets: Option<&str>) -> Self {
        let parsed: Option<BTreeMap<String, Vec<f64>>> = buckets.and_then(|json| {
            let parsed = serde_json::from_str(json);
            parsed.inspect_err(|error| log::warn(&format!("{BUCKETS} is not usable: {error}"))).ok()
        });
        let buckets = parsed.unwrap_or_default().into_iter().map(|(prefix, mut limits)| {
            limits.retain(|limit| limit.is_finite());
            limits.sort_by(f64::total_cmp);
            limits.dedup();
            (prefix, limits.into())
        });
        Self { buckets: buckets.collect(), ..Self::default() }
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever series were forgotten.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Sets after how long a series is forgotten.
    pub fn set_idle(&self, idle: Option<Duration>) {
        self.idle.store(idle.map_or(0, |idle| idle.as_secs().max(1)), Ordering::Relaxed);
    }

    /// The series of `name` with `labels`, made where it is missing. When there are
    /// `most` already, the one with the labels `overflow` takes its place.
    pub fn series(&self, name: &str, kind: Kind, most: usize, labels: &str, overflow: &str) -> Arc<Series> {
        let mut families = self.families();
        // Most metrics of a request have the same labels: one text, a kilobyte, serves all.
        let text = families
            .values()
            .find_map(|family| family.series.get_key_value(labels))
            .map(|(text, _)| text.clone());
        let family = match families.get_mut(name) {
            Some(family) => family,
            None => families.entry(name.to_owned()).or_insert(Family { kind, series: BTreeMap::new() }),
        };
        if family.kind != kind {
            log::warn(&format!("{name} is a {} already and cannot be a {}", family.kind.name(), kind.name()));
            return Arc::new(self.make(name, kind));
        }
        if let Some(known) = family.series.get(labels) {
            return Arc::clone(known);
        }
        let mut text = text.unwrap_or_else(|| labels.into());
        if family.series.len() >= most {
            if self.overflowed.fetch_add(1, Ordering::Relaxed) == 0 {
                log::warn(&format!("{name} has {most} series; new ones are counted with unknown labels"));
            }
            text = overflow.into();
        }
        let series = family.series.entry(text).or_insert_with(|| Arc::new(self.make(name, kind)));
        Arc::clone(series)
    }

    fn make(&self, name: &str, kind: Kind) -> Series {
        let value = match kind {
            Kind::Counter => Value::counter(),
            Kind::Gauge => Value::gauge(),
            Kind::Histogram => Value::histogram(self.buckets(name)),
        };
        Series { value, used: AtomicU32::new(seconds(Instant::now())) }
    }

    fn buckets(&self, name: &str) -> Arc<[f64]> {
        static DEFAULT: OnceLock<Arc<[f64]>> = OnceLock::new();
        let fits =
            |prefix: &str| name.starts_with(prefix) || format!("istiocustom.{name}").starts_with(prefix);
        let asked = self.buckets.iter().find(|(prefix, _)| fits(prefix));
        asked.map_or_else(
            || Arc::clone(DEFAULT.get_or_init(|| DEFAULT_BUCKETS.into())),
            |(_, own)| Arc::clone(own),
        )
    }

    /// Forgets what is idle.
    pub fn expire(&self, now: u32) {
        let idle = self.idle.load(Ordering::Relaxed);
        if idle == 0 {
            return;
        }
        let mut forgotten = false;
        for family in self.families().values_mut() {
            let before = family.series.len();
            family.series.retain(|_, series| {
                u64::from(now.saturating_sub(series.used.load(Ordering::Relaxed))) < idle
            });
            forgotten |= family.series.len() != before;
        }
        if forgotten {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives everything to `write`, piece by piece, in Prometheus' text format.
    pub fn render(&self, write: &mut dyn FnMut(&str)) {
        // Whoever needs a new series meanwhile waits for the copies only.
        let families: Vec<_> = self
            .families()
            .iter()
            .map(|(name, family)| {
                let series =
                    family.series.iter().map(|(labels, series)| (Arc::clone(labels), Arc::clone(series)));
                (name.clone(), family.kind, series.collect::<Vec<_>>())
            })
            .collect();
        let mut text = String::with_capacity(2 * PIECE);
        for (name, kind, series) in families {
            if series.is_empty() {
                continue;
            }
            let _ = writeln!(text, "# TYPE {name} {}", kind.name());
            for (labels, series) in series {
                series.value.render(&name, &labels, &mut text);
                if text.len() >= PIECE {
                    write(&text);
                    text.clear();
                }
            }
        }
        let own = [
            ("istio_telemetry_faults_total", crate::fault::faults()),
            ("istio_telemetry_series_overflowed_total", self.overflowed.load(Ordering::Relaxed)),
        ];
        for (name, value) in own {
            let _ = writeln!(text, "# TYPE {name} counter\n{name}{{}} {value}");
        }
        write(&text);
    }

    /// Everything at once.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.render(&mut |piece| text.push_str(piece));
        text
    }
}

#[cfg(test)]
mod tests;
