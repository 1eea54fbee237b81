//! Gateways: a `router` proxy at the edge of the mesh, asked by a client outside of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use istio_tests::client::Ask;
use istio_tests::mesh::{CLIENT, Mesh, Options};
use istio_tests::netns;
use istio_tests::process::Process;
use istio_tests::program::Programs;
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_gateway_routes_requests_by_host", by_host),
    ("a_gateway_ends_tls_with_a_secret", ends_tls),
    ("a_gateway_sends_plaintext_away_to_https", redirects),
    ("a_gateway_asks_for_a_client_certificate", mutual),
    ("a_gateway_passes_tls_on_by_its_server_name", passes_on),
    ("a_gateway_forwards_bytes", bytes),
    ("a_gateway_does_not_get_secrets_of_other_namespaces", foreign),
    ("a_gateway_takes_a_new_certificate", rotation),
    ("no_key_of_a_gateway_is_in_a_log_or_a_page", secrecy),
];

/// Address of the gateway.
const EDGE: &str = "10.77.0.30";

/// The gateway.
pub(super) const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: edge
  namespace: edge
  labels: {app: edge, istio: edge}
  annotations: {inject.istio.io/templates: gateway}
spec: {serviceAccountName: edge, containers: [{name: istio-proxy}]}
status: {phase: Running, podIP: 10.77.0.30}
";

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.11, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}, {name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {containers: [{name: web, ports: [{containerPort: 9080}]}]}
status: {phase: Running, podIP: 10.77.0.11}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.11], targetRef: {kind: Pod, name: web, namespace: default}}]
ports: [{name: http, port: 9080}, {name: tcp, port: 9000}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: pass, namespace: default}
spec: {clusterIP: 10.96.0.12, ports: [{name: tls, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pass-1, namespace: default, labels: {kubernetes.io/service-name: pass}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.100]}]
ports: [{name: tls, port: 9443}]
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: edge}
spec:
  clusterIP: 10.96.0.20
  selector: {istio: edge}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [web.example]}
  - {port: {number: 80, name: redirect, protocol: HTTP}, hosts: [secure.example], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [secure.example], tls: {mode: SIMPLE, credentialName: secure}}
  - {port: {number: 443, name: mutual, protocol: HTTPS}, hosts: [mutual.example], tls: {mode: MUTUAL, credentialName: mutual}}
  - {port: {number: 443, name: pass, protocol: TLS}, hosts: [pass.example], tls: {mode: PASSTHROUGH}}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web.example, secure.example, mutual.example]
  gateways: [edge/gw]
  http:
  - {match: [{uri: {prefix: /never}}], directResponse: {status: 418}}
  - {route: [{destination: {host: web, port: {number: 80}}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pass, namespace: default}
spec:
  hosts: [pass.example]
  gateways: [edge/gw]
  tls: [{match: [{sniHosts: [pass.example]}], route: [{destination: {host: pass}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bytes, namespace: default}
spec:
  hosts: ['bytes.example']
  gateways: [edge/gw]
  tcp: [{match: [{port: 9000}], route: [{destination: {host: web, port: {number: 9000}}}]}]
";

/// Servers that name a Secret of another namespace. Their listener waits for it.
const FOREIGN: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: foreign, namespace: edge}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 8444, name: near, protocol: HTTPS}, hosts: [foreign.example], tls: {mode: SIMPLE, credentialName: foreign}}
  - {port: {number: 8444, name: far, protocol: HTTPS}, hosts: [far.example], tls: {mode: SIMPLE, credentialName: 'kubernetes-gateway://default/foreign'}}
";

/// Certificates for the hosts, and who signs them.
pub(super) struct Certificates {
    issuer: Issuer,
    pub(super) roots: String,
}

impl Certificates {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (issuer, _) = Issuer::self_signed("example", Duration::from_secs(86_400), SystemTime::now())?;
        let roots = issuer.root_pem().to_owned();
        Ok(Self { issuer, roots })
    }

    /// Chain and key.
    fn issue(&self, host: &str) -> anyhow::Result<(String, String)> {
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let (sans, hour) = ([San::Dns(host.to_owned())], Duration::from_secs(3600));
        let chain = self.issuer.issue(&Csr::of_key(&key)?, &sans, hour, SystemTime::now())?;
        Ok((chain[0].clone(), key.to_pkcs8_pem().to_string()))
    }

    /// A Secret with a certificate for a host.
    pub(super) fn secret(&self, namespace: &str, name: &str, host: &str) -> anyhow::Result<String> {
        let (chain, key) = self.issue(host)?;
        let value = |text: &str| text.trim_end().replace('\n', "\n    ");
        Ok(format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n  ca.crt: |\n    {}\n---\n",
            value(&chain),
            value(&key),
            value(&self.roots)
        ))
    }
}

