//! Names and addresses that agents know istiod by: those of its certificate.

use std::net::IpAddr;

use anyhow::Context as _;
use pki::issuer::San;
use rustls::pki_types::DnsName;

use crate::config::Settings;

/// The names of the Service, of the mesh configuration, and those that the
/// user adds.
///
/// # Errors
/// One that is neither a host name nor an address.
pub fn of(settings: &Settings) -> anyhow::Result<Vec<San>> {
    let mut hosts: Vec<San> = ["istiod", "istiod-remote", "istio-pilot"]
        .iter()
        .map(|name| San::Dns(format!("{name}.{}.svc", settings.namespace)))
        .collect();
    let discovery = settings.mesh.default_config.as_ref().map_or("", |config| &config.discovery_address);
    if !discovery.is_empty() {
        hosts.push(parse(discovery).context("defaultConfig.discoveryAddress of the mesh configuration")?);
    }
    for host in &settings.custom_hosts {
        hosts.push(parse(host).context("ISTIOD_CUSTOM_HOST")?);
    }
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

/// Reads `HOST`, `HOST:PORT`, `IP`, `IP:PORT` or `[IPV6]:PORT`; the port counts for nothing.
fn parse(text: &str) -> anyhow::Result<San> {
    let host = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None if text.parse::<IpAddr>().is_ok() => text,
        None => text.rsplit_once(':').map_or(text, |(host, _)| host),
    };
    if let Ok(address) = host.parse() {
        return Ok(San::Ip(address));
    }
    let plain = host.strip_prefix("*.").unwrap_or(host);
    DnsName::try_from(plain).ok().with_context(|| {
        format!("{text:?} is neither a host name nor an IP address, such as istiod.example.com or 10.0.0.1")
    })?;
    Ok(San::Dns(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_addresses_from_names() {
        let dns = |name: &str| San::Dns(name.into());
        let ip = |address: &str| San::Ip(address.parse().unwrap());
        for (text, want) in [
            ("istiod.istio-system.svc:15012", dns("istiod.istio-system.svc")),
            ("istiod.example.com", dns("istiod.example.com")),
            ("*.example.com", dns("*.example.com")),
            ("10.77.0.2:15012", ip("10.77.0.2")),
            ("10.77.0.3", ip("10.77.0.3")),
            ("[::1]:15012", ip("::1")),
            ("[fd00::1]", ip("fd00::1")),
            ("fd00::1", ip("fd00::1")),
        ] {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        for text in ["", "a b", "[::1", "-:1", "a..b"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
