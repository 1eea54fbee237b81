//! DNS requests of an application, answered by the agent from what istiod
//! knows and passed on otherwise; `dig` asks.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use istio_tests::client::Ask;
use istio_tests::mesh::pod::{DNS_CAPTURE, Pod, User};
use istio_tests::mesh::{CLIENT, Mesh, Options};
use istio_tests::netns::within;
use istio_tests::program::Programs;

type Case = (&'static str, fn() -> anyhow::Result<()>);

pub(crate) const CASES: &[Case] = &[("applications_resolve_names_of_the_mesh", names_of_the_mesh)];

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.11, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {containers: [{name: web, ports: [{containerPort: 9080}]}]}
status: {phase: Running, podIP: 10.77.0.11}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-4, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.77.1.1], hostname: db-0}, {addresses: [10.77.1.2], hostname: db-1}]
ports: [{name: sql, port: 15432}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-6, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
endpoints: [{addresses: ['fd00::1'], hostname: db-0}]
ports: [{name: sql, port: 15432}]
";

const LATER: &str = "
apiVersion: v1
kind: Service
metadata: {name: late, namespace: default}
spec: {clusterIP: 10.96.0.12, ports: [{name: http, port: 80}]}
";

/// What the server behind the agent knows.
const ELSEWHERE: (&str, Ipv4Addr) = ("www.example.com", Ipv4Addr::new(192, 0, 2, 7));

/// The server behind the agent, and how often it was asked.
fn serve(mesh: &Mesh) -> anyhow::Result<Arc<AtomicU32>> {
    let (udp, tcp) = within(&mesh.client, || async {
        Ok((UdpSocket::bind((CLIENT, 53))?, TcpListener::bind((CLIENT, 53))?))
    })?;
    let count = Arc::new(AtomicU32::new(0));
    // Both end with the program.
    let counted = count.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            counted.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = reply(&buffer[..length]) {
                udp.send_to(&reply, client).ok();
            }
        }
    });
    let counted = count.clone();
    thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in tcp.incoming().flatten() {
            let (mut length, mut request) = ([0; 2], Vec::new());
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            request.resize(u16::from_be_bytes(length).into(), 0);
            if stream.read_exact(&mut request).is_err() {
                continue;
            }
            counted.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = reply(&request) {
                let length = u16::try_from(reply.len()).unwrap_or_default();
                stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).ok();
            }
        }
    });
    Ok(count)
}

/// The address of the one name, to whatever is asked of it; no other name exists.
fn reply(request: &[u8]) -> Option<Vec<u8>> {
    let (mut name, mut at) = (Vec::new(), 12);
    while let Some(length) = request.get(at).copied().filter(|length| *length > 0) {
        let end = at + 1 + usize::from(length);
        name.push(std::str::from_utf8(request.get(at + 1..end)?).ok()?);
        at = end;
    }
    let mut reply = request.get(..at + 5)?.to_vec();
    let is_known = name.join(".").eq_ignore_ascii_case(ELSEWHERE.0);
    // A response with recursion; "no such name" otherwise.
    reply[2] |= 0x80;
    reply[3] = if is_known { 0x80 } else { 0x83 };
    reply[6..12].fill(0);
    if is_known {
        reply[7] = 1;
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend_from_slice(&ELSEWHERE.1.octets());
    }
    Some(reply)
}

/// What `dig` prints for the application of a pod, sorted.
fn dig(pod: &Pod, args: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut command = pod.command(User::App, Path::new("dig"));
    command.args(["+tries=1", "+time=10"]).args(args).current_dir("/");
    let output = command.output().context("dig (package bind9-dnsutils)")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "dig {args:?}: {}: {text}", output.status);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn names_of_the_mesh() -> anyhow::Result<()> {
    let objects = tempfile::tempdir()?;
    fs::write(objects.path().join("mesh.yaml"), OBJECTS)?;
    let options = Options {
        name: "istio-e2e-dns".parse()?,
        objects: objects.path().to_owned(),
        agent_env: BTreeMap::from([("web".into(), vec![(DNS_CAPTURE.into(), "true".into())])]),
    };
    let mut mesh = Mesh::start(&Programs::find()?, &options, &mut |_| {})?;
    let asked = serve(&mesh)?;
    let pod = mesh.pod("web")?;
    let web = "web.default.svc.cluster.local";
    for (args, expected) in [
        (&["+short", web][..], &["10.96.0.11"][..]),
        (&["+short", "web"], &["10.96.0.11"]),
        (&["+short", "+search", "web"], &["10.96.0.11"]),
        (&["+short", "+search", "db.shop"], &["10.77.1.1", "10.77.1.2", "db.shop."]),
        (&["+short", "+tcp", "web.default"], &["10.96.0.11"]),
        (&["+short", "AAAA", web], &[]),
        (&["+short", "AAAA", "db.shop.svc"], &["fd00::1"]),
        (&["+short", "db-1.db.shop.svc.cluster.local"], &["10.77.1.2"]),
        (
            &["+short", "SRV", "_http._tcp.web.default.svc.cluster.local"],
            &["0 100 80 web.default.svc.cluster.local."],
        ),
        (
            &["+short", "SRV", "_sql._tcp.db.shop.svc.cluster.local"],
            &["0 100 15432 db-0.db.shop.svc.cluster.local.", "0 100 15432 db-1.db.shop.svc.cluster.local."],
        ),
        (&["+short", "-x", "10.96.0.11"], &["web.default.svc.cluster.local."]),
        (&["+short", "-x", "10.77.1.1"], &["db-0.db.shop.svc.cluster.local."]),
        (&["+short", "-x", "fd00::1"], &["db-0.db.shop.svc.cluster.local."]),
    ] {
        let found = dig(pod, args)?;
        ensure!(found == expected, "dig {args:?}: {found:?}, expected {expected:?}");
    }
    ensure!(asked.load(Ordering::Relaxed) == 0, "names of the mesh were asked of another server");

    // Names of others, by both transports, and what nobody has.
    for args in [&["+short", ELSEWHERE.0][..], &["+short", "+tcp", ELSEWHERE.0]] {
        let found = dig(pod, args)?;
        ensure!(found == [ELSEWHERE.1.to_string()], "dig {args:?}: {found:?}");
    }
    let status = |args: &[&str]| -> anyhow::Result<String> {
        let text = dig(pod, args)?.join("\n");
        let status = text.split_once("status: ").and_then(|(_, rest)| rest.split(',').next());
        Ok(status.with_context(|| text.clone())?.to_owned())
    };
    ensure!(status(&["nothing.example.com"])? == "NXDOMAIN", "a name that nobody has");
    // The host is there, whatever another server says of it.
    ensure!(status(&["TXT", web])? == "NOERROR", "another type of a host of the mesh");
    ensure!(asked.load(Ordering::Relaxed) >= 4, "another server was not asked");

    let shown = Ask::get((Ipv4Addr::LOCALHOST, names::port::AGENT_STATUS), "agent", "/debug/ndsz");
    let shown = shown.from(&pod.network)?.json()?;
    ensure!(shown["table"]["web."]["ips"][0] == "10.96.0.11", "{shown}");

    // What istiod learns the agent learns, and it keeps that without istiod.
    mesh.write("later.yaml", LATER)?;
    Mesh::wait("the new service", || {
        let found = dig(pod, &["+short", "late"])?;
        ensure!(found == ["10.96.0.12"], "{found:?}");
        Ok(())
    })?;
    mesh.istiod.stop()?;
    let found = dig(mesh.pod("web")?, &["+short", "late"])?;
    ensure!(found == ["10.96.0.12"], "without istiod: {found:?}");
    Ok(())
}
