//! Services and endpoints as the registry has them: `/debug/registryz` and
//! `/debug/endpointShardz`.

use std::collections::BTreeSet;

use pilot::Snapshot;
use pilot::snapshot::endpoint::{Endpoint, Health};
use pilot::snapshot::{Port, Registry, Resolution, Service};
use serde_json::{Map, Value, json};

/// `/debug/registryz`: all services.
#[must_use]
pub fn services(snapshot: &Snapshot) -> Value {
    snapshot.services.iter().map(|service| of_service(service, &snapshot.settings.cluster_id)).collect()
}

/// `/debug/endpointShardz`: endpoints by host, namespace and registry.
#[must_use]
pub fn endpoints(snapshot: &Snapshot) -> Value {
    let mut hosts: Map<String, Value> = Map::new();
    for service in &snapshot.services {
        let accounts: BTreeSet<&str> = service
            .endpoints
            .iter()
            .map(|endpoint| endpoint.service_account.as_str())
            .filter(|account| !account.is_empty())
            .collect();
        let endpoints: Vec<Value> = service
            .endpoints
            .by_port()
            .flat_map(|(port, list)| list.iter().map(move |endpoint| of_endpoint(port, endpoint)))
            .collect();
        if endpoints.is_empty() {
            continue;
        }
        let shard = format!("{}/{}", registry(service), snapshot.settings.cluster_id);
        let shards = json!({ "Shards": { shard: endpoints }, "ServiceAccounts": accounts });
        let host = hosts.entry(service.host.as_str()).or_insert_with(|| Value::Object(Map::new()));
        host[service.namespace.as_str()] = shards;
    }
    hosts.into()
}

/// A service as these pages show it.
#[must_use]
pub fn of_service(service: &Service, cluster_id: &str) -> Value {
    let resolution = match service.resolution {
        Resolution::Endpoints => 0,
        Resolution::Dns => 1,
        Resolution::Passthrough => 2,
        Resolution::DnsRoundRobin => 3,
        Resolution::DynamicDns => 6,
    };
    let export_to = service.visibility.namespaces();
    let export_to = export_to.map_or_else(|| vec!["*"], |list| list.iter().map(String::as_str).collect());
    json!({
        "Attributes": {
            "ServiceRegistry": registry(service),
            "Name": service.name,
            "Namespace": service.namespace,
            "Labels": service.labels,
            "ExportTo": export_to.into_iter().map(|name| (name.to_owned(), json!({}))).collect::<Map<_, _>>(),
            "LabelSelectors": service.selector,
            "Aliases": service.aliases.iter().map(|host| json!({ "Hostname": host.as_str() })).collect::<Vec<_>>(),
        },
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "creationTime": service.created,
        "hostname": service.host.as_str(),
        "clusterVIPs": { "Addresses": { cluster_id: service.addresses } },
        "defaultAddress": service.addresses.first().map_or("0.0.0.0", String::as_str),
        "Resolution": resolution,
        "MeshExternal": service.is_external,
    })
}

/// A port of a service as these pages show it.
#[must_use]
pub fn port(port: &Port) -> Value {
    json!({ "name": port.name, "port": port.number, "protocol": format!("{:?}", port.protocol).to_ascii_uppercase() })
}

fn registry(service: &Service) -> &'static str {
    match service.registry {
        Registry::Kubernetes => "Kubernetes",
        Registry::External => "External",
    }
}

fn of_endpoint(port: &str, endpoint: &Endpoint) -> Value {
    let health = match endpoint.health {
        Health::Unknown | Health::Healthy => 1,
        Health::Unhealthy => 2,
        Health::Draining => 3,
        Health::Terminating => 4,
    };
    let locality = &endpoint.locality;
    let label = [&locality.region, &locality.zone, &locality.sub_zone].map(String::as_str).join("/");
    let mut addresses = vec![&*endpoint.address];
    addresses.extend(endpoint.more_addresses.iter().map(|address| &**address));
    json!({
        "Labels": *endpoint.labels,
        "Addresses": addresses,
        "ServicePortName": port,
        "ServiceAccount": endpoint.service_account,
        "Network": endpoint.network,
        "Locality": { "Label": label.trim_end_matches('/') },
        "EndpointPort": endpoint.port,
        "LbWeight": endpoint.weight,
        "TLSMode": if endpoint.accepts_mtls { "istio" } else { "disabled" },
        "Namespace": endpoint.namespace,
        "WorkloadName": endpoint.name,
        "HealthStatus": health,
        "NodeName": endpoint.node_name,
    })
}
