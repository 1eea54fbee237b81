//! The mesh of the tables: workloads that all have the same ports.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use istio_tests::echo::{Kind, PORTS};
use istio_tests::mesh::pod::User;
use istio_tests::mesh::{CLIENT, Mesh, Options};
use istio_tests::netns::{self, within};
use istio_tests::process::Process;
use istio_tests::program::Programs;

/// A workload, and the Service of the same name.
struct Place {
    name: &'static str,
    service: Ipv4Addr,
    workload: Ipv4Addr,
    annotations: &'static str,
}

const fn place(name: &'static str, last: u8, annotations: &'static str) -> Place {
    let (service, workload) = (Ipv4Addr::new(10, 96, 1, last), Ipv4Addr::new(10, 77, 0, last));
    Place { name, service, workload, annotations }
}

/// The workload whose proxy knows where others of its kind are.
const ZONED: &str = "zoned";
/// The one without a sidecar, known to the mesh by a Service.
const NAKED: Place = Place { workload: CLIENT, ..place("naked", 9, "") };
/// Those with a sidecar.
const PLACES: &[Place] = &[
    place("a", 11, ""),
    place("b", 12, ""),
    // Its proxy tells nothing of itself.
    place(
        "bare",
        13,
        "proxy.istio.io/config: '{tracing: {}, proxyHeaders: {forwardedClientCert: SANITIZE, server: {disabled: true}, \
         requestId: {disabled: true}, attemptCount: {disabled: true}, envoyDebugHeaders: {disabled: true}, \
         metadataExchangeHeaders: {mode: IN_MESH}}}'",
    ),
    place(
        "xfcc",
        14,
        "proxy.istio.io/config: '{tracing: {}, proxyHeaders: {forwardedClientCert: APPEND_FORWARD, \
         setCurrentClientCertDetails: {subject: true, cert: true}, server: {disabled: true}, \
         requestId: {disabled: true}, attemptCount: {disabled: true}, envoyDebugHeaders: {disabled: true}, \
         metadataExchangeHeaders: {mode: IN_MESH}}}'",
    ),
    place("case", 15, "proxy.istio.io/config: '{proxyHeaders: {preserveHttp1HeaderCase: true}}'"),
    place("transparent", 16, "sidecar.istio.io/interceptionMode: TPROXY"),
    // It knows others of its kind, by the services of a case alone.
    place(ZONED, 17, ""),
];
/// Where all with a sidecar are.
const LOCALITY: &str = "region.zone.subzone";
/// Further addresses of the one without a sidecar.
const MORE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 0, 101), Ipv4Addr::new(10, 77, 0, 102), Ipv4Addr::new(10, 77, 0, 103)];
/// The gateway for what leaves the mesh.
const EGRESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: egress, namespace: default}
spec:
  clusterIP: 10.96.1.18
  selector: {istio: egressgateway}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
---
apiVersion: v1
kind: Pod
metadata:
  name: egress
  namespace: default
  labels: {app: egress, istio: egressgateway}
  annotations: {inject.istio.io/templates: gateway}
spec: {serviceAccountName: egress, containers: [{name: istio-proxy}]}
status: {phase: Running, podIP: 10.77.0.18}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: egress-1, namespace: default, labels: {kubernetes.io/service-name: egress}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.18], targetRef: {kind: Pod, name: egress, namespace: default}}]
ports: [{name: http, port: 8080}, {name: https, port: 8443}]
---
";

/// A gateway behind a load balancer that speaks the PROXY protocol.
const BALANCED: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: balanced
  namespace: default
  labels: {app: balanced, istio: balanced}
  annotations:
    inject.istio.io/templates: gateway
    proxy.istio.io/config: '{gatewayTopology: {proxyProtocol: {}}}'
spec: {serviceAccountName: balanced, containers: [{name: istio-proxy}]}
status: {phase: Running, podIP: 10.77.0.19}
---
";

/// The Service of a workload and its endpoint.
fn service(place: &Place, target: &str) -> String {
    let Place { name, service, workload, .. } = place;
    let (mut ports, mut targets) = (String::new(), String::new());
    for port in PORTS.iter().filter(|port| port.kind != Kind::Forward) {
        let (called, number, at) = (port.name, port.service, port.workload);
        write!(ports, "{{name: {called}, port: {number}, targetPort: {at}}}, ").ok();
        write!(targets, "{{name: {called}, port: {at}}}, ").ok();
    }
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: {service}, selector: {{app: {name}}}, ports: [{ports}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [{workload}]{target}}}]
ports: [{targets}]
---
"
    )
}

