//! The runner: brings the objects of a case in force and makes its calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use istio_tests::call::{Call, Reply, Scheme};
use istio_tests::client::LIMIT;
use istio_tests::echo::proxied;
use istio_tests::mesh::Mesh;
use istio_tests::netns::pause;
use serde::Deserialize;

use super::expect::{Expect, Sent};
use super::world;

/// File of the objects of a case.
const FILE: &str = "case.yaml";
/// Address of the service that tells which case a proxy knows.
const MARKER: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 1);
/// How long a call that is to be refused may stay without an answer.
const SILENCE: Duration = Duration::from_millis(400);
/// Until when a call has to come out as it should: what is pushed needs a moment.
const SETTLED: Duration = Duration::from_secs(5);

/// One value or several: the row is meant for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Many<T> {
    One(T),
    All(Vec<T>),
}

impl<T: Clone> Many<T> {
    fn all(&self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::All(all) => all.clone(),
        }
    }
}

/// Calls that are made with the same objects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    #[serde(default)]
    objects: String,
    calls: Vec<Row>,
}

/// Calls that differ in one or several ways, and come out alike.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Names of workloads; `naked` has no sidecar.
    from: Many<String>,
    /// A Service, `NAME.pod`, or an address.
    to: Many<String>,
    /// A name of `istio_tests::echo::PORTS`, or a number.
    port: Many<String>,
    #[serde(default)]
    scheme: Option<Many<Scheme>>,
    /// The target's name, if it is not said.
    #[serde(default)]
    host: Option<Many<String>>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// What is said of the client before anything else, by the PROXY protocol.
    #[serde(default)]
    proxied: Option<Proxied>,
    /// Send the cookies of earlier answers.
    #[serde(default)]
    cookies: bool,
    /// How many times; once, if it is not said.
    #[serde(default)]
    times: Option<u32>,
    #[serde(default)]
    expect: Expect,
}

/// What a load balancer says of a client.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proxied {
    /// 1 or 2.
    version: u8,
    client: Ipv4Addr,
}

/// Runs a family; tells all that came out otherwise.
pub(super) fn run(mesh: &mut Mesh, text: &str) -> anyhow::Result<()> {
    let cases: Vec<Case> = serde_saphyr::from_str(text)?;
    let (mut failed, mut in_force) = (Vec::new(), "");
    for case in &cases {
        if case.objects != in_force {
            apply(mesh, &case.objects).with_context(|| case.case.clone())?;
            in_force = &case.objects;
        }
        for row in &case.calls {
            if let Err(error) = calls(mesh, row) {
                failed.push(format!("{}: {error:#}", case.case));
            }
        }
    }
    if !in_force.is_empty() {
        apply(mesh, "")?;
        fs::remove_file(mesh.objects.join(FILE))?;
    }
    ensure!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

/// Writes the objects and waits until every proxy works by them.
fn apply(mesh: &Mesh, objects: &str) -> anyhow::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: marker, namespace: default}}
spec:
  hosts: [marker.example]
  addresses: [{MARKER}]
  resolution: STATIC
  ports: [{{name: http, number: 80, protocol: HTTP}}]
  endpoints: [{{address: 192.0.2.1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: marker, namespace: default}}
spec:
  hosts: [marker.example]
  http: [{{directResponse: {{status: 200, body: {{string: '{{\"case\": {number}}}'}}}}}}]
---
{objects}"
    );
    mesh.write(FILE, &text)?;
    let marker = Call {
        address: (MARKER, 80).into(),
        scheme: Scheme::Http,
        method: "GET".into(),
        host: "marker.example".into(),
        path: "/".into(),
        headers: Vec::new(),
        before: Vec::new(),
        // A proxy that does not know the service yet looks for the address outside.
        limit: SILENCE,
    };
    for pod in mesh.pods.iter().filter(|pod| !pod.workload.is_gateway()) {
        Mesh::wait(&format!("{}: case {number}", pod.workload.name), || {
            let server = marker.from(&pod.network)?.server;
            ensure!(server["case"] == number, "{server}");
            Ok(())
        })?;
    }
    mesh.wait_synced()
}

/// All calls of a row.
fn calls(mesh: &Mesh, row: &Row) -> anyhow::Result<()> {
    for from in row.from.all() {
        let namespace = world::namespace(mesh, &from)?;
        for to in row.to.all() {
            let (address, of_workload) = world::target(&to)?;
            for port in row.port.all() {
                let number = world::port(&port, of_workload)?;
                for scheme in row.scheme.as_ref().map_or(vec![Scheme::Http], Many::all) {
                    let name = to.strip_suffix(".pod").unwrap_or(&to);
                    for host in row.host.as_ref().map_or(vec![name.to_owned()], Many::all) {
                        let sent = Sent { from: world::workload(&from)?, to: address, port: number, host };
                        let address = SocketAddr::new(IpAddr::V4(address), number);
                        let call = row.call(address, scheme, sent.filled(&sent.host));
                        settled(|| row.check(mesh, &call, namespace, &sent)).with_context(|| {
                            format!("{from} -> {to} {port} {scheme:?} {}{}", call.host, call.path)
                        })?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The first good outcome, or the last bad one.
fn settled(check: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let outcome = check();
        if outcome.is_ok() || start.elapsed() > SETTLED {
            return outcome;
        }
        pause();
    }
}

impl Row {
    fn call(&self, address: SocketAddr, scheme: Scheme, host: String) -> Call {
        Call {
            address,
            scheme,
            host,
            method: self.method.clone().unwrap_or_else(|| "GET".into()),
            path: self.path.clone().unwrap_or_else(|| "/".into()),
            headers: self.headers.clone().into_iter().collect(),
            before: self
                .proxied
                .as_ref()
                .map_or(Vec::new(), |told| proxied::header(told.version, told.client)),
            limit: if self.expect.refused { SILENCE } else { LIMIT },
        }
    }

    /// Makes the call as often as it is to be made.
    fn check(&self, mesh: &Mesh, call: &Call, namespace: &str, sent: &Sent) -> anyhow::Result<()> {
        let mut call = call.clone();
        let (mut servers, mut names) = (BTreeSet::new(), BTreeMap::<String, u32>::new());
        let times = self.times.unwrap_or(1);
        for _ in 0..times {
            let reply = call.from(namespace);
            if self.expect.refused {
                let server = reply.as_ref().map(|reply| (reply.status, &reply.server));
                ensure!(reply.is_err(), "answered: {:?}", server.ok());
                continue;
            }
            let reply = reply?;
            self.expect.check(&reply, call.scheme, sent)?;
            let text = |name: &str| reply.server[name].as_str().unwrap_or_default().to_owned();
            servers.insert(text("local"));
            for server in [text("name"), text("local")] {
                *names.entry(server).or_default() += 1;
            }
            if self.cookies {
                add_cookies(&mut call, &reply);
            }
        }
        self.expect.check_all(times, &servers, &names)?;
        self.expect.check_logs(mesh)
    }
}

fn add_cookies(call: &mut Call, reply: &Reply) {
    for cookie in reply.headers.get_all("set-cookie") {
        let pair = cookie.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        call.headers.push(("cookie".into(), pair.to_owned()));
    }
}
