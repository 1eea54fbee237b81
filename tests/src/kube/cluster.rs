//! The programs of a cluster and clients of it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sys::signal::Signal;
use pki::key::PrivateKey;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_rustls::rustls::ServerConfig;

use super::keys::Keys;
use crate::netns;
use crate::process::Process;

/// How long the API server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a program may take to end.
const END: Duration = Duration::from_secs(30);
/// What is noted of requests: who of the control plane did what, and by which right.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:istio-system"]}, {"level": "None"}]}"#;
/// Addresses that Services get.
pub(super) const SERVICES: &str = "10.96.0.0/16";

/// Where the programs of a cluster run.
#[derive(Clone, Debug)]
pub struct Place {
    /// A network namespace; without it they run in that of the tests.
    pub namespace: Option<String>,
    /// The address of the API server.
    pub address: IpAddr,
}

impl Default for Place {
    fn default() -> Self {
        Self { namespace: None, address: Ipv4Addr::LOCALHOST.into() }
    }
}

/// A running cluster; everything of it is gone when it is dropped.
///
/// Its methods wait; they are for tests without a runtime of their own.
pub struct Cluster {
    pub(super) runtime: Runtime,
    pub(super) client: Client,
    keys: Keys,
    dir: TempDir,
    place: Place,
    programs: PathBuf,
    secure: SocketAddr,
    store: [SocketAddr; 2],
    etcd: Option<Process>,
    api: Option<Process>,
}

