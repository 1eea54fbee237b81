//! One Envoy with the module.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::application::Application;
use crate::bootstrap;

/// Who both proxies are.
const NODE: &str = r#"{"NAME":"a-1","NAMESPACE":"x","WORKLOAD_NAME":"a","CLUSTER_ID":"c1","INSTANCE_IPS":"10.0.0.1",
    "OWNER":"kubernetes://apis/apps/v1/namespaces/x/deployments/a","LABELS":{"app":"a","version":"v1",
    "service.istio.io/canonical-name":"a-service","service.istio.io/canonical-revision":"v1"}}"#;

/// Ports of its listeners.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// Outbound HTTP.
    pub(crate) out: u16,
    /// Inbound HTTP, mutual TLS.
    pub(crate) inbound: u16,
    /// Inbound HTTP, plaintext.
    pub(crate) plain: u16,
    /// Inbound HTTP with changed tags.
    pub(crate) tags: u16,
    /// Outbound TCP.
    pub(crate) tcp_out: u16,
    /// Inbound TCP, mutual TLS.
    pub(crate) tcp_in: u16,
    /// Metrics.
    pub(crate) scrape: u16,
    /// Envoy's own interface.
    pub(crate) admin: u16,
}

/// A running one.
pub(crate) struct Envoy {
    pub(crate) ports: Ports,
    child: Child,
    dir: tempfile::TempDir,
}

impl Envoy {
    /// Starts it, and waits until it listens. None where there is no Envoy.
    pub(crate) fn start(application: &Application, env: &[(&str, &str)]) -> Option<Self> {
        let envoy = program()?;
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::free();
        let bootstrap = dir.path().join("envoy.json");
        std::fs::write(&bootstrap, bootstrap::text(dir.path(), &ports, application)).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = command(&envoy, &bootstrap)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self { ports, child, dir };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", ports.scrape)).is_err() {
            let ended = envoy.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "{}", envoy.log());
            thread::sleep(Duration::from_millis(20));
        }
        Some(envoy)
    }

    /// What an Envoy that only reads a changed bootstrap says; it must refuse it.
    pub(crate) fn validate(application: &Application, change: impl Fn(String) -> String) -> Option<String> {
        let envoy = program()?;
        let dir = tempfile::tempdir().unwrap();
        let bootstrap = dir.path().join("envoy.json");
        let text = bootstrap::text(dir.path(), &Ports::free(), application);
        std::fs::write(&bootstrap, change(text)).unwrap();
        let output = command(&envoy, &bootstrap).args(["--mode", "validate"]).output().unwrap();
        assert!(!output.status.success());
        Some(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ports {
    fn free() -> Self {
        let listeners = [(); 8].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [out, inbound, plain, tags, tcp_out, tcp_in, scrape, admin] =
            listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        Self { out, inbound, plain, tags, tcp_out, tcp_in, scrape, admin }
    }
}

fn command(envoy: &Path, bootstrap: &Path) -> Command {
    let mut command = Command::new(envoy);
    command.arg("-c").arg(bootstrap);
    command.args(["--concurrency", "2", "--disable-hot-restart", "-l", "warning"]);
    command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", modules());
    command.env("ISTIO_TELEMETRY_NODE", NODE);
    command
}

/// Cargo puts the module beside this program, or one folder above.
fn modules() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let mut dirs = own.ancestors().skip(1).take(2);
    dirs.find(|dir| dir.join("libistio_telemetry.so").exists()).expect("the module is built").to_owned()
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("ISTIO_TEST_ENVOY").map(PathBuf::from).filter(|path| path.exists());
    let is_required = std::env::var_os("ISTIO_TEST_REQUIRE").is_some_and(|value| value == "1");
    assert!(path.is_some() || !is_required, "ISTIO_TEST_ENVOY names no Envoy");
    if path.is_none() {
        println!("left out: ISTIO_TEST_ENVOY names no Envoy");
    }
    path
}
