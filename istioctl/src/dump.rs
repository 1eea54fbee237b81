//! What Envoy's admin pages `/config_dump` and `/clusters?format=json` say.
//!
//! A dump may have many megabytes. It is cut into resources that still are text
//! ([`Resource`]); each is read when it is looked at, as one of the [`view`]s or
//! as any type of serde that borrows. Names may be those of protobuf, as Envoy
//! writes them, or those of JSON, as istiod does.
//!
//! ```
//! use istioctl::dump::{ConfigDump, view};
//!
//! let text = r#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
//!     "dynamic_active_clusters": [{"version_info": "1", "cluster": {"name": "a", "type": "EDS"}}]}]}"#;
//! let dump = ConfigDump::parse(text)?;
//! for resource in dump.clusters()? {
//!     let cluster: view::Cluster<'_> = resource.read()?;
//!     assert_eq!((&*cluster.name, cluster.kind()), ("a", "EDS"));
//! }
//! # Ok::<(), istioctl::dump::Error>(())
//! ```

pub mod certificate;
pub mod clusters;
pub mod view;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Text, Value};

/// Why a dump cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON of a dump.
    #[error(
        "error unmarshalling config dump response from Envoy: {0}; expected what its admin page /config_dump answers"
    )]
    Json(#[source] serde_json::Error),
    /// A part of it has another form.
    #[error("{what} of the config dump: {source}")]
    Part {
        /// What it is.
        what: &'static str,
        /// Why it cannot be read.
        source: serde_json::Error,
    },
    /// A part is not there.
    #[error("config dump has no configuration type {0}")]
    NoSection(&'static str),
    /// A list is empty that never is.
    #[error("no {0} found")]
    Empty(&'static str),
}

/// What a proxy says that it has.
#[derive(Debug)]
pub struct ConfigDump<'a> {
    sections: Vec<Section<'a>>,
}

#[derive(Debug, Deserialize)]
struct Section<'a> {
    #[serde(rename = "@type", borrow, default)]
    type_url: Text<'a>,
    #[serde(skip)]
    raw: Option<&'a RawValue>,
}

/// Whether a resource is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Of the bootstrap.
    Static,
    /// In use.
    Active,
    /// Not yet in use: something that it needs is missing.
    Warming,
}

/// A resource, still as text.
#[derive(Clone, Debug)]
pub struct Resource<'a> {
    /// What the dump calls it; only listeners, secrets and extensions have it outside.
    pub name: Text<'a>,
    /// Whether it is in use.
    pub state: State,
    /// Version of the answer that it came with.
    pub version: Text<'a>,
    /// When it came, in RFC 3339.
    pub last_updated: Text<'a>,
    what: &'static str,
    raw: &'a RawValue,
}

impl<'a> Resource<'a> {
    /// Its JSON.
    #[must_use]
    pub fn raw(&self) -> &'a str {
        self.raw.get()
    }

    /// Reads it as a type.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn read<T: Deserialize<'a>>(&self) -> Result<T, Error> {
        serde_json::from_str(self.raw()).map_err(|source| Error::Part { what: self.what, source })
    }

    /// All of it.
    ///
    /// # Errors
    /// Never for what was cut out of a dump.
    pub fn value(&self) -> Result<Value<'a>, Error> {
        self.read()
    }
}

/// An entry of a list of resources, of any section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, alias = "versionInfo")]
    version_info: Text<'a>,
    #[serde(borrow, alias = "lastUpdated")]
    last_updated: Text<'a>,
    #[serde(
        borrow,
        alias = "cluster",
        alias = "listener",
        alias = "route_config",
        alias = "routeConfig",
        alias = "endpoint_config",
        alias = "endpointConfig",
        alias = "secret",
        alias = "ecds_filter",
        alias = "ecdsFilter"
    )]
    resource: Option<&'a RawValue>,
    #[serde(borrow, alias = "activeState")]
    active_state: Option<Box<Self>>,
    #[serde(borrow, alias = "warmingState")]
    warming_state: Option<Box<Self>>,
}

/// The lists of a section, of any.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lists<'a> {
    #[serde(
        borrow,
        alias = "dynamic_active_clusters",
        alias = "dynamicActiveClusters",
        alias = "dynamic_listeners",
        alias = "dynamicListeners",
        alias = "dynamic_route_configs",
        alias = "dynamicRouteConfigs",
        alias = "dynamic_endpoint_configs",
        alias = "dynamicEndpointConfigs",
        alias = "dynamic_active_secrets",
        alias = "dynamicActiveSecrets",
        alias = "ecds_filters",
        alias = "ecdsFilters"
    )]
    active: Vec<Entry<'a>>,
    #[serde(
        borrow,
        alias = "dynamic_warming_clusters",
        alias = "dynamicWarmingClusters",
        alias = "dynamic_warming_secrets",
        alias = "dynamicWarmingSecrets"
    )]
    warming: Vec<Entry<'a>>,
    #[serde(
        borrow,
        alias = "static_clusters",
        alias = "staticClusters",
        alias = "static_listeners",
        alias = "staticListeners",
        alias = "static_route_configs",
        alias = "staticRouteConfigs",
        alias = "static_endpoint_configs",
        alias = "staticEndpointConfigs",
        alias = "static_secrets",
        alias = "staticSecrets"
    )]
    fixed: Vec<Entry<'a>>,
}

