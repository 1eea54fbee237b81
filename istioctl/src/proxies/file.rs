//! A mesh without Kubernetes: a file names its pods and control planes.
//!
//! ```yaml
//! istiods:
//! - {name: istiod-0, netns: shop-istiod}     # or address: 10.77.0.2
//! roots: /var/lib/shop/istiod/roots.pem
//! tokenCommand: [istiod, token, --service-account, istio-system/default, --state-dir, /var/lib/shop/istiod]
//! objects: /var/lib/shop/objects             # Services and their selectors, for svc/NAME
//! pods:
//! - {name: web-0, namespace: shop, netns: shop-web-0, labels: {app: web}}
//! - {name: db-0, namespace: shop, address: 10.0.0.7}
//! ```
//!
//! A pod is a network namespace of this machine (`netns`: a name of `ip netns` or a
//! path; entering it needs root), where its ports are those of loopback, or the
//! `address` of a machine whose admin port can be reached from here.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use config::Kind;
use config::kube::Service;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::admin::CONNECT;
use super::{Connection, Credentials, Proxy, Target, nearest, netns};
use crate::args::Global;

/// Namespace of who names none.
pub(super) const DEFAULT: &str = "default";
/// Longest wait for a program that prints a token.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the file says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct File {
    /// Control planes.
    pub istiods: Vec<Pod>,
    /// Roots of the mesh, a file of PEM.
    pub roots: Option<PathBuf>,
    /// A token for istiod, in a file.
    pub token: Option<PathBuf>,
    /// A program, and its arguments, that prints one.
    pub token_command: Vec<String>,
    /// Directory of the objects that istiod follows.
    pub objects: Option<PathBuf>,
    /// Proxies.
    pub pods: Vec<Pod>,
    /// Namespace of who names none, of the command line.
    #[serde(skip)]
    pub(super) namespace: Option<String>,
    /// Namespace of the control plane, of the command line.
    #[serde(skip)]
    istio_namespace: String,
}

/// A pod, and where its ports are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Network namespace of this machine in which it is.
    pub netns: Option<String>,
    /// Where its ports are; loopback without it.
    pub address: Option<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// File of what it logs.
    pub log: Option<PathBuf>,
}

impl Pod {
    pub(super) fn proxy(&self, namespace: &str) -> Proxy {
        let namespace = if self.namespace.is_empty() { namespace } else { &self.namespace };
        Proxy { name: self.name.clone(), namespace: namespace.to_owned() }
    }

    fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

impl File {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path, global: &Global) -> anyhow::Result<Self> {
        let what = || format!("--mesh {}", path.display());
        let text = fs::read_to_string(path).with_context(what)?;
        let mut file: Self = serde_saphyr::from_str(&text).with_context(what)?;
        file.namespace.clone_from(&global.namespace);
        file.istio_namespace.clone_from(&global.istio_namespace);
        Ok(file)
    }

