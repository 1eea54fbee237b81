//! istiod as a program of its own, and proxies that do nothing but speak xDS.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use names::TypeUrl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prost::Message;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::client::Ask;
use crate::grpc::{Channel, Exchange};
use crate::process::Process;

/// How long istiod may take to be ready.
const START: Duration = Duration::from_secs(60);

/// A running istiod.
#[derive(Debug)]
pub struct Istiod {
    process: Process,
    /// Where its objects lie.
    pub objects: PathBuf,
    /// Where it serves plaintext xDS.
    pub xds: SocketAddr,
}

impl Istiod {
    /// Starts the program beside this one on that folder.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(dir: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("istiod");
        ensure!(program.is_file(), "{} is not there; build istiod", program.display());
        let objects = dir.join("objects");
        let ports = free_ports::<4>()?;
        let at = |index: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[index]));
        let mut command = Command::new(program);
        command.arg("discovery").arg("--configDir").arg(&objects).arg("--state-dir").arg(dir.join("state"));
        let flags = ["--grpcAddr", "--secureGRPCAddr", "--monitoringAddr", "--httpAddr"];
        for (index, flag) in flags.into_iter().enumerate() {
            command.arg(flag).arg(at(index).to_string());
        }
        command.args(["--log_output_level", "default:warn"]).current_dir(dir);
        for (name, value) in environment {
            command.env(name, value);
        }
        let process = Process::start(command, &dir.join("istiod.log"))?;
        let begin = Instant::now();
        let ask = Ask::get(at(3), "istiod", "/ready");
        while !ask.send().await.is_ok_and(|answer| answer.status.is_success()) {
            ensure!(begin.elapsed() < START, "istiod is not ready:\n{}", process.output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, objects, xds: at(0) })
    }

    fn page(&self, name: &str) -> anyhow::Result<String> {
        let id = self.process.pid().context("istiod has ended")?;
        Ok(fs::read_to_string(format!("/proc/{id}/{name}"))?)
    }

    /// Memory in megabytes (10^6) by the name that the kernel gives it.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn memory(&self, what: &str) -> anyhow::Result<f64> {
        let status = self.page("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)).context("no such line")?;
        let kibibytes: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024.0 / 1e6)
    }

    /// Processor time so far.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = self.page("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        // User and system time, in hundredths of a second on every Linux.
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.output()
    }
}

/// Ports that nobody listens on.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let listeners: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Lets this process have as many connections as it may.
///
/// # Errors
/// When the limit is too low for so many.
pub fn raise_limit(connections: u64) -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard > connections + 100, "at most {hard} files may be open (ulimit -n)");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// What is read of a cluster.
#[derive(Clone, PartialEq, Message)]
struct Cluster {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    kind: i32,
}

/// Number of the cluster type whose endpoints come by EDS.
const EDS: i32 = 3;

/// One proxy.
#[derive(Debug)]
pub struct Proxy {
    stream: Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>,
    // Keeps the connection.
    _channel: Channel,
}

impl Proxy {
    /// Connects and asks for clusters.
    ///
    /// # Errors
    /// When the stream is refused.
    pub async fn connect(address: SocketAddr, index: usize) -> anyhow::Result<Self> {
        let ip = Ipv4Addr::from(0x0a00_0000 + u32::try_from(index)?);
        let node = Node {
            id: format!("sidecar~{ip}~client-{index}.default~default.svc.cluster.local"),
            ..Node::default()
        };
        let channel = Channel::plain(address).await?;
        let first = DeltaDiscoveryRequest { node: Some(node), ..ask(&TypeUrl::Cluster, Vec::new()) };
        let stream = channel.delta(None, first).await?;
        Ok(Self { stream, _channel: channel })
    }

    /// Asks for everything as Envoy does and returns once it is there.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn sync(&mut self) -> anyhow::Result<()> {
        self.stream.send(ask(&TypeUrl::Listener, Vec::new())).await?;
        let mut missing =
            BTreeSet::from([TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route]);
        while !missing.is_empty() {
            let response = self.next().await?;
            let type_url = TypeUrl::from(response.type_url.as_str());
            missing.remove(&type_url);
            match type_url {
                TypeUrl::Cluster => {
                    let clusters = response.resources.iter().filter_map(|resource| {
                        Cluster::decode(resource.resource.as_ref()?.value.clone()).ok()
                    });
                    let names = clusters.filter(|cluster| cluster.kind == EDS).map(|cluster| cluster.name);
                    self.stream.send(ask(&TypeUrl::Endpoint, names.collect())).await?;
                }
                TypeUrl::Listener => self.stream.send(ask(&TypeUrl::Route, vec!["80".into()])).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The next response, which it accepts.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn next(&mut self) -> anyhow::Result<DeltaDiscoveryResponse> {
        let response = self.stream.next().await?;
        let accept = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.stream.send(accept).await?;
        Ok(response)
    }
}

fn ask(type_url: &TypeUrl, names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.as_str().to_owned(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    }
}
