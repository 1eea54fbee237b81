//! One pod: what an injected one has, without Kubernetes.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use names::port::PROXY_UID;

use super::{Hopeless, Mesh};
use crate::client::Ask;
use crate::netns::{self, Network};
use crate::process::Process;
use crate::program::Programs;

/// Variable by which an injected pod has its DNS requests answered by the agent.
pub const DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";
/// Annotation for how the traffic of a pod is taken.
const INTERCEPTION: &str = "sidecar.istio.io/interceptionMode";
/// User of the applications.
const APP_UID: u32 = 65534;

/// What a Pod object says.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Workload {
    /// Whether it is a gateway: a proxy that stands alone, and takes connections itself.
    pub fn is_gateway(&self) -> bool {
        self.annotations.get("inject.istio.io/templates").is_some_and(|name| name == "gateway")
    }

    /// How its traffic is taken: `REDIRECT` or `TPROXY`.
    pub fn interception(&self) -> &str {
        self.annotations.get(INTERCEPTION).map_or("REDIRECT", String::as_str)
    }

    /// Whether it has no proxy at all.
    pub fn is_bare(&self) -> bool {
        self.labels.get("sidecar.istio.io/inject").is_some_and(|value| value == "false")
    }
}

/// A pod and its programs.
#[derive(Debug)]
pub struct Pod {
    /// What it stands for.
    pub workload: Workload,
    /// Its network namespace.
    pub network: String,
    /// Its root directory, as far as the agent is concerned.
    pub dir: PathBuf,
    /// The application.
    pub app: Option<Process>,
    /// The agent, whose child is Envoy.
    pub agent: Option<Process>,
    programs: Programs,
    log: PathBuf,
}

impl Pod {
    pub(super) fn create(
        network: &mut Network,
        programs: &Programs,
        dir: &Path,
        workload: Workload,
    ) -> anyhow::Result<Self> {
        let namespace = network.add(&workload.name, workload.address)?;
        let pod = Self {
            dir: dir.join("pods").join(&workload.name),
            log: dir.join("log"),
            network: namespace,
            app: None,
            agent: None,
            programs: programs.clone(),
            workload,
        };
        netns::make(|| pod.write_files())?;
        Ok(pod)
    }