/// Types of the sections.
pub mod section {
    /// How the proxy was started.
    pub const BOOTSTRAP: &str = "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump";
    /// Clusters.
    pub const CLUSTERS: &str = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump";
    /// Listeners.
    pub const LISTENERS: &str = "type.googleapis.com/envoy.admin.v3.ListenersConfigDump";
    /// Routes.
    pub const ROUTES: &str = "type.googleapis.com/envoy.admin.v3.RoutesConfigDump";
    /// Endpoints; only with `?include_eds`.
    pub const ENDPOINTS: &str = "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump";
    /// Certificates and roots.
    pub const SECRETS: &str = "type.googleapis.com/envoy.admin.v3.SecretsConfigDump";
    /// Filters that are discovered.
    pub const EXTENSIONS: &str = "type.googleapis.com/envoy.admin.v3.EcdsConfigDump";
}

impl<'a> ConfigDump<'a> {
    /// Cuts a dump into its sections.
    ///
    /// # Errors
    /// When it is no dump.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Dump<'a> {
            #[serde(borrow, default)]
            configs: Vec<&'a RawValue>,
        }
        let dump: Dump<'a> = serde_json::from_str(text).map_err(Error::Json)?;
        let sections = dump.configs.into_iter().map(|raw| {
            let section: Section<'a> = serde_json::from_str(raw.get())?;
            Ok(Section { raw: Some(raw), ..section })
        });
        Ok(Self { sections: sections.collect::<Result<_, _>>().map_err(Error::Json)? })
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// The texts of all sections of a type.
    ///
    /// # Errors
    /// When there is none.
    pub fn sections(&self, type_url: &'static str) -> Result<Vec<&'a str>, Error> {
        let found = self.sections.iter().filter(|section| &*section.type_url == type_url);
        let texts: Vec<&str> = found.filter_map(|section| section.raw).map(RawValue::get).collect();
        if texts.is_empty() { Err(Error::NoSection(type_url)) } else { Ok(texts) }
    }

    /// The text of a section; the last, should there be several.
    ///
    /// # Errors
    /// When there is none.
    pub fn section(&self, type_url: &'static str) -> Result<&'a str, Error> {
        self.sections(type_url)?.pop().ok_or(Error::NoSection(type_url))
    }

    /// How the proxy was started.
    ///
    /// # Errors
    /// When it is not in the dump or of another form.
    pub fn bootstrap(&self) -> Result<view::BootstrapDump<'a>, Error> {
        let text = self.section(section::BOOTSTRAP)?;
        serde_json::from_str(text).map_err(|source| Error::Part { what: "the bootstrap", source })
    }

    /// Clusters that are in use, then those of the bootstrap.
    ///
    /// # Errors
    /// When they are not in the dump or of another form.
    pub fn clusters(&self) -> Result<Vec<Resource<'a>>, Error> {
        self.all(section::CLUSTERS, "a cluster", &[State::Active, State::Static])
    }

    /// Listeners that are in use, then those of the bootstrap.
    ///
    /// # Errors
    /// When they are not in the dump or of another form.
    pub fn listeners(&self) -> Result<Vec<Resource<'a>>, Error> {
        self.all(section::LISTENERS, "a listener", &[State::Active, State::Static])
    }

    /// Route configurations that are in use, then those that stand in listeners.
    ///
    /// # Errors
    /// When they are not in the dump or of another form.
    pub fn routes(&self) -> Result<Vec<Resource<'a>>, Error> {
        self.all(section::ROUTES, "a route configuration", &[State::Active, State::Static])
    }

    /// Endpoints of clusters, discovered ones first; none if the dump has no such section.
    ///
    /// # Errors
    /// When they are of another form.
    pub fn endpoints(&self) -> Result<Vec<Resource<'a>>, Error> {
        match self.all(section::ENDPOINTS, "endpoints", &[State::Active, State::Static]) {
            Err(Error::NoSection(_)) => Ok(Vec::new()),
            endpoints => endpoints,
        }
    }

    /// Certificates and roots that are awaited, then those in use.
    ///
    /// # Errors
    /// When they are not in the dump or of another form.
    pub fn secrets(&self) -> Result<Vec<Resource<'a>>, Error> {
        self.all(section::SECRETS, "a secret", &[State::Warming, State::Active])
    }

    /// Filters that are discovered.
    ///
    /// # Errors
    /// When they are not in the dump or of another form.
    pub fn extensions(&self) -> Result<Vec<Resource<'a>>, Error> {
        let mut found = Vec::new();
        for text in self.sections(section::EXTENSIONS)? {
            found.extend(resources(text, "an extension", &[State::Active])?);
        }
        Ok(found)
    }

    fn all(
        &self,
        type_url: &'static str,
        what: &'static str,
        states: &[State],
    ) -> Result<Vec<Resource<'a>>, Error> {
        resources(self.section(type_url)?, what, states)
    }
}

fn resources<'a>(text: &'a str, what: &'static str, states: &[State]) -> Result<Vec<Resource<'a>>, Error> {
    let mut lists: Lists<'a> = serde_json::from_str(text).map_err(|source| Error::Part { what, source })?;
    let mut found = Vec::new();
    for state in states {
        let entries = match state {
            State::Active => std::mem::take(&mut lists.active),
            State::Warming => std::mem::take(&mut lists.warming),
            State::Static => std::mem::take(&mut lists.fixed),
        };
        found.extend(entries.into_iter().filter_map(|entry| resource(entry, *state, what)));
    }
    Ok(found)
}

fn resource<'a>(entry: Entry<'a>, state: State, what: &'static str) -> Option<Resource<'a>> {
    let name = entry.name;
    // Listeners have their states one level deeper.
    let entry = match (entry.resource, entry.active_state) {
        (None, Some(active)) => *active,
        (resource, _) => Entry {
            resource,
            version_info: entry.version_info,
            last_updated: entry.last_updated,
            ..Entry::default()
        },
    };
    Some(Resource {
        name,
        state,
        version: entry.version_info,
        last_updated: entry.last_updated,
        what,
        raw: entry.resource?,
    })
}

#[cfg(test)]
mod tests;
