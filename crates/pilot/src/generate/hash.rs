//! What a DestinationRule asks of routes and TCP proxies that lead to its
//! host: what consistent hashing goes by, idle times and tunnels.

use proto::envoy::config::route::v3::route_action::HashPolicy;
use proto::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig;
use proto::envoy::r#type::v3::{HashPolicy as TcpHashPolicy, hash_policy};
use proto::istio::networking::v1alpha3::load_balancer_settings::consistent_hash_lb::HashKey;
use proto::istio::networking::v1alpha3::load_balancer_settings::{ConsistentHashLb, LbPolicy};
use proto::istio::networking::v1alpha3::{LoadBalancerSettings, TrafficPolicy};

use crate::generate::message::{time, time_over_zero};
use crate::scope::Scope;
use crate::snapshot::Service;
use crate::snapshot::destination_rule::Rule;

/// What requests to a service or a subset of it (empty: none) are hashed by.
/// `port` is that of the destination, if it names one: settings for ports
/// count for it only then, as in Istio.
pub(super) fn http(scope: Scope<'_>, service: &Service, port: Option<u16>, subset: &str) -> Vec<HashPolicy> {
    let Some(rule) = scope.rule(service) else { return Vec::new() };
    let own = rule.subsets.iter().find(|known| known.name == subset);
    let own = own.filter(|_| !subset.is_empty()).and_then(|known| known.traffic_policy.as_ref());
    let top = rule.policy.as_ref();
    let hash = of_port(own, port)
        .or_else(|| own.and_then(|policy| of(policy.load_balancer.as_ref())))
        .or_else(|| of_port(top, port))
        .or_else(|| top.and_then(|policy| of(policy.load_balancer.as_ref())));
    hash.and_then(policy).into_iter().collect()
}

fn of(balancer: Option<&LoadBalancerSettings>) -> Option<&ConsistentHashLb> {
    match balancer?.lb_policy.as_ref()? {
        LbPolicy::ConsistentHash(hash) => Some(hash),
        LbPolicy::Simple(_) | LbPolicy::BackendUtilization(_) => None,
    }
}

fn of_port(policy: Option<&TrafficPolicy>, port: Option<u16>) -> Option<&ConsistentHashLb> {
    let port = u32::from(port?);
    let settings = policy?
        .port_level_settings
        .iter()
        .find(|settings| settings.port.as_ref().is_some_and(|selector| selector.number == port))?;
    of(settings.load_balancer.as_ref())
}

fn policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = match hash.hash_key.as_ref()? {
        // Envoy refuses names that are empty.
        HashKey::HttpHeaderName(name) if name.is_empty() => return None,
        HashKey::HttpQueryParameterName(name) if name.is_empty() => return None,
        HashKey::HttpCookie(cookie) if cookie.name.is_empty() => return None,
        HashKey::HttpHeaderName(name) => {
            PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() })
        }
        HashKey::HttpCookie(cookie) => {
            let attributes = cookie.attributes.iter().map(|attribute| CookieAttribute {
                name: attribute.name.clone(),
                value: attribute.value.clone(),
            });
            PolicySpecifier::Cookie(Cookie {
                name: cookie.name.clone(),
                ttl: time(cookie.ttl),
                path: cookie.path.clone(),
                attributes: attributes.collect(),
            })
        }
        HashKey::UseSourceIp(is) => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: *is })
        }
        HashKey::HttpQueryParameterName(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
        }
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() })
}

/// Fills in what the rule for a service says of TCP connections to it: hashing,
/// idle time, longest time, tunnel. `subset` is that of the only destination;
/// empty when there are several.
pub(super) fn tcp(scope: Scope<'_>, service: &Service, subset: &str, proxy: &mut TcpProxy) {
    let Some(rule) = scope.rule(service) else { return };
    let pool = rule.policy.as_ref().and_then(|policy| policy.connection_pool.as_ref());
    // Settings of ports and subsets do not count here, as in Istio.
    if let Some(tcp) = pool.and_then(|pool| pool.tcp.as_ref()) {
        proxy.idle_timeout = time(tcp.idle_timeout).or(proxy.idle_timeout);
        proxy.max_downstream_connection_duration = time_over_zero(tcp.max_connection_duration);
    }
    if hashes_source(rule, subset) {
        proxy.hash_policy = vec![TcpHashPolicy {
            policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})),
        }];
    }
    proxy.tunneling_config = tunnel(rule, subset);
}

