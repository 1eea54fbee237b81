//! istiod beside a cluster, and what it serves.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use names::TypeUrl;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tempfile::TempDir;

use super::Cluster;
use super::cluster::free_ports;
use crate::grpc::Channel;
use crate::netns;
use crate::process::Process;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Resources by type and name.
pub type Resources = BTreeMap<String, BTreeMap<String, Bytes>>;

/// A running istiod on the loopback.
#[derive(Debug)]
pub struct Istiod {
    /// The program.
    pub process: Process,
    /// xDS in plaintext.
    pub grpc: SocketAddr,
    /// xDS and certificates over TLS.
    pub secure: SocketAddr,
    /// Readiness.
    pub http: SocketAddr,
    /// Metrics and debug pages.
    pub monitoring: SocketAddr,
    /// What the API server asks.
    pub webhooks: SocketAddr,
    log: PathBuf,
    dir: TempDir,
}

impl Istiod {
    /// Starts the program with these further flags and variables; its folder,
    /// which is the current one, is empty.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        program: &Path,
        flags: &[&dyn AsRef<OsStr>],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("istiod-").tempdir()?;
        let [grpc, secure, http, monitoring, webhooks] = free_ports(Ipv4Addr::LOCALHOST.into())?;
        let mut command = Command::new(program);
        command.arg("discovery").current_dir(dir.path()).arg("--state-dir").arg(dir.path().join("state"));
        let addresses = [
            ("grpcAddr", grpc),
            ("secureGRPCAddr", secure),
            ("httpAddr", http),
            ("monitoringAddr", monitoring),
            ("httpsAddr", webhooks),
        ];
        for (flag, address) in addresses {
            command.arg(format!("--{flag}")).arg(address.to_string());
        }
        command.args(flags.iter().map(|flag| flag.as_ref())).envs(environment.iter().copied());
        let log = dir.path().join("istiod.log");
        let process = Process::start(command, &log)?;
        Ok(Self { process, grpc, secure, http, monitoring, webhooks, log, dir })
    }

    /// The same for a cluster.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(cluster: &Cluster, program: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start(program, &[&"--kubeconfig", &cluster.kubeconfig()], environment)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.get(self.http, "/ready").is_ok()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !self.is_ready() {
            let ended = self.process.ended();
            ensure!(ended.is_none(), "istiod ended: {ended:?}: {}", self.output());
            ensure!(begin.elapsed() < PATIENCE, "istiod is not ready: {}", self.output());
            netns::pause();
        }
        Ok(())
    }

    /// A page as text.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub fn get(&self, address: SocketAddr, path: &str) -> anyhow::Result<String> {
        run(async {
            use http_body_util::{BodyExt as _, Empty};
            use hyper_util::client::legacy::Client;
            use hyper_util::rt::TokioExecutor;

            let client = Client::builder(TokioExecutor::new()).build_http();
            let request = http::Request::get(format!("http://{address}{path}")).body(Empty::<Bytes>::new())?;
            let answer = client.request(request).await?;
            let status = answer.status();
            let body = String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?;
            ensure!(status.is_success(), "{path}: {status}: {body}");
            Ok(body)
        })
    }

    /// What a sidecar gets: clusters with their endpoints, listeners, the
    /// routes of these names, names for DNS.
    ///
    /// # Errors
    /// When istiod does not serve it.
    pub fn resources(&self, node: &str, routes: &[&str]) -> anyhow::Result<Resources> {
        let names = |set: &BTreeMap<String, Bytes>| set.keys().cloned().collect::<Vec<_>>();
        let routes: Vec<String> = routes.iter().map(|&route| route.to_owned()).collect();
        run(async {
            let mut all = Resources::new();
            let clusters = self.fetch(node, &TypeUrl::Cluster, &[]).await?.1;
            let endpoints = self.fetch(node, &TypeUrl::Endpoint, &names(&clusters)).await?.1;
            all.insert("endpoints".into(), endpoints);
            all.insert("clusters".into(), clusters);
            all.insert("listeners".into(), self.fetch(node, &TypeUrl::Listener, &[]).await?.1);
            if !routes.is_empty() {
                all.insert("routes".into(), self.fetch(node, &TypeUrl::Route, &routes).await?.1);
            }
            all.insert("names".into(), self.fetch(node, &TypeUrl::NameTable, &[]).await?.1);
            Ok(all)
        })
    }

    /// Names of the clusters that a sidecar gets, and the version they are of.
    ///
    /// # Errors
    /// When istiod does not serve them.
    pub fn clusters(&self, node: &str) -> anyhow::Result<(String, Vec<String>)> {
        run(async {
            let (version, clusters) = self.fetch(node, &TypeUrl::Cluster, &[]).await?;
            Ok((version, clusters.into_keys().collect()))
        })
    }

    /// Waits until the names of the clusters are as they should be; says how long that took.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn wait_clusters(
        &self,
        node: &str,
        what: &str,
        fits: impl Fn(&[String]) -> bool,
    ) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        loop {
            let names = self.clusters(node).map(|(_, names)| names);
            match names {
                Ok(names) if fits(&names) => return Ok(begin.elapsed()),
                _ if begin.elapsed() < PATIENCE => netns::pause(),
                Ok(names) => bail!("{what}: clusters are {names:?}\n{}", self.output()),
                Err(error) => return Err(error.context(what.to_owned())),
            }
        }
    }

    async fn fetch(
        &self,
        node: &str,
        type_url: &TypeUrl,
        names: &[String],
    ) -> anyhow::Result<(String, BTreeMap<String, Bytes>)> {
        let first = DeltaDiscoveryRequest {
            node: Some(Node { id: node.to_owned(), ..Node::default() }),
            type_url: type_url.as_str().to_owned(),
            resource_names_subscribe: names.to_vec(),
            ..DeltaDiscoveryRequest::default()
        };
        let answer = async {
            let channel = Channel::plain(self.grpc).await?;
            let mut stream = channel.delta(None, first).await?;
            stream.next().await
        };
        let answer: DeltaDiscoveryResponse =
            tokio::time::timeout(PATIENCE, answer).await.context("no answer")??;
        let resources = answer.resources.into_iter().filter_map(|one| Some((one.name, one.resource?.value)));
        Ok((answer.system_version_info, resources.collect()))
    }
}

fn run<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