    pub(super) fn find(&self, target: &Target) -> anyhow::Result<Vec<Proxy>> {
        let wanted = target.namespace.as_ref().or(self.namespace.as_ref());
        let all: Vec<Proxy> = self.pods.iter().map(|pod| pod.proxy(DEFAULT)).collect();
        let pods = || {
            let is_there = |proxy: &Proxy| wanted.is_none_or(|namespace| proxy.namespace == *namespace);
            self.pods.iter().zip(&all).filter(move |(_, proxy)| is_there(proxy))
        };
        let name = &target.name;
        let found: Vec<Proxy> = match target.kind.as_deref() {
            None => pods().filter(|(pod, _)| pod.name == *name).map(|(_, proxy)| proxy.clone()).collect(),
            Some("svc" | "service" | "services") => {
                let namespace = wanted.map_or(DEFAULT, String::as_str);
                let selector = self.selector(namespace, name)?;
                let is_meant = |proxy: &Proxy| proxy.namespace == namespace;
                let found = pods().filter(|(pod, proxy)| is_meant(proxy) && pod.has(&selector));
                found.map(|(_, proxy)| proxy.clone()).collect()
            }
            // What owns a pod gives it its name and something behind it.
            Some(_) => {
                let owned = |pod: &str| {
                    pod.strip_prefix(name.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                };
                pods().filter(|(pod, _)| owned(&pod.name)).map(|(_, proxy)| proxy.clone()).collect()
            }
        };
        if target.kind.is_none() {
            match &found[..] {
                [] => bail!("there is no pod {name:?}{}", nearest(name, all.iter())),
                [_] => {}
                several => {
                    let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                    bail!("{name:?} is one of {}: give its namespace", names.join(", "));
                }
            }
        }
        Ok(found)
    }

    pub(super) fn selected(&self, labels: &str) -> anyhow::Result<Vec<Proxy>> {
        let mut wanted = BTreeMap::new();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) =
                label.split_once('=').with_context(|| format!("label {label:?}: write NAME=VALUE"))?;
            wanted.insert(name.trim().to_owned(), value.trim_start_matches('=').trim().to_owned());
        }
        let found = self.pods.iter().filter(|pod| pod.has(&wanted)).map(|pod| pod.proxy(DEFAULT));
        Ok(found
            .filter(|proxy| self.namespace.as_ref().is_none_or(|wanted| proxy.namespace == *wanted))
            .collect())
    }

    /// Pods that may have an address: those in a namespace do not tell theirs here.
    pub(super) fn with_address(&self, ip: IpAddr) -> Vec<(Proxy, Option<bool>)> {
        let may_be = |pod: &&Pod| pod.netns.is_some() || pod.address == Some(ip);
        self.pods.iter().filter(may_be).map(|pod| (pod.proxy(DEFAULT), None)).collect()
    }

    pub(super) fn istiods(&self) -> Vec<Proxy> {
        self.istiods.iter().map(|istiod| istiod.proxy(&self.istio_namespace)).collect()
    }

    /// The pod or istiod of that name.
    fn place(&self, pod: &Proxy) -> Option<&Pod> {
        let mut istiods = self.istiods.iter().filter(|one| one.proxy(&self.istio_namespace) == *pod);
        istiods.next().or_else(|| self.pods.iter().find(|one| one.proxy(DEFAULT) == *pod))
    }

    /// All pods with their labels.
    pub(super) fn all(&self) -> impl Iterator<Item = (Proxy, &BTreeMap<String, String>)> {
        self.pods.iter().map(|pod| (pod.proxy(DEFAULT), &pod.labels))
    }

    /// Where a pod or istiod logs, if that is a file of this machine.
    pub(super) fn log(&self, pod: &Proxy) -> Option<&Path> {
        self.place(pod)?.log.as_deref()
    }

    pub(super) async fn connect(&self, pod: &Proxy, port: u16) -> anyhow::Result<Connection> {
        let found = self.place(pod).with_context(|| format!("there is no pod {pod}"))?;
        let address = SocketAddr::new(found.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
        let stream = match &found.netns {
            Some(name) => {
                let namespace = netns::path(name);
                let connect =
                    tokio::task::spawn_blocking(move || netns::connect(&namespace, address, CONNECT));
                let stream = connect.await?.with_context(|| {
                    format!("{address} in the network namespace {name} (entering it needs root)")
                })?;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)?
            }
            None => {
                let connect = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
                connect
                    .context("no connection in time")
                    .and_then(|made| Ok(made?))
                    .with_context(|| address.to_string())?
            }
        };
        Ok(Box::new(stream))
    }

    pub(super) async fn credentials(&self) -> anyhow::Result<Credentials> {
        let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| path.display().to_string());
        let mut token = self.token.as_ref().map(read).transpose()?;
        if let [program, args @ ..] = &self.token_command[..] {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::null()).kill_on_drop(true);
            let what = || format!("tokenCommand {program}");
            let output = tokio::time::timeout(PATIENCE, command.output()).await;
            let output = output
                .with_context(|| format!("it has not ended in {} s", PATIENCE.as_secs()))
                .with_context(what)?
                .with_context(what)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "tokenCommand {program}: {}", said.trim());
            token = Some(String::from_utf8(output.stdout).context("tokenCommand")?);
        }
        let roots = self.roots.as_ref().map(read).transpose()?;
        Ok(Credentials { token: token.map(|token| token.trim().to_owned()), roots })
    }

    /// The labels of a Service's pods.
    fn selector(&self, namespace: &str, name: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let objects =
            self.objects.as_ref().context("svc/NAME needs the directory `objects` in the file of --mesh")?;
        for entry in fs::read_dir(objects).with_context(|| objects.display().to_string())? {
            let path = entry?.path();
            let Ok((text, _)) = source::file::read(&path) else { continue };
            for object in config::yaml::read(&path.display().to_string(), &text).objects {
                let key = &object.key;
                if key.kind != Kind::Service || &*key.name != name || &*key.namespace != namespace {
                    continue;
                }
                let mut store = config::Store::default();
                store.apply(object.into());
                if let Some((_, service)) = store.get::<Service>(namespace, name) {
                    return Ok(service.spec.selector.clone());
                }
            }
        }
        bail!("there is no Service {name}.{namespace} in {}", objects.display())
    }
}
