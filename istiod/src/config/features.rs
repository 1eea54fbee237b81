//! Switches of translation: the environment variables of Istio that set them.

use pilot::{Features, KeyFetch, Percentage, SessionLabels};

use super::Error;

/// The one that has more than two values.
const KEY_FETCH: &str = "PILOT_JWT_ENABLE_REMOTE_JWKS";

/// The one that is a number.
const TRACE_SAMPLING: &str = "PILOT_TRACE_SAMPLING";

type Field = fn(&mut Features) -> &mut bool;

/// Name of each variable and what it switches; the defaults are those of [`Features`].
pub const VARIABLES: &[(&str, Field)] = &[
    ("ISTIO_DUAL_STACK", |all| &mut all.dual_stack),
    ("PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS", |all| &mut all.auto_send_unhealthy_endpoints),
    ("PILOT_ENABLE_ALPN_FILTER", |all| &mut all.alpn),
    ("PILOT_ENABLE_IP_AUTOALLOCATE", |all| &mut all.ip_autoallocate),
    ("ENABLE_TLS_ON_SIDECAR_INGRESS", |all| &mut all.tls_on_sidecar_ingress),
    ("PILOT_ENABLE_METADATA_EXCHANGE", |all| &mut all.metadata_exchange),
    ("PILOT_ENABLE_MONGO_FILTER", |all| &mut all.mongo_filter),
    ("PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", |all| &mut all.multiple_custom_providers),
    ("PILOT_ENABLE_MYSQL_FILTER", |all| &mut all.mysql_filter),
    ("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", |all| &mut all.persistent_sessions),
    ("PILOT_ENABLE_QUIC_LISTENERS", |all| &mut all.quic_listeners),
    ("PILOT_ENABLE_REDIS_FILTER", |all| &mut all.redis_filter),
    ("PILOT_SCOPE_GATEWAY_TO_NAMESPACE", |all| &mut all.scope_gateway_to_namespace),
    ("PILOT_SEND_UNHEALTHY_ENDPOINTS", |all| &mut all.send_unhealthy_endpoints),
    ("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", |all| &mut all.skip_trust_domain),
    ("RESOLVE_HOSTNAME_GATEWAYS", |all| &mut all.resolve_gateway_names),
];

/// The one that bounds a cache.
const DYNAMIC_DNS_HOSTS: &str = "PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS";

type Label = fn(&mut SessionLabels) -> &mut String;

/// Those that name labels; an empty one switches off what its label is for.
const LABELS: &[(&str, Label)] = &[
    ("PILOT_DRAINING_LABEL", |all| &mut all.draining),
    ("PILOT_PERSISTENT_SESSION_HEADER_LABEL", |all| &mut all.header),
    ("PILOT_PERSISTENT_SESSION_LABEL", |all| &mut all.cookie),
];

/// Reads all switches; what is wrong is told to `errors`.
pub(super) fn read(get: impl Fn(&str) -> Option<String>, errors: &mut Vec<Error>) -> Features {
    let mut features = Features::default();
    for (name, field) in VARIABLES {
        let Some(value) = get(name).filter(|value| !value.is_empty()) else { continue };
        match value.parse() {
            Ok(is_on) => *field(&mut features) = is_on,
            Err(_) => errors.push(Error { name, value, why: "expected true or false".to_owned() }),
        }
    }
    let value = get(KEY_FETCH).unwrap_or_default();
    features.key_fetch = match value.to_ascii_lowercase().as_str() {
        "" | "false" | "istiod" => KeyFetch::Istiod,
        "true" | "hybrid" => KeyFetch::Hybrid,
        "envoy" => KeyFetch::Envoy,
        _ => {
            let why = "expected istiod (or false), hybrid (or true) or envoy".to_owned();
            errors.push(Error { name: KEY_FETCH, value, why });
            KeyFetch::Istiod
        }
    };
    for (name, label) in LABELS {
        if let Some(value) = get(name) {
            *label(&mut features.session_labels) = value;
        }
    }
    if let Some(value) = get(DYNAMIC_DNS_HOSTS).filter(|value| !value.is_empty()) {
        match value.parse().ok().filter(|hosts| *hosts > 0) {
            Some(hosts) => features.dynamic_dns_max_hosts = hosts,
            None => {
                let why = format!("expected a number from 1 to {}", u32::MAX);
                errors.push(Error { name: DYNAMIC_DNS_HOSTS, value, why });
            }
        }
    }
    if let Some(value) = get(TRACE_SAMPLING).filter(|value| !value.is_empty()) {
        match value.parse().ok().and_then(Percentage::new) {
            Some(percentage) => features.trace_sampling = percentage,
            None => errors.push(Error {
                name: TRACE_SAMPLING,
                value,
                why: "expected a percentage from 0 to 100".to_owned(),
            }),
        }
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_has_a_switch_of_its_own() {
        for (name, field) in VARIABLES {
            let mut changed = Features::default();
            let before = *field(&mut changed);
            *field(&mut changed) = !before;
            let mut errors = Vec::new();
            let read = read(|asked| (asked == *name).then(|| (!before).to_string()), &mut errors);
            assert_eq!((read, errors.len()), (changed, 0), "{name}");
        }
        let mut errors = Vec::new();
        read(|_| Some("yes".into()), &mut errors);
        assert_eq!(errors.len(), VARIABLES.len() + 3);
        let read_one =
            |name: &str, value: &str| read(|asked| (asked == name).then(|| value.into()), &mut Vec::new());
        assert_eq!(read_one(DYNAMIC_DNS_HOSTS, "7").dynamic_dns_max_hosts, 7);
        assert_eq!(read_one("PILOT_DRAINING_LABEL", "").session_labels.draining, "");
        assert_eq!(read_one("PILOT_PERSISTENT_SESSION_LABEL", "a/b").session_labels.cookie, "a/b");
        for (value, want) in [("", KeyFetch::Istiod), ("True", KeyFetch::Hybrid), ("envoy", KeyFetch::Envoy)]
        {
            let read = read(|name| (name == KEY_FETCH).then(|| value.into()), &mut Vec::new());
            assert_eq!(read.key_fetch, want, "{value}");
        }
    }
}