/// The mesh of all cases.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    let objects = tempfile::tempdir()?;
    let certificates = Certificates::new()?;
    fs::write(objects.path().join("mesh.yaml"), OBJECTS)?;
    fs::write(objects.path().join("edge.yaml"), POD)?;
    let secrets = [
        ("edge", "secure", "secure.example"),
        ("edge", "mutual", "mutual.example"),
        ("default", "foreign", "foreign.example"),
    ];
    for (namespace, name, host) in secrets {
        let text = certificates.secret(namespace, name, host)?;
        fs::write(objects.path().join(format!("secret-{name}.yaml")), text)?;
    }
    let options = Options {
        name: "istio-e2e-gateway".parse()?,
        objects: objects.path().to_owned(),
        agent_env: BTreeMap::new(),
    };
    let mesh = Mesh::start(&Programs::find()?, &options, &mut |_| {})?;
    let (chain, key) = certificates.issue("client.example")?;
    let (pass_chain, pass_key) = certificates.issue("pass.example")?;
    for (name, text) in [
        ("roots.pem", &certificates.roots),
        ("client.pem", &chain),
        ("client.key", &key),
        ("pass.pem", &pass_chain),
        ("pass.key", &pass_key),
    ] {
        fs::write(file(&mesh, name), text)?;
    }
    Ok(mesh)
}

fn file(mesh: &Mesh, name: &str) -> PathBuf {
    mesh.dir.join(name)
}

/// What curl prints for a request to a host at the gateway's HTTPS port: the
/// status and the body, or why there is none.
fn https(mesh: &Mesh, host: &str, path: &str, with_certificate: bool) -> anyhow::Result<(String, String)> {
    let mut command = netns::command(&mesh.client, Path::new("curl"));
    command.args(["-sS", "--max-time", "10", "-w", "\n%{http_code}", "--resolve"]);
    command.arg(format!("{host}:8443:{EDGE}")).arg("--cacert").arg(file(mesh, "roots.pem"));
    if with_certificate {
        command.arg("--cert").arg(file(mesh, "client.pem")).arg("--key").arg(file(mesh, "client.key"));
    }
    let output = command.arg(format!("https://{host}:8443{path}")).output().context("curl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let (body, status) = text.rsplit_once('\n').context("no status")?;
    Ok((status.to_owned(), body.to_owned()))
}

fn http(mesh: &Mesh, host: &str, path: &str) -> anyhow::Result<istio_tests::client::Answer> {
    Ask::get((EDGE.parse::<std::net::Ipv4Addr>()?, 8080), host, path).from(&mesh.client)
}

fn by_host(mesh: &mut Mesh) -> anyhow::Result<()> {
    let answer = Mesh::wait("the way through the gateway", || {
        let answer = http(mesh, "web.example", "/headers")?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(answer)
    })?;
    // The workload is called over the mesh's mutual TLS, with the gateway's identity.
    let headers = answer.json()?.to_string();
    ensure!(headers.contains("spiffe://cluster.local/ns/edge/sa/edge"), "{headers}");
    ensure!(answer.headers.get("server").is_some_and(|name| name == "istio-envoy"), "{:?}", answer.headers);
    let named = http(mesh, "web.example:80", "/never")?;
    ensure!(named.status == 418, "a port in the host does not matter: {}", named.status);
    let unknown = http(mesh, "other.example", "/headers")?;
    ensure!(unknown.status == 404, "{}", unknown.status);
    Ok(())
}

fn ends_tls(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (status, body) = Mesh::wait("HTTPS", || https(mesh, "secure.example", "/headers", false))?;
    ensure!(status == "200" && body.contains("spiffe://cluster.local/ns/edge/sa/edge"), "{status}: {body}");
    let unknown = https(mesh, "unknown.example", "/headers", false);
    ensure!(unknown.is_err(), "a name without a server answered {unknown:?}");
    Ok(())
}

fn redirects(mesh: &mut Mesh) -> anyhow::Result<()> {
    let answer = http(mesh, "secure.example", "/headers?a=b")?;
    ensure!(answer.status == 301, "{}", answer.status);
    let location = answer.headers.get("location").context("no location")?.to_str()?;
    ensure!(location == "https://secure.example/headers?a=b", "{location}");
    Ok(())
}

fn mutual(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (status, body) = Mesh::wait("mutual TLS", || https(mesh, "mutual.example", "/headers", true))?;
    ensure!(status == "200", "{status}: {body}");
    ensure!(body.contains("client.example"), "the client's certificate is told: {body}");
    let without = https(mesh, "mutual.example", "/headers", false);
    ensure!(without.is_err(), "without a certificate: {without:?}");
    Ok(())
}

fn passes_on(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut command = netns::command(&mesh.client, Path::new("openssl"));
    command.args(["s_server", "-quiet", "-www", "-accept", &format!("{CLIENT}:9443")]);
    command.arg("-cert").arg(file(mesh, "pass.pem")).arg("-key").arg(file(mesh, "pass.key"));
    let _server = Process::start(command, &mesh.dir.join("log/pass.log"))?;
    let (status, body) = Mesh::wait("the server behind", || https(mesh, "pass.example", "/", false))?;
    ensure!(status == "200" && body.contains("s_server"), "{status}: {body}");
    Ok(())
}

fn bytes(mesh: &mut Mesh) -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    Mesh::wait("an echo", || {
        netns::within(&mesh.client, || async {
            let mut stream = tokio::net::TcpStream::connect((EDGE, 9000)).await?;
            stream.write_all(b"hello").await?;
            let mut echo = [0; 5];
            tokio::time::timeout(istio_tests::client::LIMIT, stream.read_exact(&mut echo)).await??;
            ensure!(&echo == b"hello", "{echo:?}");
            Ok(())
        })
    })
}