fn hashes_source(rule: &Rule, subset: &str) -> bool {
    let by_source = |balancer: Option<&LoadBalancerSettings>| {
        matches!(of(balancer).and_then(|hash| hash.hash_key.as_ref()), Some(HashKey::UseSourceIp(true)))
    };
    let own = rule
        .subsets
        .iter()
        .find(|known| known.name == subset)
        .and_then(|known| known.traffic_policy.as_ref()?.load_balancer.as_ref());
    match own {
        Some(own) => by_source(Some(own)),
        None => by_source(rule.policy.as_ref().and_then(|policy| policy.load_balancer.as_ref())),
    }
}

/// The tunnel through an HTTP proxy; that of a subset is its own only.
fn tunnel(rule: &Rule, subset: &str) -> Option<TunnelingConfig> {
    let policy = if subset.is_empty() {
        rule.policy.as_ref()
    } else {
        rule.subsets.iter().find(|known| known.name == subset)?.traffic_policy.as_ref()
    };
    let settings = policy?.tunnel.as_ref().filter(|settings| !settings.target_host.is_empty())?;
    let host = &settings.target_host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    Some(TunnelingConfig {
        hostname: format!("{host}:{}", settings.target_port),
        use_post: settings.protocol == "POST",
        ..TunnelingConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::{Store, yaml};
    use proto::envoy::config::core::v3::Node;

    use super::*;
    use crate::proxy::Proxy;
    use crate::scope::View;
    use crate::snapshot::Snapshot;

    const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec:
  host: a
  trafficPolicy:
    tunnel: {protocol: POST, targetHost: '::1', targetPort: 443}
    connectionPool: {tcp: {idleTimeout: 0s, maxConnectionDuration: 3s}}
    loadBalancer: {consistentHash: {useSourceIp: true}}
    portLevelSettings:
    - {port: {number: 80}, loadBalancer: {consistentHash: {httpQueryParameterName: q}}}
  subsets:
  - name: v1
    trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}
  - {name: v2}
";

    fn with<T>(check: impl FnOnce(Scope<'_>, &Service) -> T) -> T {
        let mut store = Store::default();
        for object in yaml::read("mesh.yaml", OBJECTS).objects {
            store.apply(Arc::new(object));
        }
        let snapshot = Snapshot::build(&store, &crate::Settings::new(Arc::default(), "Kubernetes"));
        let id = "sidecar~10.1.1.1~c.default~default.svc.cluster.local".into();
        let proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
        let view = View::new(&snapshot, &proxy);
        check(Scope::new(&snapshot, &proxy, &view), &snapshot.services[0])
    }

    #[test]
    fn subsets_go_before_ports_before_the_rule() {
        with(|scope, service| {
            let by = |port, subset| {
                let made = http(scope, service, port, subset);
                made.into_iter().next().and_then(|policy| policy.policy_specifier)
            };
            assert!(
                matches!(by(Some(80), "v1"), Some(PolicySpecifier::Header(header)) if header.header_name == "x")
            );
            assert!(matches!(by(Some(80), "v2"), Some(PolicySpecifier::QueryParameter(_))));
            assert!(matches!(by(Some(80), ""), Some(PolicySpecifier::QueryParameter(_))));
            assert!(matches!(by(None, ""), Some(PolicySpecifier::ConnectionProperties(_))));
        });
    }

    #[test]
    fn tcp_connections_are_bounded_hashed_and_tunneled() {
        with(|scope, service| {
            let made = |subset| {
                let mut proxy = TcpProxy::default();
                tcp(scope, service, subset, &mut proxy);
                proxy
            };
            let all = made("");
            assert_eq!(all.idle_timeout.map(|time| time.seconds), Some(0));
            assert_eq!(all.max_downstream_connection_duration.map(|time| time.seconds), Some(3));
            assert_eq!(all.hash_policy.len(), 1);
            let tunnel = all.tunneling_config.unwrap();
            assert_eq!((tunnel.hostname.as_str(), tunnel.use_post), ("[::1]:443", true));
            // A subset has its own way to hash, and a tunnel only if it says so.
            assert!(made("v1").hash_policy.is_empty() && made("v1").tunneling_config.is_none());
            assert_eq!(made("v2").hash_policy.len(), 1);
        });
    }
}
