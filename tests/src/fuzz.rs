//! Input that nobody wrote on purpose: one function for each reader of foreign
//! bytes in the control plane. `fuzz/` runs them under libFuzzer; the tests here
//! run each over some hundred inputs that are made from good ones.
//!
//! A target may refuse its input; it must not panic.

pub mod mutate;
pub mod parsers;
mod seeds;
mod world;

use std::time::UNIX_EPOCH;

use mesh::MeshConfig;
use names::TypeUrl;
use pilot::{Proxy, Snapshot};
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds::session::Wanted;
use xds::{Session, Variant, wire};

pub use world::{World, worlds};

/// What takes foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name in `fuzz/`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs that it does not refuse; none where any bytes will do.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("yaml", yaml, seeds::objects),
    target("mesh_config", mesh_config, seeds::mesh_configs),
    target("node", node, seeds::nodes),
    target("discovery_request", discovery_request, seeds::requests),
    target("translate", translate, Vec::new),
    target("jwks", parsers::jwks, seeds::key_sets),
    target("patch", parsers::patch, seeds::patches),
    target("names", parsers::names, seeds::names),
    target("certificates", parsers::certificates, seeds::certificates),
    target("frames", parsers::frames, seeds::frames),
    target("settings", parsers::settings, seeds::settings),
    target("expressions", parsers::expressions, seeds::expressions),
];

/// A file of objects.
pub fn yaml(data: &[u8]) {
    let _ = config::yaml::read("fuzz.yaml", &String::from_utf8_lossy(data));
}

/// Settings of the mesh.
pub fn mesh_config(data: &[u8]) {
    let _ = MeshConfig::from_yaml(&String::from_utf8_lossy(data));
}

/// The node message of a proxy.
pub fn node(data: &[u8]) {
    if let Ok(node) = Node::decode(data) {
        let _ = Proxy::from_node(&node);
    }
}

/// Requests of a stream, one after the other, each led by its length in one byte.
pub fn discovery_request(data: &[u8]) {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let mut rest = data;
        while let Some((length, tail)) = rest.split_first() {
            let (request, tail) = tail.split_at(usize::from(*length).min(tail.len()));
            rest = tail;
            let request = match variant {
                Variant::Sotw => DiscoveryRequest::decode(request).ok().map(wire::from_sotw),
                Variant::Delta => DeltaDiscoveryRequest::decode(request).ok().map(wire::from_delta),
            };
            let Some(request) = request else { continue };
            let Ok(reaction) = session.request(&request, UNIX_EPOCH) else { return };
            if let Some(wanted) = reaction.respond {
                let _ = session.respond(&request.type_url, &wanted, Vec::new(), "v", UNIX_EPOCH);
            }
            let _ = session.settle("v", UNIX_EPOCH);
        }
    }
}

/// Objects of a recorded mesh, changed at random and not checked, and what two
/// proxies get of them.
pub fn translate(data: &[u8]) {
    let world = mutate::world(data);
    let store = world.store(config::yaml::read_unchecked);
    let snapshot = Snapshot::build(&store, &world.settings);
    for proxy in [&world.proxy, &world.other_proxy()] {
        generate_all(&snapshot, proxy);
    }
}

/// Everything that a proxy can ask for.
fn generate_all(snapshot: &Snapshot, proxy: &Proxy) {
    for type_url in [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::NameTable] {
        let _ = pilot::generate(snapshot, proxy, &type_url, &Wanted::All);
    }
    let _ = crate::oracle::accept::bootstrap(snapshot, proxy);
}

#[cfg(test)]
mod tests;
