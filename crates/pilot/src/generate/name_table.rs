//! The names that a proxy's agent answers DNS requests from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::kube::TargetPort;
use proto::istio::networking::nds::v1::NameTable;
use proto::istio::networking::nds::v1::name_table::{NameInfo, Port as NamePort};

use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::endpoint::Health;
use crate::snapshot::{Endpoint, Port, Registry, Resolution, Service};

/// Registry of the names that the agent knows shorter forms of.
const KUBERNETES: &str = "Kubernetes";
/// Registry of all other names.
const EXTERNAL: &str = "External";

/// The hosts that the proxy's workload may call, with their addresses. Of one
/// host in several ServiceEntries the addresses are put together; a service of
/// Kubernetes keeps its name to itself.
pub(super) fn name_table(scope: Scope<'_>) -> NameTable {
    let mut table: BTreeMap<String, NameInfo> = BTreeMap::new();
    for service in scope.view.egress.iter().flat_map(|egress| &egress.services) {
        let mut ips = of_service(scope, service);
        if service.addresses.is_empty() && ips.is_empty() && service.resolution == Resolution::Passthrough {
            for (name, ips) in of_pods(scope, service) {
                let Some((_, domain)) = service.host.as_str().split_once('.') else { continue };
                table.insert(format!("{name}.{domain}"), info(service, name, ips));
            }
            ips = of_endpoints(scope, service);
        }
        if ips.is_empty() {
            continue;
        }
        let made = info(service, service.name.clone(), ips);
        match table.get_mut(service.host.as_str()) {
            None => {
                table.insert(service.host.as_str().to_owned(), made);
            }
            Some(known) if known.registry == KUBERNETES => {}
            Some(known) if service.registry == Registry::Kubernetes => *known = made,
            Some(known) => {
                let new = made.ips.into_iter().filter(|ip| !known.ips.contains(ip)).collect::<Vec<_>>();
                known.ips.extend(new);
                let is_new = |port: &NamePort| !known.ports.iter().any(|own| own.number == port.number);
                let new = made.ports.into_iter().filter(is_new).collect::<Vec<_>>();
                known.ports.extend(new);
            }
        }
    }
    NameTable { table }
}

fn info(service: &Service, shortname: String, ips: Vec<String>) -> NameInfo {
    let is_kubernetes = service.registry == Registry::Kubernetes;
    NameInfo {
        ips,
        registry: if is_kubernetes { KUBERNETES } else { EXTERNAL }.into(),
        shortname: if is_kubernetes { shortname } else { String::new() },
        namespace: if is_kubernetes { service.namespace.clone() } else { String::new() },
        alt_hosts: Vec::new(),
        ports: service.ports.iter().map(|port| name_port(service, port)).collect(),
    }
}

/// The service's addresses that the proxy can use; ranges are no answer.
fn of_service(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let mut ips = service.addresses_for(scope.proxy);
    ips.retain(|address| address.parse::<IpAddr>().is_ok());
    ips
}

/// Endpoints that clients may choose by their address: those of the proxy's own
/// network that are ready, or all where the service says so.
fn chosen<'a>(scope: Scope<'a>, service: &'a Service) -> impl Iterator<Item = &'a Endpoint> {
    let network = scope.proxy.network.as_str();
    service.endpoints.iter().filter(move |endpoint| {
        let is_near = network.is_empty() || endpoint.network.is_empty() || endpoint.network == network;
        endpoint.ip().is_some()
            && (endpoint.health == Health::Healthy || service.publishes_not_ready)
            && is_near
    })
}

fn add(ips: &mut Vec<String>, endpoint: &Endpoint) {
    for address in std::iter::once(&endpoint.address).chain(&endpoint.more_addresses) {
        if !ips.iter().any(|known| **known == **address) {
            ips.push((**address).to_owned());
        }
    }
}

/// Addresses of a headless service: those of its endpoints.
fn of_endpoints(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let mut ips = Vec::new();
    chosen(scope, service).for_each(|endpoint| add(&mut ips, endpoint));
    ips
}

/// Addresses of its pods that have a name within it, `HOSTNAME.SUBDOMAIN`.
fn of_pods(scope: Scope<'_>, service: &Service) -> BTreeMap<String, Vec<String>> {
    let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for endpoint in chosen(scope, service).filter(|endpoint| !endpoint.dns_name.is_empty()) {
        add(pods.entry(endpoint.dns_name.clone()).or_default(), endpoint);
    }
    pods
}