fn foreign(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.write("foreign.yaml", FOREIGN)?;
    Mesh::wait("the refusals in the log", || {
        let log = mesh.istiod.output();
        ensure!(
            log.contains("there is no Secret edge/foreign"),
            "a Secret of that name in another namespace"
        );
        ensure!(log.contains("kubernetes-gateway://default/foreign"), "a Secret named with its namespace");
        Ok(())
    })?;
    let secrets = mesh.pod("edge")?.admin("/certs")?;
    ensure!(secrets.contains("secure.example") && !secrets.contains("foreign.example"), "{secrets}");
    mesh.write("foreign.yaml", "")
}

/// The serial number of the certificate that a host shows.
fn serial(mesh: &Mesh, host: &str) -> anyhow::Result<String> {
    let mut command = netns::command(&mesh.client, Path::new("sh"));
    let line = format!(
        "openssl s_client -connect {EDGE}:8443 -servername {host} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    let output = command.args(["-c", &line]).output().context("openssl")?;
    ensure!(output.status.success(), "no certificate for {host}");
    Ok(String::from_utf8(output.stdout)?)
}

fn rotation(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = serial(mesh, "secure.example")?;
    let certificates = Certificates::new()?;
    let old = mesh.read("secret-secure.yaml")?;
    // One that is broken changes nothing.
    mesh.write("secret-secure.yaml", &old.replace("-----END CERTIFICATE-----", "-----END-----"))?;
    Mesh::wait("the problem", || {
        let problems = mesh.istiod.page("/debug/sourcez")?["problems"].to_string();
        ensure!(problems.contains("tls.crt"), "{problems}");
        Ok(())
    })?;
    ensure!(serial(mesh, "secure.example")? == before, "the last good certificate stays in use");
    mesh.write("secret-secure.yaml", &certificates.secret("edge", "secure", "secure.example")?)?;
    Mesh::wait("the new certificate", || {
        ensure!(serial(mesh, "secure.example")? != before, "still {before}");
        Ok(())
    })?;
    mesh.write("secret-secure.yaml", &old)?;
    Mesh::wait("the old certificate", || {
        ensure!(serial(mesh, "secure.example")? == before, "not {before}");
        Ok(())
    })?;
    // Nothing that was sent was refused.
    let log = mesh.istiod.output();
    ensure!(!log.contains("refused the configuration"), "{log}");
    Ok(())
}

fn secrecy(mesh: &mut Mesh) -> anyhow::Result<()> {
    let text = mesh.read("secret-secure.yaml")?;
    let key = text.lines().skip_while(|line| !line.contains("PRIVATE KEY")).nth(1).context("a key")?.trim();
    let mut seen = vec![mesh.istiod.output(), mesh.pod("edge")?.output()];
    for page in ["configz", "syncz", "config_dump?proxyID=edge.edge"] {
        let ask = Ask::get((istio_tests::mesh::ISTIOD, names::port::ISTIOD_MONITORING), "istiod", "/");
        let ask = Ask { path: format!("/debug/{page}"), ..ask };
        seen.push(ask.from(&mesh.istiod.namespace)?.body);
    }
    for text in seen {
        ensure!(!text.contains(key) && !text.contains("PRIVATE KEY"), "a key is shown");
    }
    Ok(())
}
