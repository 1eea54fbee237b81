//! Recorded meshes: objects, settings and a proxy each.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::{fs, mem};

use config::Store;
use config::yaml::Contents;
use mesh::MeshConfig;
use pilot::{Proxy, ProxyKind, Settings};
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::reflect;
use serde_json::Value;

/// One mesh.
#[derive(Clone, Debug)]
pub struct World {
    /// Name of the case.
    pub name: String,
    /// Its objects, as JSON.
    pub objects: Vec<Value>,
    /// Settings.
    pub settings: Settings,
    /// Who asks.
    pub proxy: Proxy,
}

impl World {
    /// The objects as `read` finds them.
    pub fn store(&self, read: fn(&str, &str) -> Contents) -> Store {
        let text: Vec<String> = self.objects.iter().map(Value::to_string).collect();
        let mut store = Store::default();
        for object in read("fuzz.yaml", &text.join("\n---\n")).objects {
            store.apply(Arc::new(object));
        }
        store
    }

    /// A proxy of the other kind in the same place.
    #[must_use]
    pub fn other_proxy(&self) -> Proxy {
        let kind = match self.proxy.kind {
            ProxyKind::Sidecar => ProxyKind::Router,
            ProxyKind::Router => ProxyKind::Sidecar,
        };
        Proxy { kind, ..self.proxy.clone() }
    }
}

/// All recorded meshes of the project.
pub fn worlds() -> &'static [World] {
    static WORLDS: LazyLock<Vec<World>> = LazyLock::new(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/oracle/xds");
        let mut cases: Vec<_> =
            fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        cases.sort();
        cases.iter().filter_map(|case| read(case)).collect()
    });
    &WORLDS
}

fn read(case: &Path) -> Option<World> {
    let text = fs::read_to_string(case.join("input.yaml")).ok()?;
    let objects = text.split("\n---").filter_map(|part| serde_saphyr::from_str::<Value>(part).ok());
    let objects = objects.filter(|object| !object.is_null()).collect();
    let mesh = fs::read_to_string(case.join("mesh.yaml")).unwrap_or_default();
    let mesh = MeshConfig::from_yaml(&mesh).ok()?;
    let mut node: Value = serde_json::from_str(&fs::read_to_string(case.join("proxy.json")).ok()?).ok()?;
    let node = reflect::from_json("envoy.config.core.v3.Node", mem::take(&mut node)).ok()?;
    Some(World {
        name: case.file_name()?.to_string_lossy().into_owned(),
        objects,
        settings: Settings::new(Arc::new(mesh), "Kubernetes"),
        proxy: Proxy::from_node(&Node::decode(node.as_slice()).ok()?).ok()?,
    })
}