/// A port as clients use it: nothing stands between them and the endpoints of a
/// headless service, so there it is the endpoints' own.
fn name_port(service: &Service, port: &Port) -> NamePort {
    let target = match &port.target {
        TargetPort::Number(number) if *number > 0 => *number,
        _ => port.number,
    };
    let number = if service.is_headless {
        service.endpoints_of(port).next().map_or(target, |endpoint| endpoint.port)
    } else {
        port.number
    };
    let protocol = if port.protocol == Protocol::Udp { "UDP" } else { "TCP" };
    NamePort { name: port.name.clone(), number: number.into(), protocol: protocol.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::envoy::config::core::v3::Node;

    use super::*;
    use crate::proxy::Proxy;
    use crate::scope::View;
    use crate::snapshot::Snapshot;

    const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1, 'fd00::1']
  ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  clusterIP: None
  ports: [{name: sql, port: 5432, targetPort: sql}]
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: shop, annotations: {networking.istio.io/exportTo: .}}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: db-0, namespace: shop}}
- {addresses: [10.1.0.2], hostname: db-1}
- {addresses: [10.1.0.3]}
- {addresses: [10.1.0.4], hostname: db-3, conditions: {ready: false}}
ports: [{name: sql, port: 15432}]
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop}
spec: {subdomain: db}
status: {podIP: 10.1.0.1}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vips, namespace: shop}
spec:
  hosts: [vips.example.com]
  addresses: [10.9.0.1, 10.9.0.2, 10.8.0.0/16]
  ports: [{name: tcp, number: 80, protocol: TCP}]
  resolution: STATIC
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: auto, namespace: shop}
spec:
  hosts: [auto.example.com]
  ports: [{name: tcp, number: 80, protocol: TCP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: squatter, namespace: shop}
spec:
  hosts: [web.shop.svc.cluster.local]
  addresses: [10.9.0.9]
  ports: [{name: tcp, number: 80, protocol: TCP}]
  resolution: STATIC
";

    fn table(ip: &str) -> BTreeMap<String, NameInfo> {
        let store = crate::testing::store(OBJECTS);
        let snapshot = Snapshot::build(&store, &crate::Settings::new(Arc::default(), "Kubernetes"));
        let id = format!("sidecar~{ip}~b.default~default.svc.cluster.local");
        let proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
        name_table(Scope::new(&snapshot, &proxy, &View::new(&snapshot, &proxy))).table
    }

    #[test]
    fn a_service_has_its_addresses_of_the_proxys_families() {
        let web = &table("10.1.1.1")["web.shop.svc.cluster.local"];
        assert_eq!(web.ips, ["10.0.0.1"]);
        assert_eq!((web.shortname.as_str(), web.namespace.as_str()), ("web", "shop"));
        assert_eq!(web.registry, "Kubernetes");
        let ports: Vec<_> =
            web.ports.iter().map(|port| (port.name.as_str(), port.number, port.protocol.as_str())).collect();
        assert_eq!(ports, [("http", 80, "TCP"), ("dns", 53, "UDP")]);
        assert_eq!(table("fd00::9")["web.shop.svc.cluster.local"].ips, ["fd00::1"]);
    }

    #[test]
    fn a_headless_service_has_those_of_its_ready_endpoints_and_names_its_pods() {
        let table = table("10.1.1.1");
        let db = &table["db.shop.svc.cluster.local"];
        assert_eq!(db.ips, ["10.1.0.1", "10.1.0.2", "10.1.0.3"]);
        assert_eq!(db.ports[0].number, 15432);
        let pod = &table["db-1.db.shop.svc.cluster.local"];
        assert_eq!((pod.ips.as_slice(), pod.shortname.as_str()), (&["10.1.0.2".to_owned()][..], "db-1.db"));
        assert!(!table.contains_key("db-3.db.shop.svc.cluster.local"));
    }

    #[test]
    fn what_the_proxy_does_not_see_and_what_has_no_address_is_left_out() {
        let names: Vec<String> = table("10.1.1.1").into_keys().collect();
        assert!(
            !names.iter().any(|name| name.starts_with("hidden") || name.starts_with("empty")),
            "{names:?}"
        );
    }
}
