//! Identities of servers and clients, and TLS that proxies begin.

use std::path::Path;

use anyhow::ensure;
use istio_tests::app::{ECHO_PORT, PORT};
use istio_tests::mesh::Mesh;
use pki::certificate::Certificate;

use super::certificates::{Ca, Pair, secret, secret_of};
use super::servers::{Clients, Server, client, exchange};
use super::table::{apply, run, run_with};
use super::{A, EDGE, MOUNTED, NAME, SERVER};

/// The servers without a proxy, their ports, and the identities that they show.
const IDENTITIES: [(u16, &str); 4] = [
    (9501, "spiffe://friends/ns/default/sa/bare"),
    (9502, "spiffe://strangers/ns/default/sa/bare"),
    (9503, "spiffe://cluster.local/ns/default/sa/bare"),
    (9505, "spiffe://cluster.local/ns/default/sa/somebody"),
];

pub(crate) fn naming(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (first, second, third) =
        (Ca::open(mesh, "etc/cacerts")?, Ca::open(mesh, "second")?, Ca::new("third")?);
    let roots = format!("{}{}", first.roots, second.roots);
    let network = mesh.pod("bare")?.network.clone();
    let mut servers = Vec::new();
    for (port, identity) in IDENTITIES {
        // One is signed by the second root, which is trusted as well.
        let ca = if port == 9503 { &second } else { &first };
        servers.push(Server::start(&network, port, &ca.issue(identity)?, &roots, Clients::Known)?);
    }
    let nobodys = third.issue("spiffe://cluster.local/ns/default/sa/bare")?;
    servers.push(Server::start(&network, 9504, &nobodys, &roots, Clients::Known)?);
    run(mesh, include_str!("../../../data/cases/secure/naming.yaml"))
}

/// Strict but for the ports that say otherwise.
const STRICT: &str = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: mtls, namespace: default}, spec: {mtls: {mode: STRICT}}}";

pub(crate) fn domains(mesh: &mut Mesh) -> anyhow::Result<()> {
    apply(mesh, STRICT)?;
    let (first, second, third) =
        (Ca::open(mesh, "etc/cacerts")?, Ca::open(mesh, "second")?, Ca::new("third")?);
    let network = &mesh.pod("bare")?.network;
    // Ports of a Service, for requests and for bytes, and one of none.
    let ports = [(SERVER.pod, PORT), (SERVER.pod, ECHO_PORT), (A, ECHO_PORT)];
    let rows = [
        (&first, "spiffe://cluster.local/ns/default/sa/somebody", true),
        (&first, "spiffe://friends/ns/default/sa/somebody", true),
        (&first, "spiffe://some-other/ns/default/sa/somebody", true),
        (&first, "spiffe://strangers/ns/default/sa/somebody", false),
        (&first, "spiffe://friends.example/ns/default/sa/somebody", false),
        (&first, "somebody.example", false),
        (&second, "spiffe://cluster.local/ns/default/sa/somebody", true),
        (&third, "spiffe://cluster.local/ns/default/sa/somebody", false),
    ];
    for (ca, name, is_known) in rows {
        let config = client(&ca.issue(name)?)?;
        for (address, port) in ports {
            let request = "GET /x HTTP/1.1\r\nhost: server.default:9080\r\n\r\n";
            let answered = || -> anyhow::Result<bool> {
                let answer = exchange(network, (address, port), &config, request.as_bytes())?;
                Ok(answer.starts_with("HTTP/1.1 200") || answer == request)
            };
            Mesh::wait(&format!("{name} at {address}:{port}"), || {
                ensure!(answered()? == is_known, "it is {}", if is_known { "refused" } else { "let in" });
                Ok(())
            })?;
        }
    }
    apply(mesh, "")
}

/// The server outside of the mesh, and what is needed to call it.
struct Outside {
    ca: Ca,
    other: Ca,
    pair: Pair,
}

impl Outside {
    fn new() -> anyhow::Result<Self> {
        let (ca, other) = (Ca::new("outside")?, Ca::new("other")?);
        let pair = ca.issue("client.example")?;
        Ok(Self { pair, ca, other })
    }

