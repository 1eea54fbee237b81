//! What Istio has off by default: unknown hosts by DNS, sessions that persist,
//! HTTP/3 at gateways, balancing by reported load; and certificates in ConfigMaps.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, ensure};
use istio_tests::client::{Answer, Ask};
use istio_tests::mesh::{CLIENT, Mesh, Options, SETTINGS};
use istio_tests::netns;
use istio_tests::process::Process;
use istio_tests::program::Programs;

use super::Case;
use super::gateway::{Certificates, POD};

pub(crate) const CASES: &[Case] = &[
    ("requests_to_unknown_hosts_go_where_dns_says", unknown_hosts),
    ("a_session_persists_at_one_endpoint", session),
    ("a_gateway_speaks_http3", http3),
    ("a_sidecar_trusts_roots_in_a_config_map", config_map),
    ("nothing_of_it_is_refused", accepted),
];

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, labels: {istio.io/persistent-session: shop}}
spec: {clusterIP: 10.96.0.11, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: default, labels: {app: web, version: v1, sidecar.istio.io/inject: 'false'}}
spec: {containers: [{name: web}]}
status: {phase: Running, podIP: 10.77.0.11}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: default, labels: {app: web, version: v2, sidecar.istio.io/inject: 'false'}}
spec: {containers: [{name: web}]}
status: {phase: Running, podIP: 10.77.0.12}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.77.0.11], targetRef: {kind: Pod, name: web-1, namespace: default}}
- {addresses: [10.77.0.12], targetRef: {kind: Pod, name: web-2, namespace: default}}
ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec: {host: web, subsets: [{name: load, trafficPolicy: {loadBalancer: {backendUtilization: {weightUpdatePeriod: 1s}}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: default, labels: {app: caller}}
spec: {containers: [{name: caller}]}
status: {phase: Running, podIP: 10.77.0.13}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: edge}
spec:
  clusterIP: 10.96.0.20
  selector: {istio: edge}
  ports: [{name: https, port: 443, targetPort: 8443}, {name: http3, port: 443, targetPort: 8443, protocol: UDP}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [secure.example], tls: {mode: SIMPLE, credentialName: secure}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [secure.example]
  gateways: [edge/gw]
  http: [{route: [{destination: {host: web, port: {number: 80}, subset: load}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: secure, namespace: default}
spec:
  hosts: [secure.example]
  addresses: [10.96.0.40]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8443}]
  endpoints: [{address: 10.77.0.30}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: secure, namespace: default}
spec:
  host: secure.example
  trafficPolicy: {tls: {mode: SIMPLE, sni: secure.example, credentialName: 'configmap://default/roots'}}
---
";

/// An Envoy that asks the gateway over HTTP/3 what it is asked over HTTP/1.
const QUIC_CLIENT: &str = r#"{
 "static_resources": {
  "listeners": [{
   "address": {"socket_address": {"address": "10.77.0.100", "port_value": 10000}},
   "filter_chains": [{"filters": [{
    "name": "http",
    "typed_config": {
     "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
     "stat_prefix": "in",
     "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "edge"}}]}]},
     "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
    }
   }]}]
  }],
  "clusters": [{
   "name": "edge",
   "type": "STATIC",
   "load_assignment": {"cluster_name": "edge", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.77.0.30", "port_value": 8443}}}}]}]},
   "transport_socket": {
    "name": "envoy.transport_sockets.quic",
    "typed_config": {
     "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
     "upstream_tls_context": {
      "sni": "secure.example",
      "common_tls_context": {"validation_context": {"trusted_ca": {"filename": "ROOTS"}}}
     }
    }
   },
   "typed_extension_protocol_options": {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
     "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
     "explicit_http_config": {"http3_protocol_options": {}}
    }
   }
  }]
 }
}"#;

/// The mesh of all cases.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    let objects = tempfile::tempdir()?;
    let certificates = Certificates::new()?;
    let roots = certificates.roots.trim_end().replace('\n', "\n    ");
    let secrets = format!(
        "{}apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: roots, namespace: default}}\ndata:\n  ca.crt: |\n    {roots}\n",
        certificates.secret("edge", "secure", "secure.example")?,
    );
    fs::write(objects.path().join("mesh.yaml"), OBJECTS)?;
    fs::write(objects.path().join("edge.yaml"), POD)?;
    fs::write(objects.path().join("secrets.yaml"), secrets)?;
    let options = Options {
        name: "istio-e2e-dynamic".parse()?,
        objects: objects.path().to_owned(),
        agent_env: BTreeMap::new(),
    };
    let settings = [(SETTINGS, "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}")];
    let mut mesh = Mesh::start_with_files(&Programs::find()?, &options, &settings, &mut |_| {})?;
    fs::write(mesh.dir.join("roots.pem"), &certificates.roots)?;
    mesh.istiod.env =
        vec![("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "true"), ("PILOT_ENABLE_QUIC_LISTENERS", "true")];
    mesh.istiod.stop()?;
    mesh.istiod.start()?;
    mesh.wait_synced()?;
    Ok(mesh)
}

fn ask(mesh: &Mesh, ask: &Ask) -> anyhow::Result<Answer> {
    ask.from(&mesh.pod("caller")?.network)
}

fn unknown_hosts(mesh: &mut Mesh) -> anyhow::Result<()> {
    // No service has the name, and nobody listens at the address that the client takes for it.
    let to_istiod = Ask::get((CLIENT, 7777), "istiod.istio-system.svc:8080", "/ready");
    Mesh::wait("an answer of the host's own", || {
        let answer = ask(mesh, &to_istiod)?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(())
    })?;
    let clusters = mesh.pod("caller")?.admin("/clusters")?;
    ensure!(clusters.contains("AllowAnyDynamicDNSCluster::10.77.0.2:8080"), "{clusters}");
    let none = ask(mesh, &Ask::get((CLIENT, 7777), "no.such.host.invalid:8080", "/"))?;
    ensure!(none.status == 503, "{}", none.status);
    Ok(())
}

fn session(mesh: &mut Mesh) -> anyhow::Result<()> {
    let web = Ask::get(([10, 96, 0, 11], 80), "web", "/headers");
    let cookie = Mesh::wait("a cookie", || {
        let answer = ask(mesh, &web)?;
        let cookie = answer.headers.get("set-cookie").context("no cookie")?.to_str()?.to_owned();
        ensure!(cookie.starts_with("shop="), "{cookie}");
        Ok(cookie)
    })?;
    let value = cookie.split(';').next().unwrap_or_default().to_owned();
    let version = |ask_it: &Ask| anyhow::Ok(ask(mesh, ask_it)?.json()?["version"].to_string());
    let kept = web.clone().header("cookie", &value);
    let first = version(&kept)?;
    for _ in 0..20 {
        let next = version(&kept)?;
        ensure!(next == first, "the session went from {first} to {next}");
    }
    Mesh::wait("the other endpoint without a session", || {
        ensure!(version(&web)? != first, "always {first}");
        Ok(())
    })
}

fn http3(mesh: &mut Mesh) -> anyhow::Result<()> {
    let file = mesh.dir.join("quic.json");
    let roots = mesh.dir.join("roots.pem");
    fs::write(&file, QUIC_CLIENT.replace("ROOTS", &roots.display().to_string()))?;
    let mut command = netns::command(&mesh.client, &mesh.programs().envoy);
    command.arg("-c").arg(&file).args(["--concurrency", "1", "--use-dynamic-base-id"]);
    let _client = Process::start(command, &mesh.dir.join("log/quic.log"))?;
    let answer = Mesh::wait("an answer over HTTP/3", || {
        let answer = Ask::get((CLIENT, 10000), "secure.example", "/headers").from(&mesh.client)?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(answer)
    })?;
    // Clients over TCP are told of it by the same routes.
    let told = answer.headers.get("alt-svc").context("no alt-svc")?.to_str()?;
    ensure!(told == "h3=\":443\"; ma=86400", "{told}");
    Ok(())
}

fn config_map(mesh: &mut Mesh) -> anyhow::Result<()> {
    let answer = Mesh::wait("an answer over TLS", || {
        let answer = ask(mesh, &Ask::get(([10, 96, 0, 40], 80), "secure.example", "/headers"))?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(answer)
    })?;
    ensure!(answer.json()?["name"] == "web", "{}", answer.body);
    Ok(())
}

fn accepted(mesh: &mut Mesh) -> anyhow::Result<()> {
    for name in ["caller", "edge"] {
        for kind in ["listener_manager.lds", "cluster_manager.cds"] {
            let refused = mesh.pod(name)?.stat(&format!("{kind}.update_rejected"))?;
            ensure!(refused == 0, "{name} refused {refused} of {kind}");
        }
    }
    mesh.wait_synced()
}
