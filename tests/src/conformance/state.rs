//! What is served: named resources by type, each type with its version.

use std::collections::BTreeMap;

use bytes::Bytes;
use names::TypeUrl;
use prost::Message;
use proto::Any;
use xds::Resource;
use xds::session::Wanted;

/// A configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    types: BTreeMap<TypeUrl, Type>,
}

#[derive(Clone, Debug, Default)]
struct Type {
    version: String,
    resources: BTreeMap<String, Resource>,
}

/// All of Envoy's resources have their name in the first field.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl State {
    /// Those resources, all of one version.
    pub(super) fn new(resources: &[Any], version: &str) -> Self {
        let mut state = Self::default();
        for any in resources {
            let name = Named::decode(any.value.clone()).unwrap_or_default().name;
            state.set(any.type_url.as_str().into(), &name, version);
        }
        state
    }

    /// Adds a resource, or changes it.
    pub(super) fn set(&mut self, type_url: TypeUrl, name: &str, version: &str) {
        let body = Bytes::from(Named { name: name.to_owned() }.encode_to_vec());
        // Only the name is in it, so the version tells whether it has changed.
        let number = Resource::from_bytes(name, Bytes::from(format!("{name} {version}"))).version;
        let resource = Resource { version: number, ..Resource::from_bytes(name, body) };
        let known = self.types.entry(type_url).or_default();
        known.version = version.to_owned();
        known.resources.insert(name.to_owned(), resource);
    }

    /// Removes a resource.
    pub(super) fn remove(&mut self, type_url: TypeUrl, name: &str, version: &str) {
        let known = self.types.entry(type_url).or_default();
        known.version = version.to_owned();
        known.resources.remove(name);
    }

    /// Version of a type.
    pub(super) fn version(&self, type_url: &TypeUrl) -> &str {
        self.types.get(type_url).map_or("", |known| &known.version)
    }

    /// Those that exist of the wanted ones.
    pub(super) fn resources(&self, type_url: &TypeUrl, wanted: &Wanted) -> Vec<Resource> {
        let all = self.types.get(type_url).into_iter().flat_map(|known| known.resources.values());
        let is_wanted = |resource: &&Resource| match wanted {
            Wanted::All => true,
            Wanted::Names(names) => names.contains(&resource.name),
        };
        all.filter(is_wanted).cloned().collect()
    }
}
