//! Services and endpoints as the registry has them: `/debug/registryz` and
//! `/debug/endpointShardz`.

use pilot::Snapshot;
use pilot::protocol::Protocol;
use pilot::snapshot::endpoint::{Endpoint, Health};
use pilot::snapshot::service::TrafficDistribution;
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
    let cluster_id = &*snapshot.settings.cluster_id;
    for service in &snapshot.services {
        // A set, as Go writes it.
        let accounts: Map<String, Value> = service
            .endpoints
            .iter()
            .filter(|endpoint| !endpoint.service_account.is_empty())
            .map(|endpoint| (endpoint.service_account.clone(), json!({})))
            .collect();
        let endpoints: Vec<Value> = service
            .endpoints
            .by_port()
            .flat_map(|(port, list)| list.iter().map(move |endpoint| of_endpoint(port, endpoint, cluster_id)))
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
        Resolution::DynamicDns => 5,
    };
    let export_to = service.visibility.namespaces();
    let export_to = export_to.map_or_else(|| vec!["*"], |list| list.iter().map(String::as_str).collect());
    let mut page = json!({
        "Attributes": {
            "ServiceRegistry": registry(service),
            "Name": service.name,
            "Namespace": service.namespace,
            "Labels": service.labels,
            "ExportTo": export_to.into_iter().map(|name| (name.to_owned(), json!({}))).collect::<Map<_, _>>(),
            "LabelSelectors": service.selector,
            "Visibility": 0,
            "Aliases": service.aliases.iter().map(|host| alias(host.as_str())).collect::<Vec<_>>(),
            "ClusterExternalAddresses": { "Addresses": null },
            "ClusterExternalPorts": null,
            "PassthroughTargetPorts": null,
            "Type": "",
            "ExternalName": "",
            "NodeLocal": service.is_node_local,
            "TrafficDistribution": match service.traffic_distribution {
                TrafficDistribution::Any => 0,
                TrafficDistribution::SameZone => 1,
                TrafficDistribution::SameNode => 2,
            },
            "ObjectName": service.object_name,
            "DNSConnectStrategy": i32::from(service.races_connections),
            "PublishNotReadyAddresses": service.publishes_not_ready,
        },
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "creationTime": service.created.as_deref().unwrap_or("0001-01-01T00:00:00Z"),
        "hostname": service.host.as_str(),
        "clusterVIPs": { "Addresses": { cluster_id: service.addresses } },
        "defaultAddress": service.addresses.first().map_or("0.0.0.0", String::as_str),
        "Resolution": resolution,
        "MeshExternal": service.is_external,
        "ResourceVersion": "",
    });
    let auto = service.auto_addresses;
    let auto = [
        ("autoAllocatedIPv4Address", auto.v4.map(|ip| ip.to_string())),
        ("autoAllocatedIPv6Address", auto.v6.map(|ip| ip.to_string())),
    ];
    for (name, address) in auto {
        if let Some(address) = address {
            page[name] = address.into();
        }
    }
    page
}

/// A service of Kubernetes that stands for another one.
fn alias(host: &str) -> Value {
    let namespace = host.split('.').nth(1).unwrap_or_default();
    json!({ "Hostname": host, "Namespace": namespace })
}

/// `/debug/networkz`: gateways between networks.
#[must_use]
pub fn networks(snapshot: &Snapshot) -> Value {
    let gateways = snapshot.networks.all_gateways().map(|gateway| {
        json!({
            "Network": gateway.network,
            "Cluster": gateway.cluster,
            "Addr": gateway.address.to_string(),
            "Port": gateway.port,
            "HBONEPort": 0,
            "ServiceAccount": { "Namespace": "", "Name": "" },
        })
    });
    gateways.collect()
}

/// A port of a service as these pages show it.
#[must_use]
pub fn port(port: &Port) -> Value {
    json!({ "name": port.name, "port": port.number, "protocol": protocol(port.protocol) })
}

/// The same with the workload's port that it leads to.
#[must_use]
pub fn target(port: &Port, target: u16) -> Value {
    let protocol = protocol(port.protocol);
    json!({ "name": port.name, "port": port.number, "protocol": protocol, "TargetPort": target })
}

/// Istio's word for a protocol.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP2",
        Protocol::Grpc => "GRPC",
        Protocol::GrpcWeb => "GRPC-Web",
        Protocol::HttpProxy => "HTTP_PROXY",
        Protocol::Https => "HTTPS",
        Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
        Protocol::Mongo => "Mongo",
        Protocol::MySql => "MySQL",
        Protocol::Redis => "Redis",
        Protocol::Udp => "UDP",
        Protocol::Auto => "UnsupportedProtocol",
    }
}

fn registry(service: &Service) -> &'static str {
    match service.registry {
        Registry::Kubernetes => "Kubernetes",
        Registry::External => "External",
    }
}

fn of_endpoint(port: &str, endpoint: &Endpoint, cluster_id: &str) -> Value {
    let (host_name, sub_domain) = endpoint.dns_name.split_once('.').unwrap_or((&endpoint.dns_name, ""));
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
        "LegacyClusterPortKey": endpoint.service_port,
        "Locality": { "Label": label.trim_end_matches('/'), "ClusterID": cluster_id },
        "EndpointPort": endpoint.port,
        "LbWeight": endpoint.weight,
        "TLSMode": if endpoint.accepts_mtls { "istio" } else { "disabled" },
        "Namespace": endpoint.namespace,
        "WorkloadName": endpoint.name,
        "HealthStatus": health,
        "HostName": host_name,
        "SubDomain": sub_domain,
        "SendUnhealthyEndpoints": false,
        "NodeName": endpoint.node_name,
    })
}