impl Cluster {
    /// Starts etcd and the API server on the loopback.
    ///
    /// # Errors
    /// When they are not there or do not become ready.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_at(Place::default())
    }

    /// The same at another place.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(place: Place) -> anyhow::Result<Self> {
        let programs = super::programs()?;
        let dir = tempfile::Builder::new().prefix("istio-kube-").tempdir()?;
        let keys = Keys::create(&dir.path().join("keys"), place.address)?;
        let (secure, store) = if place.namespace.is_some() {
            let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            (SocketAddr::new(place.address, 6443), [local(2379), local(2380)])
        } else {
            let [a, b, c] = free_ports(place.address)?;
            (a, [b, c])
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let admin = keys.kubeconfig(&format!("https://{secure}"), "admin", &["system:masters"])?;
        fs::write(dir.path().join("admin.kubeconfig"), admin.to_string())?;
        fs::write(dir.path().join("audit.yaml"), AUDIT)?;
        let client = runtime.block_on(connect(admin))?;
        let mut cluster =
            Self { runtime, client, keys, dir, place, programs, secure, store, etcd: None, api: None };
        cluster.start_etcd()?;
        cluster.start_api()?;
        cluster.account("default", "default")?;
        // The control plane keeps objects of its own there.
        cluster.namespace("istio-system", &[])?;
        Ok(cluster)
    }

    /// Starts etcd, which has the objects of before.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_etcd(&mut self) -> anyhow::Result<()> {
        let [client, peer] = self.store.map(|address| format!("http://{address}"));
        let mut command = self.command("etcd");
        command.arg("--data-dir").arg(self.dir.path().join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.args(["--unsafe-no-fsync", "--log-level", "warn"]);
        self.etcd = Some(Process::start(command, &self.log("etcd"))?);
        Ok(())
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn start_api(&mut self) -> anyhow::Result<()> {
        self.launch_api()?;
        self.wait_ready()
    }

    /// Starts the API server.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_api(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("kube-apiserver");
        let mut flag = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        let file = |name: &str| self.keys.file(name).display().to_string();
        flag("etcd-servers", &format!("http://{}", self.store[0]));
        flag("bind-address", &self.secure.ip().to_string());
        // Endpoints of the service `kubernetes` may not be on the loopback: there are none.
        flag("advertise-address", &self.secure.ip().to_string());
        flag("endpoint-reconciler-type", "none");
        flag("secure-port", &self.secure.port().to_string());
        flag("kubelet-certificate-authority", &file("ca.crt"));
        flag("kubelet-client-certificate", &file("kubelet-client.crt"));
        flag("kubelet-client-key", &file("kubelet-client.key"));
        flag("cert-dir", &file("own"));
        flag("tls-cert-file", &file("serving.crt"));
        flag("tls-private-key-file", &file("serving.key"));
        flag("client-ca-file", &file("ca.crt"));
        flag("service-account-issuer", "https://kubernetes.default.svc.cluster.local");
        flag("service-account-key-file", &file("accounts.pub"));
        flag("service-account-signing-key-file", &file("accounts.key"));
        flag("service-cluster-ip-range", SERVICES);
        flag("authorization-mode", "Node,RBAC");
        flag("enable-admission-plugins", "NodeRestriction");
        flag("allow-privileged", "true");
        flag("profiling", "false");
        // Served by few clusters yet: istiod uses it if it is told to.
        flag("feature-gates", "ClusterTrustBundle=true");
        flag("runtime-config", "certificates.k8s.io/v1beta1/clustertrustbundles=true");
        flag("audit-policy-file", &self.dir.path().join("audit.yaml").display().to_string());
        flag("audit-log-path", &self.log("audit").display().to_string());
        self.api = Some(Process::start(command, &self.log("kube-apiserver"))?);
        Ok(())
    }

    /// Waits until the API server is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            for (name, process) in [("etcd", &mut self.etcd), ("kube-apiserver", &mut self.api)] {
                let ended = process.as_mut().and_then(Process::ended);
                ensure!(ended.is_none(), "{name} ended: {ended:?}: {}", last_lines(&self.dir, name));
            }
            let client = self.client.clone();
            let answer = self.runtime.block_on(async {
                let request = http::Request::get("/readyz").body(Vec::new())?;
                let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request));
                anyhow::Ok(answer.await??)
            });
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > PATIENCE => {
                    return Err(
                        error.context(format!("API server: {}", last_lines(&self.dir, "kube-apiserver")))
                    );
                }
                Err(_) => netns::pause(),
            }
        }
    }

    /// Kills the API server, as when its machine is lost.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_api(&mut self) -> anyhow::Result<()> {
        end(&mut self.api, Signal::SIGKILL)
    }

    /// Kills etcd.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_etcd(&mut self) -> anyhow::Result<()> {
        end(&mut self.etcd, Signal::SIGKILL)
    }

    /// Stops the API server and lets it go on, so that it answers nobody meanwhile.
    pub fn freeze_api(&self, is_frozen: bool) {
        let signal = if is_frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.api.iter().for_each(|api| api.signal(signal));
    }

    /// Forgets the past: who watches from an older state is told that it is gone.
    ///
    /// # Errors
    /// When etcd does not.
    pub fn compact(&mut self) -> anyhow::Result<()> {
        // The API server keeps events in memory too; one that has just started has none.
        let address = format!("http://{}/v3/kv", self.store[0]);
        self.runtime.block_on(async {
            let range = post(&format!("{address}/range"), r#"{"key":"AA=="}"#).await?;
            let revision = range["header"]["revision"].as_str().context("revision")?.to_owned();
            post(&format!("{address}/compaction"), &format!(r#"{{"revision":"{revision}","physical":true}}"#))
                .await
        })?;
        Ok(())
    }

    /// Lets an object be gone without the API server having a part in it.
    ///
    /// # Errors
    /// When etcd does not.
    pub fn lose(&mut self, path: &str) -> anyhow::Result<()> {
        let key = STANDARD.encode(format!("/registry/{path}"));
        let address = format!("http://{}/v3/kv/deleterange", self.store[0]);
        let answer = self.runtime.block_on(post(&address, &format!(r#"{{"key":"{key}"}}"#)))?;
        ensure!(answer["deleted"] == "1", "{path}: {answer}");
        Ok(())
    }

    /// What accounts of the control plane's namespace did so far: events as in an
    /// audit log of Kubernetes.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audited(&self) -> anyhow::Result<Vec<Value>> {
        let text = fs::read_to_string(self.log("audit")).context("audit log")?;
        // The last line may be half written, and so may one be of a server that was killed.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.secure
    }

    /// The file of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// Writes a kubeconfig for a service account, with a token of it.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.token(namespace, account, &[])?;
        let config = self.keys.kubeconfig_of_token(&format!("https://{}", self.secure), &token);
        self.write_kubeconfig(&format!("{namespace}.{account}"), &config)
    }

    /// Writes the administrator's kubeconfig for another way to the API server, a proxy perhaps.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_via(&self, name: &str, server: &str) -> anyhow::Result<PathBuf> {
        let config = self.keys.kubeconfig(server, "admin", &["system:masters"])?;
        self.write_kubeconfig(name, &config)
    }

    fn write_kubeconfig(&self, name: &str, config: &Value) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(format!("{name}.kubeconfig"));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// What a server of a node is known by, and knows the API server by.
    pub(super) fn server_config(&self, address: IpAddr) -> anyhow::Result<ServerConfig> {
        let (certificate, key) = self.keys.serving(address)?;
        let key = PrivateKey::from_pem(&key)?;
        Ok(pki::verify::server_config(&certificate, &key, self.root(), &[b"http/1.1"])?)
    }

    /// A folder that is removed with the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The certificate of the API server's CA, PEM.
    pub fn root(&self) -> &str {
        &self.keys.root
    }

    /// The administrator's client, for futures of [`Self::run`].
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits for a future that uses the client.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn command(&self, name: &str) -> Command {
        self.command_of(&self.programs.join(name))
    }

    /// A command that will run beside the API server.
    pub(super) fn command_of(&self, program: &Path) -> Command {
        match &self.place.namespace {
            Some(namespace) => netns::command(namespace, program),
            None => Command::new(program),
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // First who writes, then what is written to.
        end(&mut self.api, Signal::SIGKILL).ok();
        end(&mut self.etcd, Signal::SIGKILL).ok();
    }
}

async fn connect(kubeconfig: Value) -> anyhow::Result<Client> {
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn post(url: &str, body: &str) -> anyhow::Result<Value> {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::post(url).body(Full::new(bytes::Bytes::from(body.to_owned())))?;
    let answer = client.request(request).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{url}: {status}: {}", String::from_utf8_lossy(&bytes));
    Ok(serde_json::from_slice(&bytes)?)
}

fn end(process: &mut Option<Process>, signal: Signal) -> anyhow::Result<()> {
    if let Some(mut process) = process.take() {
        process.signal(signal);
        process.wait(END)?;
    }
    Ok(())
}

/// Ports that nobody uses now.
pub(super) fn free_ports<const N: usize>(address: IpAddr) -> anyhow::Result<[SocketAddr; N]> {
    // All are held until the last is known, so that they differ.
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind((address, 0))).collect::<Result<_, _>>()?;
    let ports: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    ports.try_into().map_err(|_| anyhow::anyhow!("ports"))
}

fn last_lines(dir: &TempDir, name: &str) -> String {
    let text = fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap_or_default();
    // Its warnings are many and always the same.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('W')).collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
