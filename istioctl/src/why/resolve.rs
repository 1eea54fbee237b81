//! The address of a host, as far as the dump tells it: services have theirs in
//! the domains of virtual hosts and in the addresses of listeners.

use std::net::IpAddr;

use proto::envoy::config::listener::v3::filter;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;

use super::explanation::Trail;
use super::message::unpack;
use super::proxy::{Proxy, socket_address};
use super::question::Question;

/// The address of the question's host; adds a step that says where it is from.
pub(super) fn resolve(proxy: &Proxy, question: &Question, trail: &mut Trail) -> Option<IpAddr> {
    let host = question.host.trim_end_matches('.').to_ascii_lowercase();
    let mut say = |text: String| {
        trail.pass(&proxy.name, "name", text);
    };
    if let Some(ip) = question.address {
        say(format!("{host} is {ip}, as given"));
        return Some(ip);
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(ip);
    }
    if host == "localhost" {
        return Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    }
    let Some(service) = service(proxy, &host) else {
        say(format!("no service known here has the name {host}: its address is what DNS says, if anything"));
        return None;
    };
    match by_domains(proxy, &service).or_else(|| by_listeners(proxy, &service)) {
        Some(ip) => {
            say(format!("{host} is service {service} at {ip}"));
            Some(ip)
        }
        None => {
            say(format!("{host} is service {service}, which has no address of its own here"));
            None
        }
    }
}

/// The service that a name means in the proxy's namespace, as DNS completes it.
fn service(proxy: &Proxy, host: &str) -> Option<String> {
    let (namespace, domain) = (&proxy.namespace, &proxy.domain);
    let completed = [
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    let known = |name: &str| {
        proxy.clusters.keys().any(|cluster| {
            cluster.starts_with("outbound|")
                && cluster.rsplit('|').next().is_some_and(|own| own.eq_ignore_ascii_case(name))
        })
    };
    completed.into_iter().chain([host.to_owned()]).find(|name| known(name))
}

/// A service's address stands among the domains of its virtual host.
fn by_domains(proxy: &Proxy, service: &str) -> Option<IpAddr> {
    let routes = proxy.routes.values().filter_map(|routes| routes.get().ok());
    let mut hosts = routes.flat_map(|routes| &routes.virtual_hosts);
    hosts.find_map(|host| {
        let is_own = host.domains.iter().any(|domain| domain.eq_ignore_ascii_case(service));
        is_own
            .then(|| host.domains.iter().find_map(|domain| domain.trim_matches(['[', ']']).parse().ok()))
            .flatten()
    })
}

/// A listener at the service's address forwards to it.
fn by_listeners(proxy: &Proxy, service: &str) -> Option<IpAddr> {
    let listeners = proxy.listeners.iter().filter_map(|listener| listener.get().ok());
    listeners
        .filter_map(|listener| Some((listener, socket_address(listener.address.as_ref())?.ip())))
        .filter(|(_, ip)| !ip.is_unspecified() && !ip.is_loopback())
        .find(|(listener, _)| {
            let mut filters = listener.filter_chains.iter().flat_map(|chain| &chain.filters);
            filters.any(|filter| {
                let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else { return false };
                let clusters = match unpack::<TcpProxy>(any).and_then(|proxy| proxy.cluster_specifier) {
                    Some(ClusterSpecifier::Cluster(name)) => vec![name],
                    Some(ClusterSpecifier::WeightedClusters(all)) => {
                        all.clusters.into_iter().map(|one| one.name).collect()
                    }
                    None => Vec::new(),
                };
                clusters.iter().any(|name| name.rsplit('|').next() == Some(service))
            })
        })
        .map(|(_, ip)| ip)
}
