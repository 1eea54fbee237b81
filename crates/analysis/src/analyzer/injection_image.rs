//! Sidecars of another version than the injector would give today.

use std::collections::{BTreeMap, HashMap};

use proto::istio::networking::v1beta1::ProxyConfig;
use serde_json::Value;

use super::Report;
use super::mesh::{PROXY, injector};
use crate::labels::pairs;
use crate::message::list;
use crate::{Body, Code, Kind, Labels, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let images = images(world);
    if images.is_empty() {
        return;
    }
    let types = Types::new(world);
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (one, spec) in world.pods() {
        let Some(labels) = world.namespace_labels(&one.namespace) else { continue };
        let Some(revision) = revision(labels) else { continue };
        // A user's own image is on purpose.
        if one.annotations.get(names::annotation::PROXY_IMAGE).is_some_and(|image| !image.is_empty()) {
            continue;
        }
        let Some(image) = images.get(&injector(revision)) else { continue };
        let containers = spec.containers.iter().chain(&spec.init_containers);
        for container in containers.filter(|container| *container.name == *PROXY) {
            let is_it =
                *container.image == **image || *container.image == format!("{image}-{}", types.of(one));
            if !is_it {
                others.entry(&one.namespace).or_default().push(&one.name);
            }
        }
    }
    for (namespace, mut pods) in others {
        pods.sort_unstable();
        if let Some(one) = world.find(Kind::Namespace, "", namespace) {
            report.add(Code::PodsIstioProxyImageMismatchInNamespace, one, &[&list(&pods)]);
        }
    }
}

/// The revision whose injector is for a namespace.
fn revision(labels: &Labels) -> Option<&str> {
    let is_enabled = labels.get(names::label::INJECTION) == Some("enabled");
    labels.get(names::label::REVISION).or_else(|| is_enabled.then_some("default"))
}

/// The image of the sidecar by the ConfigMap of its injector.
fn images(world: &World) -> HashMap<String, String> {
    let maps = world.of(Kind::ConfigMap).filter(|one| one.name.starts_with(&injector("")));
    maps.filter_map(|one| {
        let Body::ConfigMap(data) = &one.body else { return None };
        let values: Value = serde_json::from_str(data.get("values")?).ok()?;
        let text = |at: &str| values.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let tag = values.pointer("/global/tag");
        let tag =
            tag.and_then(Value::as_str).map_or_else(|| tag.map(ToString::to_string), |tag| Some(tag.into()));
        let image = text("/global/proxy/image");
        let full = if image.contains('/') {
            image.to_owned()
        } else {
            format!("{}/{image}:{}", text("/global/hub"), tag.unwrap_or_default())
        };
        Some((one.name.to_string(), full))
    })
    .collect()
}

/// Variants of the image, as ProxyConfigs choose them.
struct Types<'a> {
    mesh: &'a str,
    root: String,
    namespaces: HashMap<&'a str, String>,
    workloads: HashMap<&'a str, Vec<ProxyConfig>>,
}

impl<'a> Types<'a> {
    fn new(world: &'a World) -> Self {
        let default = world.mesh.default_config.as_ref().and_then(|config| config.image.as_ref());
        let mut all = Self {
            mesh: default.map_or("", |image| &image.image_type),
            root: String::new(),
            namespaces: HashMap::new(),
            workloads: HashMap::new(),
        };
        for (one, config) in world.all::<ProxyConfig>(Kind::ProxyConfig) {
            if *one.namespace == *world.mesh.root_namespace {
                all.root = image_type(&config).to_owned();
            } else if config.selector.is_none() {
                all.namespaces.insert(&one.namespace, image_type(&config).to_owned());
            } else {
                all.workloads.entry(&one.namespace).or_default().push(config);
            }
        }
        all
    }

    fn of(&self, pod: &Resource) -> String {
        let own = self.workloads.get(&*pod.namespace).into_iter().flatten().filter(|config| {
            config.selector.as_ref().is_some_and(|wanted| pod.labels.fits(pairs(&wanted.match_labels)))
        });
        let annotation = pod.annotations.get(names::annotation::PROXY_CONFIG).and_then(|text| {
            let (config, _) = ::mesh::proxy_config::apply(&::mesh::proxy_config::defaults(), text).ok()?;
            Some(config.image?.image_type)
        });
        let namespace = self.namespaces.get(&*pod.namespace).map(String::as_str);
        let layers = [self.mesh, &*self.root].into_iter().chain(namespace).chain(own.map(image_type));
        let chosen = layers.filter(|layer| !layer.is_empty()).fold(None, |_, layer| Some(layer.to_owned()));
        match annotation.filter(|layer| !layer.is_empty()).or(chosen) {
            Some(name) if name != "default" => name,
            _ => String::new(),
        }
    }
}

fn image_type(config: &ProxyConfig) -> &str {
    config.image.as_ref().map_or("", |image| &image.image_type)
}
