//! A small shop: a front that calls a back, a shadow of the back, a gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use istio_tests::call::{Call, Reply, Scheme};
use istio_tests::echo::METRICS;
use istio_tests::mesh::pod::User;
use istio_tests::mesh::{CLIENT, Mesh, Options};
use istio_tests::netns;
use istio_tests::process::Process;
use istio_tests::program::Programs;

/// Service of the back.
pub(crate) const BACK: Ipv4Addr = Ipv4Addr::new(10, 96, 3, 2);
/// Address of the back's pod.
pub(crate) const BACK_POD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
/// Address of the gateway.
pub(crate) const EDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 30);
/// A host outside of the mesh that the mesh knows.
pub(crate) const API: Ipv4Addr = Ipv4Addr::new(10, 96, 3, 9);
/// Longest wait for one call.
const LIMIT: Duration = Duration::from_secs(10);

/// A Service and the pod behind it, whose proxy asks for this form of peer metadata.
pub(super) fn place(name: &str, last: u8, form: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  clusterIP: 10.96.3.{}
  selector: {{app: {name}}}
  ports:
  - {{name: http, port: 80, targetPort: 18080}}
  - {{name: http2, port: 85, targetPort: 18085}}
  - {{name: grpc, port: 7070, targetPort: 17070}}
  - {{name: tcp, port: 9090, targetPort: 19090}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [10.77.0.{last}], targetRef: {{kind: Pod, name: {name}, namespace: shop}}}}]
ports: [{{name: http, port: 18080}}, {{name: http2, port: 18085}}, {{name: grpc, port: 17070}}, {{name: tcp, port: 19090}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels:
    app: {name}
    version: v1
    service.istio.io/canonical-name: {name}
    service.istio.io/canonical-revision: v1
    security.istio.io/tlsMode: istio
  annotations: {{sidecar.istio.io/peerMetadata: {form}}}
spec: {{serviceAccountName: {name}, containers: [{{name: {name}}}]}}
status: {{phase: Running, podIP: 10.77.0.{last}}}
---
",
        last - 10
    )
}

const OTHERS: &str = "apiVersion: v1
kind: Pod
metadata:
  name: edge
  namespace: edge
  labels:
    app: edge
    version: v1
    istio: edge
    service.istio.io/canonical-name: edge
    service.istio.io/canonical-revision: v1
  annotations: {inject.istio.io/templates: gateway}
spec: {serviceAccountName: edge, containers: [{name: istio-proxy}]}
status: {phase: Running, podIP: 10.77.0.30}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: [shop.example]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: bytes, namespace: edge}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 9090, name: tcp, protocol: TCP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bytes, namespace: shop}
spec:
  hosts: ['*']
  gateways: [edge/bytes]
  tcp: [{route: [{destination: {host: back, port: {number: 9090}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: entry, namespace: shop}
spec:
  hosts: [shop.example]
  gateways: [edge/gw]
  http: [{route: [{destination: {host: back, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: back, namespace: shop}
spec:
  hosts: [back]
  http:
  - match: [{uri: {exact: /status/503}}]
    route: [{destination: {host: back}}]
    retries: {attempts: 2, retryOn: 5xx}
  - match: [{uri: {exact: /reset}}]
    route: [{destination: {host: back}}]
    retries: {attempts: 0}
  - match: [{uri: {exact: /mirror}}]
    route: [{destination: {host: back}}]
    mirrors: [{destination: {host: shadow, port: {number: 80}}}]
  - route: [{destination: {host: back}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secret, namespace: shop}
spec:
  selector: {matchLabels: {app: back}}
  action: DENY
  rules: [{to: [{operation: {paths: [/secret], ports: ['18080']}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example]
  addresses: [10.96.3.9]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.77.0.100}]
";

/// Starts the shop and its servers.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    let folder = tempfile::tempdir()?;
    for (name, objects) in [
        ("front", place("front", 11, "full")),
        ("back", place("back", 12, "full")),
        ("shadow", place("shadow", 13, "short")),
        ("others", OTHERS.to_owned()),
    ] {
        std::fs::write(folder.path().join(format!("{name}.yaml")), objects)?;
    }
    // As injection writes it: the application of one has metrics of its own.
    let scraped = format!(r#"{{"scrape":"true","path":"{METRICS}","port":"18080"}}"#);
    let options = Options {
        name: "istio-e2e-shop".parse()?,
        objects: folder.path().to_owned(),
        agent_env: [("back".into(), vec![("ISTIO_PROMETHEUS_ANNOTATIONS".into(), scraped)])].into(),
    };
    serve(Mesh::start(&Programs::find()?, &options, &mut |_| {})?)
}

/// The front and the back alone, with further objects and these settings.
pub(crate) fn start_two(name: &str, more: &str, settings: &str) -> anyhow::Result<Mesh> {
    let objects = [place("front", 11, "short"), place("back", 12, "short"), more.to_owned()].concat();
    serve(Mesh::start_with_settings(name, &objects, settings)?)
}

/// With the server in every pod, and one outside.
fn serve(mut mesh: Mesh) -> anyhow::Result<Mesh> {
    let (harness, log) = (mesh.programs().harness.clone(), mesh.dir.join("log"));
    for pod in mesh.pods.iter_mut().filter(|pod| !pod.workload.is_gateway()) {
        // In the place of the application that every pod has.
        pod.app = None;
        let mut command = pod.command(User::App, &harness);
        command.args(["echo", &pod.workload.name, &pod.workload.address.to_string()]).current_dir("/");
        pod.app = Some(Process::start(command, &log.join(format!("{}.app.log", pod.workload.name)))?);
    }
    let mut command = netns::command(&mesh.client, &harness);
    command.args(["echo", "outside", &CLIENT.to_string(), "--outside"]);
    // It ends with its namespace.
    Process::start(command, &log.join("outside.app.log"))?.release();
    let servers = mesh.pods.iter().filter(|pod| !pod.workload.is_gateway()).map(|pod| &pod.network);
    for namespace in servers.chain([&mesh.client]) {
        // The last one of the echo server's ports.
        let last = (Ipv4Addr::LOCALHOST, 6128);
        Mesh::wait("the servers", || netns::inside(namespace, || Ok(std::net::TcpStream::connect(last)?)))?;
    }
    mesh.wait_synced()?;
    Ok(mesh)
}

/// A call of the back by the front.
pub(crate) fn call(scheme: Scheme, port: u16, path: &str) -> Call {
    Call {
        address: SocketAddr::from((BACK, port)),
        scheme,
        method: "GET".into(),
        host: format!("back:{port}"),
        path: path.into(),
        headers: Vec::new(),
        before: Vec::new(),
        limit: LIMIT,
    }
}

/// Makes a call that many times, from a namespace; each must be answered with that status.
pub(crate) fn repeat(call: &Call, namespace: &str, times: u32, status: u16) -> anyhow::Result<Reply> {
    let mut last = Reply::default();
    for _ in 0..times {
        last = call.from(namespace)?;
        ensure!(last.status == status, "{}: status {}: {:?}", call.path, last.status, last.headers);
    }
    Ok(last)
}

/// A folder of this mesh for what a program keeps.
pub(crate) fn folder(mesh: &Mesh, name: &str) -> std::path::PathBuf {
    Path::new(&mesh.dir).join(name)
}