    fn write_files(&self) -> anyhow::Result<()> {
        let Workload { labels, annotations, .. } = &self.workload;
        for (path, values) in [(names::path::POD_LABELS, labels), (names::path::POD_ANNOTATIONS, annotations)]
        {
            // As the downward API writes them.
            let lines = values.iter().map(|(name, value)| format!("{name}={value:?}\n"));
            self.write(path, &lines.collect::<String>())?;
        }
        for path in [names::path::TOKEN, names::path::ISTIOD_ROOT_CERT, names::path::SDS_SOCKET] {
            fs::create_dir_all(self.dir.join(path).parent().context("a file has a folder")?)?;
        }
        fs::create_dir_all(self.dir.join(names::path::CONFIG_PATH))?;
        for path in fs_tree(&self.dir)? {
            chown(&path, Some(PROXY_UID), Some(PROXY_UID)).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let file = self.dir.join(path);
        let parent = file.parent().context("a file has a folder")?;
        fs::create_dir_all(parent)?;
        let next = parent.join("next.tmp");
        fs::write(&next, text).with_context(|| next.display().to_string())?;
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600))?;
        chown(&next, Some(PROXY_UID), Some(PROXY_UID))?;
        fs::rename(&next, &file).with_context(|| file.display().to_string())
    }

    /// Gives it a token.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_token(&self, token: &str) -> anyhow::Result<()> {
        self.write(names::path::TOKEN, token)
    }

    /// Gives it the roots of the mesh.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_root(&self, roots: &str) -> anyhow::Result<()> {
        self.write(names::path::ISTIOD_ROOT_CERT, roots)
    }

    /// A command of the pod's init container.
    pub fn init(&self, args: &[&str]) -> Command {
        let mut command = netns::command(&self.network, &self.programs.ours("istio-init"));
        command.args(args);
        command
    }

    /// Redirects its traffic with the arguments of an injected pod, its DNS
    /// requests to the agent too if they are to be captured.
    ///
    /// # Errors
    /// What istio-init says.
    pub fn redirect(&self, captures_dns: bool) -> anyhow::Result<()> {
        let mode = self.workload.interception();
        let args = ["-p", "15001", "-z", "15006", "-u", "1337", "-m", mode, "-i", "*", "-x", ""];
        let args = args.into_iter().chain(["-b", "*", "-d", "15090,15021,15020"]);
        let args = args.chain(captures_dns.then_some("--redirect-dns"));
        let output = self.init(&args.collect::<Vec<_>>()).output().context("istio-init")?;
        succeeded("istio-init", &output)?;
        // Where Envoy connected in vain, the kernel keeps the connection, without
        // redirection, for two minutes; an application that is given the same port
        // meanwhile would go past Envoy.
        netns::inside(&self.network, || {
            fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "1").ok();
            Ok(())
        })
    }

    /// A command of another program, as the pod's application or its proxy.
    pub fn command(&self, user: User, program: &Path) -> Command {
        let id = match user {
            User::App => APP_UID,
            User::Proxy => PROXY_UID,
        };
        // A transparent proxy runs as root, as an injected one does: by its user the
        // kernel tells its connections to the application from those to be taken.
        let is_root = matches!(user, User::Proxy) && self.workload.interception() == "TPROXY";
        let uid = if is_root { 0 } else { id };
        let mut command = netns::command(&self.network, Path::new("setpriv"));
        command.args([&format!("--reuid={uid}"), &format!("--regid={id}"), "--clear-groups"]);
        command.arg("--").arg(program);
        command.current_dir(&self.dir);
        command
    }

    /// Starts the application, if it has one, and the agent.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(&mut self, env: &[(String, String)]) -> anyhow::Result<()> {
        if !self.workload.is_gateway() {
            self.start_app()?;
        }
        self.start_agent(env)
    }

    /// Starts the application alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_app(&mut self) -> anyhow::Result<()> {
        let label = |name: &str| self.workload.labels.get(name).map_or("", String::as_str);
        let mut app = self.command(User::App, &self.programs.harness);
        app.args(["app", label("app"), label("version")]).current_dir("/");
        self.app = Some(Process::start(app, &self.log.join(format!("{}.app.log", self.workload.name)))?);
        Ok(())
    }

    /// Starts the agent alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self, env: &[(String, String)]) -> anyhow::Result<()> {
        let Workload { name, namespace, address, service_account, .. } = &self.workload;
        let mut agent = self.command(User::Proxy, &self.programs.ours("istio-agent"));
        let role = if self.workload.is_gateway() { "router" } else { "sidecar" };
        agent.args(["proxy", role, "--domain", &format!("{namespace}.svc.cluster.local")]);
        agent.args(["--proxyLogLevel=warning", "--log_output_level=default:info"]);
        let envoy = self.programs.envoy.display();
        agent
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", namespace)
            .env("INSTANCE_IP", address.to_string())
            .env("SERVICE_ACCOUNT", service_account)
            .env("TRUST_DOMAIN", "cluster.local")
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("ISTIO_META_INTERCEPTION_MODE", self.workload.interception())
            // Of a pod without an owner the name is the workload's, for istiod too.
            .env("ISTIO_META_WORKLOAD_NAME", name)
            .env("PROXY_CONFIG", format!("{{binaryPath: '{envoy}', concurrency: 2}}"));
        for (name, value) in env {
            agent.env(name, value);
        }
        self.agent = Some(Process::start(agent, &self.agent_log())?);
        // Envoy, as the proxy's user, opens its standard output anew for access logs.
        fs::set_permissions(self.agent_log(), fs::Permissions::from_mode(0o666))?;
        Ok(())
    }

    pub(super) fn agent_log(&self) -> PathBuf {
        self.log.join(format!("{}.proxy.log", self.workload.name))
    }

    /// What agent and Envoy printed.
    pub fn output(&self) -> String {
        fs::read_to_string(self.agent_log()).unwrap_or_default()
    }

    /// Waits until the proxy and the application are ready.
    ///
    /// # Errors
    /// When they are not in time, with the end of the proxy's log.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let name = self.workload.name.clone();
        let ready = Mesh::wait(&format!("{name} ready"), || {
            for process in [&mut self.app, &mut self.agent].into_iter().flatten() {
                if let Some(status) = process.ended() {
                    return Err(Hopeless(format!("ended: {status}")).into());
                }
            }
            if self.agent.is_some() {
                let probe =
                    Ask::get((Ipv4Addr::LOCALHOST, names::port::ENVOY_HEALTH), "pod", "/healthz/ready");
                let answer = probe.from(&self.network)?;
                ensure!(answer.status.is_success(), "{}", answer.body.trim());
            }
            if self.app.is_some() {
                Ask::get((Ipv4Addr::LOCALHOST, crate::app::PORT), "app", "/headers").from(&self.network)?;
            }
            Ok(())
        });
        ready.with_context(|| {
            let output = self.output();
            let lines: Vec<&str> = output.lines().rev().take(15).collect();
            format!("log of {name}:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })
    }
}

/// Whose program it is.
#[derive(Clone, Copy, Debug)]
pub enum User {
    /// The application's.
    App,
    /// The proxy's.
    Proxy,
}

/// What a program said when it failed.
///
/// # Errors
/// When it failed.
pub fn succeeded(name: &str, output: &Output) -> anyhow::Result<()> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name}: {}: {}{}", output.status, out, err);
    Ok(())
}

/// A folder and everything in it.
fn fs_tree(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = vec![dir.to_owned()];
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            paths.extend(fs_tree(&path)?);
        } else {
            paths.push(path);
        }
    }
    Ok(paths)
}
