//! Webhooks of a control plane outside of the cluster.

use std::net::IpAddr;

use super::Report;
use crate::{Body, Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let validating = world
        .of(Kind::ValidatingWebhookConfiguration)
        .filter(|one| *one.name == *"istiod-default-validator" || one.name.starts_with("istio-validator"));
    let mutating = world.of(Kind::MutatingWebhookConfiguration);
    for one in validating.chain(mutating.filter(|one| one.name.starts_with("istio-sidecar-injector"))) {
        let Body::Webhooks(all) = &one.body else { continue };
        for webhook in &all.webhooks {
            match (&webhook.client_config.url, &webhook.client_config.service) {
                (Some(url), _) => match host(url) {
                    None => {
                        let values = [&**url, &*webhook.name, "was provided in an invalid format"];
                        report.add(Code::InvalidExternalControlPlaneConfig, one, &values);
                    }
                    Some(host) if host.parse::<IpAddr>().is_ok() => {
                        let values = [&**url, &*webhook.name];
                        report.add(Code::ExternalControlPlaneAddressIsNotAHostname, one, &values);
                    }
                    Some(_) => {}
                },
                (None, None) => {
                    let values = ["", &*webhook.name, "is blank"];
                    report.add(Code::InvalidExternalControlPlaneConfig, one, &values);
                }
                (None, Some(_)) => {}
            }
        }
    }
}

/// The host of a URL, which may be empty; `None` when it is no URL.
fn host(url: &str) -> Option<&str> {
    if url.bytes().any(|c| c < 0x20 || c == 0x7f) {
        return None;
    }
    let (before, rest) = url.split_once("//").unwrap_or((url, ""));
    let Some((scheme, _)) = before.split_once(':') else {
        // A path, or a host without a scheme.
        return if before.is_empty() { authority(rest) } else { Some("") };
    };
    let mut letters = scheme.bytes();
    let is_scheme = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    if !is_scheme {
        return None;
    }
    if before.ends_with(':') { authority(rest) } else { Some("") }
}

fn authority(rest: &str) -> Option<&str> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => match place.find(':') {
            Some(at) => place.split_at(at),
            None => (place, ""),
        },
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|c| c.is_ascii_digit()),
        None => port.is_empty(),
    };
    let is_host =
        host.bytes().all(|c| c.is_ascii_alphanumeric() || c >= 0x80 || b"!$&'()*+,;=:-_.~<>\"%".contains(&c));
    (is_port && is_host).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts_of_urls_are_found() {
        assert_eq!(host("https://a.example.com:15017/inject"), Some("a.example.com"));
        assert_eq!(host("https://u@[::1]:15017/inject"), Some("::1"));
        assert_eq!(host("https://10.0.0.1"), Some("10.0.0.1"));
        assert_eq!(host("a/b"), Some(""));
        assert_eq!(host(""), Some(""));
        assert_eq!(host("10.0.0.1:15017/inject"), None);
        assert_eq!(host("https://a b/"), None);
        assert_eq!(host("https://a:b/"), None);
        assert_eq!(host("http\n://a"), None);
    }
}