fn objects() -> String {
    let mut text = service(&NAKED, "") + EGRESS + BALANCED;
    for place in PLACES {
        let Place { name, workload, annotations, .. } = place;
        if *name != ZONED {
            text += &service(place, &format!(", targetRef: {{kind: Pod, name: {name}, namespace: default}}"));
        }
        let annotations = match *annotations {
            "" => String::new(),
            annotations => format!(", annotations: {{{annotations}}}"),
        };
        write!(
            text,
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: {name}, security.istio.io/tlsMode: istio, istio-locality: {LOCALITY}}}{annotations}}}
spec: {{serviceAccountName: {name}, containers: [{{name: {name}}}]}}
status: {{phase: Running, podIP: {workload}}}
---
"
        )
        .ok();
    }
    text
}

/// Starts the mesh and the servers.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("world.yaml"), objects())?;
    let options = Options {
        name: "istio-e2e-cases".parse()?,
        objects: folder.path().to_owned(),
        agent_env: BTreeMap::from([(
            ZONED.into(),
            vec![("ISTIO_META_ENABLE_SELF_DISCOVERY".into(), "true".into())],
        )]),
    };
    let mut mesh = Mesh::start(&Programs::find()?, &options, &mut |_| {})?;
    for address in MORE {
        let mut command = netns::command(&mesh.client, Path::new("ip"));
        let status = command.args(["addr", "add", &format!("{address}/16"), "dev", "eth0"]).status();
        ensure!(status.context("ip")?.success(), "address {address}");
    }
    let harness = mesh.programs().harness.clone();
    let log = mesh.dir.join("log");
    for pod in mesh.pods.iter_mut().filter(|pod| !pod.workload.is_gateway()) {
        // In the place of the application that every pod has.
        pod.app = None;
        let mut command = pod.command(User::App, &harness);
        command.args(["echo", &pod.workload.name, &pod.workload.address.to_string()]).current_dir("/");
        pod.app = Some(Process::start(command, &log.join(format!("{}.app.log", pod.workload.name)))?);
    }
    let mut command = netns::command(&mesh.client, &harness);
    command.args(["echo", "naked", &CLIENT.to_string(), "--outside"]);
    // It ends with its namespace.
    Process::start(command, &log.join("naked.app.log"))?.release();
    let last = PORTS.last().context("ports")?.workload;
    for namespace in namespaces(&mesh) {
        Mesh::wait("the servers", || {
            within(namespace, || async {
                tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, last)).await?;
                Ok(())
            })
        })?;
    }
    Ok(mesh)
}

/// Where the servers are.
fn namespaces(mesh: &Mesh) -> impl Iterator<Item = &str> {
    let pods = mesh.pods.iter().filter(|pod| !pod.workload.is_gateway());
    pods.map(|pod| pod.network.as_str()).chain([mesh.client.as_str()])
}

/// The namespace from which a workload calls.
pub(super) fn namespace<'a>(mesh: &'a Mesh, name: &str) -> anyhow::Result<&'a str> {
    if name == NAKED.name { Ok(&mesh.client) } else { Ok(&mesh.pod(name)?.network) }
}

/// Address of a workload.
pub(super) fn workload(name: &str) -> anyhow::Result<Ipv4Addr> {
    let place = PLACES.iter().chain([&NAKED]).find(|place| place.name == name);
    Ok(place.with_context(|| format!("no workload {name}"))?.workload)
}

/// What a table calls a target: the name of a Service, `NAME.pod` for its workload,
/// or an address. With `true` when ports are those of the workload.
pub(super) fn target(name: &str) -> anyhow::Result<(Ipv4Addr, bool)> {
    if let Ok(address) = name.parse() {
        return Ok((address, false));
    }
    if let Some(name) = name.strip_suffix(".pod") {
        return Ok((workload(name)?, true));
    }
    let place = PLACES.iter().chain([&NAKED]).find(|place| place.name == name);
    Ok((place.with_context(|| format!("no target {name}"))?.service, false))
}

/// Number of a port, by its name or itself.
pub(super) fn port(name: &str, of_workload: bool) -> anyhow::Result<u16> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let port = PORTS.iter().find(|port| port.name == name).with_context(|| format!("no port {name}"))?;
    Ok(if of_workload { port.workload } else { port.service })
}
