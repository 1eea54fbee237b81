//! Applications that speak xDS by gRPC's own library, through an agent without
//! Envoy: Python's gRPC as client and server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns;
use istio_tests::process::Process;
use istio_tests::program;
use nix::sys::signal::Signal;

use super::Case;

pub(crate) const CASES: &[Case] = &[("grpc_reaches_a_backend_without_a_proxy", greeter)];

const SCRIPT: &str = include_str!("proxyless.py");
/// Whom the client asks for: neither the name nor the address of the service
/// leads anywhere but by xDS.
const TARGET: &str = "xds:///greeter.grpc.svc.cluster.local:7070";
/// Longest time in which the agent ends.
const LIMIT: Duration = Duration::from_secs(30);

/// The service, and the server behind it.
fn objects() -> String {
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: grpc}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: greeter, namespace: grpc}}
---
apiVersion: v1
kind: Service
metadata: {{name: greeter, namespace: grpc}}
spec:
  clusterIP: 10.96.99.99
  selector: {{app: greeter}}
  ports: [{{name: grpc, port: 7070, targetPort: 17070}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: greeter, namespace: grpc, labels: {{kubernetes.io/service-name: greeter}}}}
addressType: IPv4
ports: [{{name: grpc, port: 17070}}]
endpoints: [{{addresses: [{CLIENT}], conditions: {{ready: true}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: greeter-1, namespace: grpc, labels: {{app: greeter, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: greeter, containers: []}}
status: {{podIP: {CLIENT}, phase: Running}}
"
    )
}

/// Mutual TLS at both ends.
const SECURE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: greeter, namespace: grpc}
spec: {host: greeter.grpc.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: grpc}
spec: {mtls: {mode: STRICT}}
";
const PLAIN: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: grpc}
spec: {mtls: {mode: DISABLE}}
";

/// An agent without Envoy, in the namespace of the client without a sidecar.
struct Agent<'a> {
    mesh: &'a Mesh,
    dir: tempfile::TempDir,
    process: Option<Process>,
}

impl Agent<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let token = self.mesh.istiod.token("grpc", "greeter")?;
        let files = [
            (names::path::TOKEN, token),
            (names::path::ISTIOD_ROOT_CERT, self.mesh.istiod.root()?),
            (names::path::POD_LABELS, "app=\"greeter\"\nsecurity.istio.io/tlsMode=\"istio\"\n".to_owned()),
        ];
        for (path, text) in files {
            let file = self.at(path);
            fs::create_dir_all(file.parent().context("a folder")?)?;
            fs::write(file, text)?;
        }
        let mut agent = netns::command(&self.mesh.client, &self.mesh.programs().ours("istio-agent"));
        agent.args(["proxy", "sidecar"]).current_dir(&self.dir);
        agent
            .env("POD_NAME", "greeter-1")
            .env("POD_NAMESPACE", "grpc")
            .env("SERVICE_ACCOUNT", "greeter")
            .env("INSTANCE_IP", CLIENT.to_string())
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("CLOUD_PLATFORM", "none")
            .env("OUTPUT_CERTS", self.at("certs"))
            .env("DISABLE_ENVOY", "true");
        self.process = Some(Process::start(agent, &self.at("agent.log"))?);
        Mesh::wait("bootstrap and certificates", || {
            for file in ["etc/istio/proxy/grpc-bootstrap.json", "certs/cert-chain.pem", "certs/root-cert.pem"]
            {
                ensure!(self.at(file).is_file(), "{file} is not there: {}", self.output());
            }
            Ok(())
        })
    }

    fn output(&self) -> String {
        fs::read_to_string(self.at("agent.log")).unwrap_or_default()
    }

    /// A program of Python's gRPC beside the agent.
    fn python(&self, packages: &Path, args: &[&str]) -> Command {
        let mut python = netns::command(&self.mesh.client, Path::new("python3"));
        python
            .arg(self.at("greeter.py"))
            .args(args)
            .env("PYTHONPATH", packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GRPC_XDS_BOOTSTRAP", self.at("etc/istio/proxy/grpc-bootstrap.json"));
        python
    }

    /// Asks until the answer is the wanted one.
    fn wait_answer(&self, packages: &Path, wanted: &str) -> anyhow::Result<()> {
        Mesh::wait("the answer of the backend", || {
            let output = self.python(packages, &["ask", TARGET, "reader"]).output()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let error = || String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(text == wanted, "{text:?}, not {wanted:?}: {} {}", error(), self.output());
            Ok(())
        })
    }
}

fn greeter(mesh: &mut Mesh) -> anyhow::Result<()> {
    let packages = program::grpc()?;
    mesh.write("greeter.yaml", &objects())?;
    mesh.write("greeter-security.yaml", PLAIN)?;
    let result = reach(mesh, &packages);
    for name in ["greeter.yaml", "greeter-security.yaml"] {
        fs::remove_file(mesh.objects.join(name))?;
    }
    result
}

fn reach(mesh: &Mesh, packages: &Path) -> anyhow::Result<()> {
    let mut agent = Agent { mesh, dir: tempfile::tempdir()?, process: None };
    agent.start()?;
    fs::write(agent.at("greeter.py"), SCRIPT)?;
    let server = agent.python(packages, &["serve", "0.0.0.0:17070"]);
    let _server = Process::start(server, &agent.at("server.log"))?;

    agent.wait_answer(packages, "hello reader over insecure as")?;
    // Both ends follow the policy, with the certificates that the agent writes.
    mesh.write("greeter-security.yaml", SECURE)?;
    agent.wait_answer(packages, "hello reader over tls as spiffe://cluster.local/ns/grpc/sa/greeter")?;

    let mut process = agent.process.take().context("the agent")?;
    process.signal(Signal::SIGTERM);
    let status = process.wait(LIMIT)?;
    ensure!(status.success(), "{status}: {}", agent.output());
    Ok(())
}
