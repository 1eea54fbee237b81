//! The names that a proxy's agent answers DNS requests from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::kube::TargetPort;
use proto::istio::networking::nds::v1::NameTable;
use proto::istio::networking::nds::v1::name_table::{NameInfo, Port as NamePort};

use crate::protocol::Protocol;
use crate::proxy::Proxy;
use crate::scope::Scope;
use crate::snapshot::{Port, Service};

/// Registry of the names that the agent knows shorter forms of.
const KUBERNETES: &str = "Kubernetes";

/// The hosts that the proxy's workload may call, with their addresses.
pub(super) fn name_table(scope: Scope<'_>) -> NameTable {
    let mut table = BTreeMap::new();
    for service in scope.services() {
        let ips = if service.is_headless { of_endpoints(service) } else { of_service(service, scope.proxy) };
        if ips.is_empty() {
            continue;
        }
        table.insert(service.host.as_str().to_owned(), info(service, service.name.clone(), ips));
        if service.is_headless {
            for (hostname, ips) in of_pods(service) {
                let host = format!("{hostname}.{}", service.host.as_str());
                table.insert(host, info(service, format!("{hostname}.{}", service.name), ips));
            }
        }
    }
    NameTable { table }
}

fn info(service: &Service, shortname: String, ips: Vec<String>) -> NameInfo {
    NameInfo {
        ips,
        registry: KUBERNETES.into(),
        shortname,
        namespace: service.namespace.clone(),
        alt_hosts: Vec::new(),
        ports: service.ports.iter().map(|port| name_port(service, port)).collect(),
    }
}

/// The service's addresses of the families that the proxy has; all of them when
/// it has none of those.
fn of_service(service: &Service, proxy: &Proxy) -> Vec<String> {
    let can_use = |address: &&String| {
        address.parse::<IpAddr>().is_ok_and(|ip| proxy.ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4()))
    };
    let usable: Vec<String> = service.addresses.iter().filter(can_use).cloned().collect();
    if usable.is_empty() { service.addresses.clone() } else { usable }
}

/// Addresses of a headless service: those of its endpoints.
fn of_endpoints(service: &Service) -> Vec<String> {
    let mut ips: Vec<String> = Vec::new();
    for endpoint in &service.endpoints {
        if !ips.contains(&endpoint.address) {
            ips.push(endpoint.address.clone());
        }
    }
    ips
}

/// Addresses of its pods that have a name within it.
fn of_pods(service: &Service) -> BTreeMap<&str, Vec<String>> {
    let mut pods: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for endpoint in service.endpoints.iter().filter(|endpoint| !endpoint.hostname.is_empty()) {
        let ips = pods.entry(&endpoint.hostname).or_default();
        if !ips.contains(&endpoint.address) {
            ips.push(endpoint.address.clone());
        }
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

    use config::{Store, yaml};
    use proto::envoy::config::core::v3::Node;

    use super::*;
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
- {addresses: [10.1.0.1], hostname: db-0}
- {addresses: [10.1.0.2], hostname: db-1}
- {addresses: [10.1.0.3]}
- {addresses: [10.1.0.4], hostname: db-3, conditions: {ready: false}}
ports: [{name: sql, port: 15432}]
";

    fn table(ip: &str) -> BTreeMap<String, NameInfo> {
        let contents = yaml::read("mesh.yaml", OBJECTS);
        assert!(!contents.has_errors(), "{:?}", contents.problems);
        let mut store = Store::default();
        for object in contents.objects {
            store.apply(Arc::new(object));
        }
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
