//! Whether stock Envoy takes what we generate: all of a proxy's resources, put
//! into one bootstrap that Envoy checks as if it started with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use names::TypeUrl;
use pilot::{Proxy, Snapshot};
use prost::Message;
use proto::Any;
use proto::envoy::config::bootstrap::v3::Bootstrap;
use proto::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use proto::envoy::config::core::v3::api_config_source::ApiType;
use proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::envoy::config::core::v3::{
    Address, ApiConfigSource, ApiVersion, GrpcService, Node, Pipe, address,
};
use proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use proto::envoy::config::listener::v3::filter::ConfigType;
use proto::envoy::config::listener::v3::{FilterChain, Listener};
use proto::envoy::config::route::v3::RouteConfiguration;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use xds::session::Wanted;

/// Asks Envoy whether it would start with all that a proxy gets.
///
/// # Errors
/// With Envoy's words when it would not, or when it cannot be asked.
pub fn check(snapshot: &Snapshot, proxy: &Proxy, envoy: &Path, scratch: &Path) -> anyhow::Result<()> {
    let file = scratch.join("bootstrap.pb");
    fs::write(&file, bootstrap(snapshot, proxy)?.encode_to_vec())?;
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "error", "--concurrency", "1", "-c"])
        .arg(&file)
        .output()
        .with_context(|| format!("run {}", envoy.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    bail!("Envoy refuses it: {}", told.lines().take(6).collect::<Vec<_>>().join("\n    "))
}

/// A bootstrap with everything in place that otherwise comes by xDS.
///
/// # Errors
/// When a resource is not what its type says.
pub fn bootstrap(snapshot: &Snapshot, proxy: &Proxy) -> anyhow::Result<Bootstrap> {
    let mut clusters: Vec<Cluster> = of_type(snapshot, proxy, &TypeUrl::Cluster, &Wanted::All)?;
    let by_eds = |cluster: &&mut Cluster| cluster.eds_cluster_config.is_some();
    for cluster in clusters.iter_mut().filter(by_eds) {
        let wanted = Wanted::Names(BTreeSet::from([Arc::from(cluster.name.as_str())]));
        let mut found: Vec<ClusterLoadAssignment> = of_type(snapshot, proxy, &TypeUrl::Endpoint, &wanted)?;
        cluster.eds_cluster_config = None;
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
        cluster.load_assignment = found.pop();
    }
    let mut listeners: Vec<Listener> = of_type(snapshot, proxy, &TypeUrl::Listener, &Wanted::All)?;
    let names = route_names(&mut listeners)?;
    let routes: Vec<RouteConfiguration> =
        of_type(snapshot, proxy, &TypeUrl::Route, &Wanted::Names(names.clone()))?;
    let routes: BTreeMap<String, RouteConfiguration> =
        routes.into_iter().map(|routes| (routes.name.clone(), routes)).collect();
    if let Some(missing) = names.iter().find(|name| !routes.contains_key(&***name)) {
        bail!("a listener names the routes {missing}, which do not exist");
    }
    for chain in listeners.iter_mut().flat_map(chains) {
        each_manager(chain, &mut |manager| {
            if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
                let found = routes.get(&rds.route_config_name).cloned();
                manager.route_specifier = found.map(RouteSpecifier::RouteConfig);
            }
        })?;
    }
    clusters.extend(["xds-grpc", "sds-grpc"].map(socket));
    Ok(Bootstrap {
        node: Some(Node { id: proxy.id.to_string(), cluster: "test".into(), ..Node::default() }),
        static_resources: Some(StaticResources { clusters, listeners, ..StaticResources::default() }),
        dynamic_resources: Some(DynamicResources { ads_config: Some(ads()), ..DynamicResources::default() }),
        ..Bootstrap::default()
    })
}

/// Names of the route configurations that listeners ask for.
///
/// # Errors
/// When a connection manager is none.
pub fn route_names(listeners: &mut [Listener]) -> anyhow::Result<BTreeSet<Arc<str>>> {
    let mut names = BTreeSet::new();
    for chain in listeners.iter_mut().flat_map(chains) {
        each_manager(chain, &mut |manager| {
            if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
                names.insert(Arc::<str>::from(rds.route_config_name.as_str()));
            }
        })?;
    }
    Ok(names)
}

/// The decoded resources of a type.
///
/// # Errors
/// When one is not what its type says.
pub fn of_type<M: Message + Default>(
    snapshot: &Snapshot,
    proxy: &Proxy,
    type_url: &TypeUrl,
    wanted: &Wanted,
) -> anyhow::Result<Vec<M>> {
    pilot::generate(snapshot, proxy, type_url, wanted)
        .into_iter()
        .map(|resource| {
            M::decode(resource.body.clone())
                .with_context(|| format!("{} {}", type_url.short(), resource.name))
        })
        .collect()
}

fn chains(listener: &mut Listener) -> impl Iterator<Item = &mut FilterChain> {
    listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain)
}

/// Lets `change` at every HTTP connection manager of a chain.
fn each_manager(
    chain: &mut FilterChain,
    change: &mut dyn FnMut(&mut HttpConnectionManager),
) -> anyhow::Result<()> {
    for filter in &mut chain.filters {
        let Some(ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
        if config.is::<HttpConnectionManager>() {
            let mut manager: HttpConnectionManager = config.unpack()?;
            change(&mut manager);
            *config = Any::pack(&manager);
        }
    }
    Ok(())
}

/// A cluster of the bootstrap, which leads to a socket of the agent.
fn socket(name: &str) -> Cluster {
    let pipe = Pipe { path: format!("/{name}"), ..Pipe::default() };
    let endpoint = Endpoint {
        address: Some(Address { address: Some(address::Address::Pipe(pipe)) }),
        ..Endpoint::default()
    };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![endpoint],
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    }
}

fn ads() -> ApiConfigSource {
    let agent = EnvoyGrpc { cluster_name: "xds-grpc".into(), ..EnvoyGrpc::default() };
    ApiConfigSource {
        api_type: ApiType::DeltaGrpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(agent)),
            ..GrpcService::default()
        }],
        ..ApiConfigSource::default()
    }
}