    /// Two servers: one takes anybody, one those with a certificate.
    fn servers(&self, mesh: &Mesh) -> anyhow::Result<[Server; 2]> {
        let (network, pair) = (&mesh.pod("bare")?.network, self.ca.issue("named.example")?);
        Ok([
            Server::start(network, 9601, &pair, &self.ca.roots, Clients::All)?,
            Server::start(network, 9602, &pair, &self.ca.roots, Clients::Known)?,
        ])
    }

    /// Secrets of a namespace, by what they hold.
    fn secrets(&self, namespace: &str) -> anyhow::Result<String> {
        let Self { ca, other, pair } = self;
        let unknown = other.issue("client.example")?;
        Ok([
            secret(namespace, "roots", None, &ca.roots),
            secret(namespace, "other-roots", None, &other.roots),
            secret(namespace, "good", Some(pair), &ca.roots),
            secret(namespace, "unknown", Some(&unknown), &ca.roots),
            secret(namespace, "wrong-roots", Some(pair), &other.roots),
        ]
        .concat())
    }
}

pub(crate) fn from_sidecar(mesh: &mut Mesh) -> anyhow::Result<()> {
    let outside = Outside::new()?;
    let _servers = outside.servers(mesh)?;
    let roots = format!("/var/lib/{NAME}/outside");
    outside.pair.write(Path::new(&roots), &outside.ca.roots)?;
    let wrong = format!("/var/lib/{NAME}/wrong");
    outside.other.issue("client.example")?.write(Path::new(&wrong), &outside.other.roots)?;
    let table = include_str!("../../../data/cases/secure/sidecar-tls.yaml");
    let secrets = outside.secrets("default")?;
    mesh.write("secrets.yaml", &secrets)?;
    run_with(mesh, table, &[("$OUTSIDE", &roots), ("$WRONG", &wrong)])?;
    mesh.write("secrets.yaml", "")
}

pub(crate) fn from_gateway(mesh: &mut Mesh) -> anyhow::Result<()> {
    let outside = Outside::new()?;
    let _servers = outside.servers(mesh)?;
    mesh.write("secrets.yaml", &outside.secrets("edge")?)?;
    run(mesh, include_str!("../../../data/cases/secure/gateway-tls.yaml"))?;
    mesh.write("secrets.yaml", "")
}

/// Servers outside of which one shows a certificate that its authority has revoked.
pub(crate) fn revoked(mesh: &mut Mesh) -> anyhow::Result<()> {
    let outside = Outside::new()?;
    let _servers = outside.servers(mesh)?;
    let (roots, pair) = (&outside.ca.roots, outside.ca.issue("named.example")?);
    let _revoked = Server::start(&mesh.pod("bare")?.network, 9603, &pair, roots, Clients::All)?;
    let bad_client = outside.ca.issue("client.example")?;
    let list = outside.ca.revoked(&[&pair, &bad_client])?;
    let folder = format!("/var/lib/{NAME}/listed");
    outside.pair.write(Path::new(&folder), roots)?;
    let file = Path::new(&folder).join("revoked.pem");
    std::fs::write(&file, &list)?;
    let none = Path::new(&folder).join("none.pem");
    std::fs::write(&none, outside.ca.revoked(&[])?)?;
    let key = outside.pair.key.to_pkcs8_pem();
    let pair = [("tls.crt", outside.pair.chain.as_str()), ("tls.key", &key), ("ca.crt", roots)];
    let secrets = [
        secret_of("edge", "roots", &[("ca.crt", roots)]),
        secret_of("edge", "listed", &[("ca.crt", roots), ("ca.crl", &list)]),
        secret_of("edge", "generic-cacert", &[("cacert", roots), ("crl", &list)]),
        secret_of("edge", "pair", &[&pair[..], &[("ca.crl", &list)]].concat()),
    ];
    mesh.write("secrets.yaml", &secrets.concat())?;
    let table = include_str!("../../../data/cases/secure/revoked.yaml");
    run_with(mesh, table, &[("$OUTSIDE", &folder)])?;
    clients(mesh, &outside, &bad_client)?;
    mesh.write("secrets.yaml", "")
}

