//! Metrics in the text format that Istio's own control plane writes.

use std::collections::BTreeSet;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Media type of a page.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters that Istio ends in `_total` itself.
const TOTALS: &[&str] = &[
    "auto_registration_success",
    "auto_registration_updates",
    "auto_registration_unregister",
    "auto_registration_deletes",
    "auto_registration_errors",
    "pilot_sds_certificate_errors",
    "pilot_jwks_resolver_network_fetch_success",
    "pilot_jwks_resolver_network_fetch_fail",
    "sidecar_injection_requests",
    "sidecar_injection_success",
    "sidecar_injection_failure",
    "sidecar_injection_skip",
    "webhook_patch_attempts",
    "webhook_patch_retries",
    "webhook_patch_failures",
];

/// All metrics. The encoder ends the names of counters in `_total`, which
/// Istio's do not: dashboards ask for `pilot_xds_pushes`.
///
/// # Errors
/// When a metric cannot be written.
pub fn page(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut page = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let base = name.strip_suffix("_total");
        match base.filter(|base| counters.contains(base) && !TOTALS.contains(base)) {
            Some(base) => {
                page.push_str(base);
                page.push_str(&line[name.len()..]);
            }
            None => page.push_str(line),
        }
        page.push('\n');
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn counters_have_the_names_that_they_were_given() {
        let mut registry = Registry::default();
        let (one, two) = (Counter::<u64>::default(), Counter::<u64>::default());
        registry.register("pushes", "Pushes", one.clone());
        registry.register("pilot_sds_certificate_errors", "Errors", two);
        one.inc();
        let page = page(&registry).unwrap();
        assert!(page.contains("# TYPE pushes counter\npushes 1\n"), "{page}");
        assert!(page.contains("\npilot_sds_certificate_errors_total 0\n"), "{page}");
        assert!(!page.contains("EOF"));
    }
}
