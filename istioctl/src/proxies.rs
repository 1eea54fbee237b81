//! Where the proxies of a mesh are, and how they and istiod are reached: pods of
//! Kubernetes through its API server, or pods that a file names.

pub mod admin;
pub(crate) mod cluster;
pub mod file;
mod forwarded;
mod netns;
pub(crate) mod objects;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncWrite};

pub use admin::Admin;
use cluster::Cluster;
use file::File;

use crate::args::Global;

/// A proxy, as people name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// Name of the pod.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// A stream to a port of a pod.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Any of them.
pub type Connection = Box<dyn Stream>;

/// What istiod is told of who asks, and how it is known.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Token of a service account of the control plane's namespace.
    pub token: Option<String>,
    /// Roots of the mesh, as PEM; none when they are not known.
    pub roots: Option<String>,
}

/// A mesh: a cluster of Kubernetes, or pods that a file names.
#[derive(Debug)]
pub struct Mesh {
    place: Place,
    log_from: u8,
}

#[derive(Debug)]
enum Place {
    Cluster(Box<Cluster>),
    File(File),
}

/// What people name instead of a pod.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// What it is; nothing for a pod.
    kind: Option<String>,
    name: String,
    namespace: Option<String>,
}

impl Target {
    /// Reads `[TYPE/]NAME[.NAMESPACE]`.
    fn parse(text: &str) -> Self {
        let (kind, rest) = match text.rsplit_once('/') {
            Some((kind, rest)) if !kind.is_empty() => (Some(kind.to_lowercase()), rest),
            _ => (None, text),
        };
        let (name, namespace) = match rest.rsplit_once('.') {
            Some((name, namespace)) => (name, Some(namespace.to_owned())),
            None => (rest, None),
        };
        let kind = kind.filter(|kind| !matches!(kind.as_str(), "pod" | "pods" | "po"));
        Self { kind, name: name.to_owned(), namespace }
    }
}

impl Mesh {
    /// Finds it: `--mesh` names a file, else it is the cluster of the kubeconfig.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read.
    pub async fn open(global: &Global) -> anyhow::Result<Self> {
        let place = match &global.mesh {
            Some(path) => Place::File(File::read(path, global)?),
            None => Place::Cluster(Box::new(Cluster::of(global).await?)),
        };
        Ok(Self { place, log_from: global.vklog })
    }

    /// One proxy by the name that people give it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn proxy(&self, name: &str) -> anyhow::Result<Proxy> {
        let found = self.proxies(name).await?;
        found.into_iter().next().with_context(|| format!("no pods match {name:?}"))
    }

    /// All proxies of a name: several, for a Deployment or Service.
    ///
    /// # Errors
    /// When there is none.
    pub async fn proxies(&self, name: &str) -> anyhow::Result<Vec<Proxy>> {
        let target = Target::parse(name);
        let found = match &self.place {
            Place::Cluster(cluster) => cluster.find(&target).await?,
            Place::File(file) => file.find(&target)?,
        };
        if found.is_empty() {
            bail!("no pods match {name:?}");
        }
        Ok(found)
    }

    /// All proxies whose pods have labels.
    ///
    /// # Errors
    /// When there is none.
    pub async fn selected(&self, labels: &str) -> anyhow::Result<Vec<Proxy>> {
        let found = match &self.place {
            Place::Cluster(cluster) => cluster.selected(labels).await?,
            Place::File(file) => file.selected(labels)?,
        };
        if found.is_empty() {
            bail!("no pods found with the labels {labels:?}");
        }
        Ok(found)
    }

    /// The control planes: all that have the labels, or `app=istiod`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn istiods(&self, labels: &str) -> anyhow::Result<Vec<Proxy>> {
        match &self.place {
            Place::Cluster(cluster) => cluster.istiods(labels).await,
            Place::File(file) => Ok(file.istiods()),
        }
    }

    /// Pods that may have an address, each with whether it has a sidecar, where that
    /// is known without asking it.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn with_address(&self, ip: IpAddr) -> anyhow::Result<Vec<(Proxy, Option<bool>)>> {
        match &self.place {
            Place::Cluster(cluster) => cluster.with_address(ip).await,
            Place::File(file) => Ok(file.with_address(ip)),
        }
    }

    /// A stream to a port of a pod, of istiod or of a proxy.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect(&self, pod: &Proxy, port: u16) -> anyhow::Result<Connection> {
        if self.log_from >= 6 {
            eprintln!("connecting to port {port} of {pod}");
        }
        match &self.place {
            Place::Cluster(cluster) => cluster.connect(pod, port).await,
            Place::File(file) => file.connect(pod, port).await,
        }
    }

    /// What istiod believes.
    ///
    /// # Errors
    /// When no token can be had.
    pub async fn credentials(&self) -> anyhow::Result<Credentials> {
        match &self.place {
            Place::Cluster(cluster) => cluster.credentials().await,
            Place::File(file) => file.credentials().await,
        }
    }

    /// Whether streams go through somebody who knows whom they lead to.
    #[must_use]
    pub const fn is_tunneled(&self) -> bool {
        matches!(self.place, Place::Cluster(_))
    }

    /// What proxies log when they start, as the injector says; if it says it.
    pub async fn log_level(&self) -> Option<String> {
        match &self.place {
            Place::Cluster(cluster) => cluster.log_level().await,
            Place::File(_) => None,
        }
    }

    /// A value of a ConfigMap of the control plane; none without Kubernetes.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn config_map(&self, name: &str, key: &str) -> anyhow::Result<Option<String>> {
        match &self.place {
            Place::Cluster(cluster) => cluster.data(name, key).await,
            Place::File(_) => Ok(None),
        }
    }

    /// All pods that a file names, with their labels; none with Kubernetes.
    #[must_use]
    pub fn pods(&self) -> Vec<(Proxy, BTreeMap<String, String>)> {
        match &self.place {
            Place::Cluster(_) => Vec::new(),
            Place::File(file) => file.all().map(|(proxy, labels)| (proxy, labels.clone())).collect(),
        }
    }

    /// Where a pod or istiod logs, if a file says it.
    #[must_use]
    pub fn log_file(&self, pod: &Proxy) -> Option<&Path> {
        match &self.place {
            Place::Cluster(_) => None,
            Place::File(file) => file.log(pod),
        }
    }

    /// Directory of the objects that istiod follows, if a file says it.
    #[must_use]
    pub fn objects_dir(&self) -> Option<&Path> {
        match &self.place {
            Place::Cluster(_) => None,
            Place::File(file) => file.objects.as_deref(),
        }
    }

    /// The admin pages of a proxy.
    #[must_use]
    pub fn admin<'a>(&'a self, proxy: &Proxy, port: u16) -> Admin<'a> {
        Admin { mesh: self, proxy: proxy.clone(), port }
    }
}

/// How good a guess of what was meant is worth telling.
fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a Proxy>) -> String {
    let known: Vec<&Proxy> = known.collect();
    let elsewhere: Vec<String> =
        known.iter().filter(|proxy| proxy.name == wanted).map(|proxy| proxy.namespace.clone()).collect();
    if !elsewhere.is_empty() {
        return format!("; there is one in the namespace {}: give -n", elsewhere.join(", "));
    }
    let similar: Vec<String> = known
        .iter()
        .filter(|proxy| proxy.name.starts_with(wanted))
        .take(3)
        .map(ToString::to_string)
        .collect();
    if similar.is_empty() { String::new() } else { format!("; did you mean {}?", similar.join(", ")) }
}

#[cfg(test)]
mod tests;