/// A gateway that wants certificates of its clients, and knows which are revoked.
const MUTUAL: &str = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: mutual, namespace: default}, \
    spec: {selector: {istio: edge}, servers: [{port: {number: 8443, name: https, protocol: HTTPS}, hosts: [server.default.svc.cluster.local], \
    tls: {mode: MUTUAL, credentialName: pair}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: mutual, namespace: default}, \
    spec: {hosts: [server.default.svc.cluster.local], gateways: [mutual], http: [{directResponse: {status: 200}}]}}";

fn clients(mesh: &Mesh, outside: &Outside, bad: &Pair) -> anyhow::Result<()> {
    apply(mesh, MUTUAL)?;
    let network = &mesh.pod("bare")?.network;
    for (pair, is_let_in) in [(&outside.pair, true), (bad, false)] {
        let config = client(pair)?;
        let request = "GET /x HTTP/1.1\r\nhost: server.default.svc.cluster.local\r\n\r\n";
        Mesh::wait(&format!("a client that is to be let in: {is_let_in}"), || {
            let answer = exchange(network, (EDGE, 8443), &config, request.as_bytes())?;
            ensure!(answer.starts_with("HTTP/1.1 200") == is_let_in, "{answer:?}");
            Ok(())
        })?;
    }
    apply(mesh, "")
}

/// A proxy whose certificate comes from files, which is of the second root; it
/// trusts clients of the first one only.
pub(crate) fn mounted(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, include_str!("../../../data/cases/secure/mounted.yaml"))?;
    let pod = mesh.pod("mounted")?;
    let file = std::fs::read_to_string(mesh.dir.join("mounted/tls.crt"))?;
    let serial = Certificate::all_from_pem(&file)?.remove(0).serial;
    let shown = pod.admin("/certs")?.to_ascii_lowercase();
    ensure!(shown.contains(&serial), "no certificate {serial}: {shown}");
    apply(mesh, STRICT)?;
    let network = &mesh.pod("bare")?.network;
    let id = "spiffe://cluster.local/ns/default/sa/somebody";
    for (folder, is_let_in) in [("etc/cacerts", true), ("second", false)] {
        let config = client(&Ca::open(mesh, folder)?.issue(id)?)?;
        let request = "GET /x HTTP/1.1\r\nhost: mounted.default:9080\r\n\r\n";
        Mesh::wait(&format!("a client of {folder}"), || {
            let answer = exchange(network, (MOUNTED, PORT), &config, request.as_bytes())?;
            ensure!(answer.starts_with("HTTP/1.1 200") == is_let_in, "{answer:?}");
            Ok(())
        })?;
    }
    apply(mesh, "")
}

/// A rule that shows the certificate of files.
fn of_files(folder: &str) -> String {
    let target = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: named, namespace: default}, \
        spec: {hosts: [named.example], location: MESH_EXTERNAL, resolution: STATIC, addresses: [10.96.3.40], \
        ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9602}], endpoints: [{address: 10.77.0.23}]}}";
    let tls = format!(
        "{{mode: MUTUAL, clientCertificate: {folder}/tls.crt, privateKey: {folder}/tls.key, \
         caCertificates: {folder}/ca.crt, subjectAltNames: [named.example]}}"
    );
    // Each request over a connection of its own shows the certificate anew.
    format!(
        "{target}\n---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: named, namespace: default}}, \
         spec: {{host: named.example, trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}, tls: {tls}}}}}}}"
    )
}

pub(crate) fn files(mesh: &mut Mesh) -> anyhow::Result<()> {
    let outside = Outside::new()?;
    let _servers = outside.servers(mesh)?;
    let folder = format!("/var/lib/{NAME}/renewed");
    let path = Path::new(&folder);
    outside.pair.write(path, &outside.ca.roots)?;
    apply(mesh, &of_files(&folder))?;
    let status = |wanted: u16| {
        Mesh::wait(&format!("status {wanted}"), || {
            let ask = istio_tests::client::Ask::get(([10, 96, 3, 40], 80), "named.example", "/");
            let seen = ask.from(&mesh.pod("a")?.network)?.status;
            ensure!(seen == wanted, "{seen}");
            Ok(())
        })
    };
    status(200)?;
    // Another authority's: neither side knows the other any more.
    outside.other.issue("client.example")?.write(path, &outside.other.roots)?;
    status(503)?;
    outside.pair.write(path, &outside.ca.roots)?;
    status(200)?;
    apply(mesh, "")
}
