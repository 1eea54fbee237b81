//! When the authority's certificates end, computed when somebody asks: a gauge
//! that is set at each change would tell of an old one (as Istio's does).

use std::time::{SystemTime, UNIX_EPOCH};

use pki::certificate::Certificate;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::authority::Authority;

/// Tells the metrics `citadel_server_{root_cert,cert_chain}_expiry_*`.
#[derive(Debug)]
pub struct Expiry(pub Authority);

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let current = self.0.current();
        let first = |pem: &str| {
            let all = Certificate::all_from_pem(pem).ok()?;
            all.iter().map(|certificate| certificate.not_after).min()
        };
        let (root, chain) = match &current.issuer {
            Some(issuer) => (issuer.root_pem(), issuer.chain().concat()),
            None => (current.roots.as_str(), String::new()),
        };
        let ends = [("root_cert", "root certificate", first(root)), ("cert_chain", "chain", first(&chain))];
        for (name, what, end) in ends {
            let Some(end) = end else { continue };
            let timestamp = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let left = match end.duration_since(SystemTime::now()) {
                Ok(left) => left.as_secs_f64(),
                Err(over) => -over.duration().as_secs_f64(),
            };
            for (unit, help, value) in [
                ("timestamp", format!("When the {what} ends, in seconds since 1970"), timestamp),
                ("seconds", format!("Seconds until the {what} ends"), left),
            ] {
                let gauge = ConstGauge::new(value);
                let name = format!("citadel_server_{name}_expiry_{unit}");
                let metric = encoder.encode_descriptor(&name, &help, None, gauge.metric_type())?;
                gauge.encode(metric)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pki::issuer::Issuer;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::page;

    #[test]
    fn says_when_the_root_ends() {
        let (issuer, _) = Issuer::self_signed("a", Duration::from_secs(3600), SystemTime::now()).unwrap();
        let authority = Authority::new(issuer, "test", Duration::from_secs(60), Duration::from_secs(60));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Expiry(authority)));
        let page = page(&registry).unwrap();
        let value =
            page.lines().find_map(|line| line.strip_prefix("citadel_server_root_cert_expiry_seconds "));
        let left: f64 = value.unwrap().parse().unwrap();
        assert!((3000.0..=3600.0).contains(&left), "{page}");
        assert!(!page.contains("cert_chain"), "a root has none: {page}");
    }
}
