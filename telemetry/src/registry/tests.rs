use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Kind, Registry, seconds};

#[test]
fn equal_labels_are_one_series() {
    let registry = Registry::new(None);
    let first = registry.series("a_total", Kind::Counter, 10, r#"x="1""#, "");
    let again = registry.series("a_total", Kind::Counter, 10, r#"x="1""#, "");
    assert!(Arc::ptr_eq(&first, &again));
    first.add(2, 0);
    let text = registry.text();
    assert!(text.contains("# TYPE a_total counter\na_total{x=\"1\"} 2\n"), "{text}");
}

#[test]
fn buckets_are_cumulative_and_exact_at_their_limit() {
    let registry = Registry::new(Some(r#"{"istiocustom":[10,1]}"#));
    let series = registry.series("istio_bytes", Kind::Histogram, 10, "", "");
    for value in [0, 1, 2, 10, 11] {
        series.add(value, 0);
    }
    let expected = "# TYPE istio_bytes histogram\nistio_bytes_bucket{le=\"1\"} 2\nistio_bytes_bucket{le=\"10\"} 4\n\
                    istio_bytes_bucket{le=\"+Inf\"} 5\nistio_bytes_sum{} 24\nistio_bytes_count{} 5\n";
    assert!(registry.text().starts_with(expected), "{}", registry.text());
    let other = Registry::new(None).series("istio_bytes", Kind::Histogram, 10, "", "");
    other.add(1, 0);
    assert_eq!(other.value().count(), 1);
}

#[test]
fn metrics_of_the_same_labels_share_their_text() {
    let registry = Registry::new(None);
    registry.series("a", Kind::Counter, 10, "x=\"1\"", "");
    registry.series("b", Kind::Histogram, 10, "x=\"1\"", "");
    let families = registry.families();
    let texts: Vec<_> = families.values().flat_map(|family| family.series.keys()).collect();
    assert_eq!(texts.len(), 2);
    assert!(Arc::ptr_eq(texts[0], texts[1]));
}

#[test]
fn too_many_series_are_counted_in_one() {
    let registry = Registry::new(None);
    for client in 0..5 {
        registry.series("a_total", Kind::Counter, 2, &format!("x=\"{client}\""), r#"x="unknown""#).add(1, 0);
    }
    let text = registry.text();
    assert!(text.contains("a_total{x=\"0\"} 1\na_total{x=\"1\"} 1\na_total{x=\"unknown\"} 3\n"), "{text}");
    assert!(text.contains("istio_telemetry_series_overflowed_total{} 3"), "{text}");
}

#[test]
fn idle_series_are_forgotten() {
    let registry = Registry::new(None);
    registry.series("a_total", Kind::Counter, 9, "", "").add(1, seconds(Instant::now()));
    registry.expire(u32::MAX);
    assert!(registry.text().contains("a_total"), "nobody asked to forget");
    registry.set_idle(Some(Duration::from_secs(60)));
    let generation = registry.generation();
    registry.expire(seconds(Instant::now()) + 59);
    assert!(registry.text().contains("a_total"));
    registry.expire(seconds(Instant::now()) + 61);
    assert!(!registry.text().contains("a_total"));
    assert_ne!(registry.generation(), generation, "handles are dropped too");
}

#[test]
fn a_metric_has_one_kind() {
    let registry = Registry::new(None);
    registry.series("a_total", Kind::Counter, 9, "", "").add(1, 0);
    registry.series("a_total", Kind::Gauge, 9, "", "").add(7, 0);
    assert!(registry.text().contains("a_total{} 1\n"));
}
