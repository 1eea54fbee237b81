//! What `istioctl why` says of a request is what Envoy does with it: hundreds of
//! requests, made by a seeded generator, on meshes with many rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context as _, ensure};
use http::Method;
use istio_tests::app::{ECHO_PORT, PORT};
use istio_tests::client::{Ask, LIMIT};
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns;
use istioctl::why::{End, Explanation, Peer, Proxy, Question, explain};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("why_says_what_envoy_does_with_routes_and_policies", routes_and_policies),
    ("why_says_what_envoy_does_in_a_strict_mesh", strict),
    ("istioctl_why_asks_the_envoys_on_the_way", command),
];

const FILE: &str = "why.yaml";
/// How often a request is asked that does not end as it was said.
const ROUNDS: usize = 4;
/// More than there are requests in a round. Each case has numbers of its own.
const NUMBERS: usize = 1000;
/// A request's number, by which the logs tell it from others.
const NUMBER: &str = "x-why";

/// Requests, their statuses and flags, as each Envoy has them.
const MESH: &str = "
accessLogFile: /dev/stdout
accessLogFormat: \"WHY %REQ(X-WHY)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n\"
";

/// Name, namespace and last part of the address.
const SIDECARS: [(&str, &str, u8); 5] = [
    ("alice", "default", 41),
    ("bob", "other", 42),
    ("server-v1", "default", 43),
    ("server-v2", "default", 44),
    ("guarded", "default", 45),
];
const BARE: &str = "bare";
const BARE_AT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 46);

/// Name, last part of the address, labels of its pods, addresses of its pods.
const SERVICES: [(&str, u8, &str, &[u8]); 6] = [
    ("server", 1, "group: server", &[43, 44]),
    ("guarded", 2, "app: guarded", &[45]),
    // The same pod, called in plaintext.
    ("unguarded", 3, "app: guarded", &[45]),
    ("bare", 4, "app: bare", &[46]),
    // The same pod, called with mutual TLS.
    ("mutual", 5, "app: bare", &[46]),
    ("empty", 6, "app: nobody", &[]),
];

fn workload(last: u8) -> &'static str {
    let sidecar = SIDECARS.iter().find(|(_, _, own)| *own == last).map(|(name, _, _)| *name);
    sidecar.unwrap_or(BARE)
}

fn objects() -> String {
    let mut text = String::new();
    for (name, last, selector, pods) in SERVICES {
        let pods = pods.iter().map(|last| {
            let pod = workload(*last);
            format!(
                "{{addresses: [10.77.0.{last}], targetRef: {{kind: Pod, name: {pod}, namespace: default}}}}"
            )
        });
        text += &format!(
            "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  clusterIP: 10.96.6.{last}
  selector: {{{selector}}}
  ports:
  - {{name: http, port: {PORT}}}
  - {{name: http-alt, port: 8081, targetPort: {PORT}}}
  - {{name: any, port: 7070, targetPort: {PORT}}}
  - {{name: tcp-echo, port: {ECHO_PORT}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{}]
ports:
- {{name: http, port: {PORT}}}
- {{name: http-alt, port: {PORT}}}
- {{name: any, port: {PORT}}}
- {{name: tcp-echo, port: {ECHO_PORT}}}
---
",
            pods.collect::<Vec<_>>().join(", ")
        );
    }
    // Applications of that version answer every path.
    let echo = istio_tests::app::ECHO;
    for (name, namespace, last) in SIDECARS {
        let group = name.split('-').next().unwrap_or_default();
        let release = name.rsplit('-').next().unwrap_or_default();
        text += &format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}, group: {group}, release: {release}, version: {echo}, security.istio.io/tlsMode: istio}}
spec: {{serviceAccountName: {name}, containers: [{{name: app}}]}}
status: {{phase: Running, podIP: 10.77.0.{last}}}
---
"
        );
    }
    text + &format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {BARE}, namespace: default, labels: {{app: {BARE}, version: {echo}, sidecar.istio.io/inject: 'false'}}}}
spec: {{serviceAccountName: {BARE}, containers: [{{name: app}}]}}
status: {{phase: Running, podIP: {BARE_AT}}}
"
    )
}

/// Routes of every kind, policies of every kind; one pod takes mutual TLS only.
const MANY: &str = include_str!("../../data/why/many.yaml");

/// The whole mesh takes mutual TLS only, and everything that nobody allows is denied.
const STRICT: &str = include_str!("../../data/why/strict.yaml");

/// A mesh of those workloads.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    Mesh::start_with_settings("istio-e2e-why", &objects(), MESH)
}

/// A generator of numbers (xorshift): the same at each run.
struct Seeded(u64);

impl Seeded {
    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        &of[(self.0 % of.len() as u64) as usize]
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Pod(&'static str),
    /// The one without a sidecar asks this pod.
    Plain(&'static str),
}

#[derive(Clone, Debug)]
struct Request {
    client: Client,
    ask: Ask,
    question: Question,
}

/// What came of a request: who answered it, or status and flag of an Envoy; no
/// status when the connection was closed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Reached(String),
    Envoy(Option<u16>, String),
}

fn generated(seed: u64, count: usize) -> Vec<Request> {
    let mut seeded = Seeded(seed);
    let service = |last: u8| Ipv4Addr::new(10, 96, 6, last);
    let hosts: &[(&str, Ipv4Addr)] = &[
        ("server", service(1)),
        ("server", service(1)),
        ("server.default", service(1)),
        ("server.default.svc.cluster.local", service(1)),
        ("guarded.default", service(2)),
        ("guarded.default.svc", service(2)),
        ("unguarded.default", service(3)),
        ("bare.default", service(4)),
        ("mutual.default", service(5)),
        ("empty.default", service(6)),
        ("unknown.example", CLIENT),
        ("10.96.6.1", service(1)),
    ];
    let ports = [PORT, PORT, PORT, 8081, 7070, 80];
    let paths = [
        "/",
        "/redirect",
        "/redirect/",
        "/direct",
        "/direct/x?y=z",
        "/fault",
        "/late",
        "/nosubset",
        "/undefined",
        "/nohost",
        "/void",
        "/both",
        "/old/x",
        "/host",
        "/slow",
        "/item/abc",
        "/item/ABC",
        "/item/a/b",
        "/item/a?v=2",
        "/x?v=2",
        "/x?v=1",
        "/case",
        "/Case/x",
        "/admin",
        "/admin/../item/q",
        "/item/%2e%2e/admin",
        "/x/end",
        "/nothing",
        "//item",
        "/item/x%2Fy",
    ];
    let methods = [Method::GET, Method::GET, Method::GET, Method::POST, Method::PUT, Method::DELETE];
    let headers: &[&[(&str, &str)]] = &[
        &[],
        &[],
        &[],
        &[("end-user", "jason")],
        &[("end-user", "mallory")],
        &[("x-n", "12")],
        &[("x-n", "12a")],
        &[("x-n", "12"), ("x-off", "1")],
        &[("x-mode", "quick")],
        &[("x-mode", "slow")],
        &[("authorization", "Bearer nonsense")],
        &[("authorization", "Bearer e30.eyJpc3MiOiJ0aGV5In0.eA")],
        &[("authorization", "Basic eA==")],
    ];
    let clients = [
        Client::Pod("alice"),
        Client::Pod("alice"),
        Client::Pod("bob"),
        Client::Pod("bob"),
        Client::Plain("server-v1"),
        Client::Plain("server-v2"),
        Client::Plain("guarded"),
    ];
    (0..count)
        .map(|_| {
            let client = *seeded.pick(&clients);
            let (host, address) = *seeded.pick(hosts);
            let port = *seeded.pick(&ports);
            let (path, method) = (*seeded.pick(&paths), seeded.pick(&methods).clone());
            let headers = *seeded.pick(headers);
            // At the addresses of services nobody answers at that port, for seconds.
            let port = if port == 80 && address != CLIENT { PORT } else { port };
            let (host, address, port) = match client {
                Client::Pod(_) => (host.to_owned(), address, port),
                // It asks the pod itself.
                Client::Plain(pod) => {
                    let (_, _, last) =
                        SIDECARS.iter().find(|(name, _, _)| *name == pod).copied().unwrap_or_default();
                    (host.to_owned(), Ipv4Addr::new(10, 77, 0, last), PORT)
                }
            };
            let authority = if port == 80 { host.clone() } else { format!("{host}:{port}") };
            let mut ask = Ask::get((address, port), &authority, path).method(method.clone());
            let mut question =
                Question::to(&format!("http://{authority}{path}")).unwrap_or_else(|error| panic!("{error}"));
            question = question.method(method.as_str());
            for (name, value) in headers.iter().copied() {
                ask = ask.header(name, value);
                question = question.header(name, value);
            }
            // The generator knows what DNS would tell.
            if address == CLIENT || !host.contains('.') {
                question.address = Some(address.into());
            }
            if let Client::Plain(_) = client {
                question.from = Some(CLIENT.into());
            }
            Request { client, ask, question }
        })
        .collect()
}

/// The dumps of all Envoys.
fn dumps(mesh: &Mesh) -> anyhow::Result<BTreeMap<String, Proxy>> {
    let mut all = BTreeMap::new();
    for pod in mesh.pods.iter().filter(|pod| !pod.workload.is_bare()) {
        let dump = pod.admin("/config_dump?include_eds")?;
        let clusters = pod.admin("/clusters?format=json")?;
        all.insert(pod.workload.name.clone(), Proxy::read(&dump, Some(&clusters))?);
    }
    Ok(all)
}

fn predicted(
    all: &BTreeMap<String, Proxy>,
    client: Client,
    question: &Question,
) -> anyhow::Result<Explanation> {
    let find = |ip: IpAddr| {
        let own = all.values().find(|proxy| proxy.addresses.contains(&ip));
        match own {
            Some(proxy) => Peer::Proxy(proxy),
            None if ip == BARE_AT => Peer::Bare(BARE),
            None => Peer::Outside,
        }
    };
    let (Client::Pod(name) | Client::Plain(name)) = client;
    Ok(explain(all.get(name).with_context(|| name.to_owned())?, question, &find))
}

/// The outcomes that an explanation allows.
fn allowed(explanation: &Explanation) -> anyhow::Result<BTreeSet<Outcome>> {
    let mut all = BTreeSet::new();
    for (_, end, unknown) in explanation.way.ends() {
        ensure!(unknown.is_empty(), "cannot tell: {unknown:?}");
        all.insert(match end {
            End::Arrives { workload, .. } => {
                let name = workload.split('.').next().unwrap_or_default();
                // An address outside: the client has an application there, or nobody.
                let outside = workload.starts_with("10.");
                Outcome::Reached(if outside { workload.clone() } else { name.to_owned() })
            }
            End::Answered { status, flag, .. } => Outcome::Envoy(Some(*status), flag.clone()),
            End::Refused { status, flag, .. } => Outcome::Envoy(*status, flag.clone()),
            End::Unknown { why } => anyhow::bail!("cannot tell: {why}"),
        });
    }
    Ok(all)
}

/// Makes the requests; who answered, or which status came.
fn asked(
    mesh: &Mesh,
    requests: &[&Request],
    number: impl Fn(usize) -> usize,
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (index, Request { client, ask, .. }) in requests.iter().enumerate() {
        let ask = ask.clone().header(NUMBER, &number(index).to_string());
        let network = match client {
            Client::Pod(name) => mesh.pod(name)?.network.clone(),
            Client::Plain(_) => mesh.client.clone(),
        };
        let outcome = match ask.from(&network) {
            Err(_) => Outcome::Envoy(None, String::new()),
            Ok(answer) => match answer.json().ok().and_then(|page| Some(page["name"].as_str()?.to_owned())) {
                Some(name) if answer.status.is_success() => Outcome::Reached(name),
                _ => Outcome::Envoy(Some(answer.status.as_u16()), String::new()),
            },
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The flags in the log of the first Envoy of each request, by its number.
fn flags(mesh: &Mesh, pod: &str) -> anyhow::Result<BTreeMap<usize, String>> {
    let mut all = BTreeMap::new();
    let output = mesh.pod(pod)?.output();
    for line in output.lines().filter_map(|line| line.strip_prefix("WHY ")) {
        let mut words = line.split(' ');
        if let (Some(Ok(number)), _, Some(flags)) = (words.next().map(str::parse), words.next(), words.next())
        {
            all.insert(number, flags.to_owned());
        }
    }
    Ok(all)
}

/// Puts objects in force at all Envoys.
fn apply(mesh: &Mesh, name: &str, objects: &str) -> anyhow::Result<()> {
    // By this policy, which denies nothing, each dump shows that all has come.
    let marker = format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: istio-system}}\n\
         spec: {{action: DENY, rules: [{{to: [{{operation: {{hosts: [{name}.invalid]}}}}]}}]}}\n"
    );
    mesh.write(FILE, &format!("{objects}{marker}"))?;
    Mesh::wait("the objects at all Envoys", || {
        for pod in mesh.pods.iter().filter(|pod| !pod.workload.is_bare()) {
            let dump = pod.admin("/config_dump?include_eds")?;
            ensure!(dump.contains(&format!("policy[{name}]")), "{} does not have it", pod.workload.name);
        }
        Ok(())
    })?;
    mesh.wait_synced()
}

/// Compares what is said with what happens. A connection between Envoys that was
/// open before a change takes one more request by the old rules, so what differs
/// is asked again.
fn compare(mesh: &Mesh, case: usize, requests: &[Request], kinds: &[&str]) -> anyhow::Result<()> {
    let all = dumps(mesh)?;
    let mut met = BTreeMap::<String, usize>::new();
    let mut left: Vec<&Request> = requests.iter().collect();
    let mut wrong = Vec::new();
    for round in 0..ROUNDS {
        wrong.clear();
        for (request, outcome) in left.iter().zip(outcomes(mesh, &left, case, round)?) {
            let explanation = predicted(&all, request.client, &request.question)?;
            let possible =
                allowed(&explanation).with_context(|| format!("{request:?}\n{}", explanation.text()))?;
            if possible.iter().any(|one| is_same(one, &outcome)) {
                let kind = match &outcome {
                    Outcome::Reached(name) => name.clone(),
                    Outcome::Envoy(None, _) => "closed".into(),
                    Outcome::Envoy(Some(status), flag) => format!("{status} {flag}"),
                };
                *met.entry(kind).or_default() += 1;
            } else {
                let text = explanation.text();
                wrong.push((
                    *request,
                    format!("{:?} got {outcome:?}, said was {possible:?}\n{text}", request.client),
                ));
            }
        }
        left = wrong.iter().map(|(request, _)| *request).collect();
        if left.is_empty() {
            break;
        }
    }
    let texts: Vec<&str> = wrong.iter().take(8).map(|(_, text)| text.as_str()).collect();
    let (bad, total) = (wrong.len(), requests.len());
    ensure!(texts.is_empty(), "{bad} of {total} are not as said; met: {met:?}\n{}", texts.join("\n"));
    for kind in kinds {
        ensure!(met.contains_key(*kind), "no request ended with {kind}: {met:?}");
    }
    Ok(())
}

/// Makes the requests, and finds the flags of what Envoys answered in their logs.
fn outcomes(mesh: &Mesh, requests: &[&Request], case: usize, round: usize) -> anyhow::Result<Vec<Outcome>> {
    let number = |index: usize| (case * ROUNDS + round) * NUMBERS + index;
    let mut seen = asked(mesh, requests, number)?;
    let mut logs = BTreeMap::new();
    Mesh::wait("the logs", || {
        for pod in mesh.pods.iter().filter(|pod| !pod.workload.is_bare()) {
            logs.insert(pod.workload.name.clone(), flags(mesh, &pod.workload.name)?);
        }
        for (index, request) in requests.iter().enumerate() {
            let answered = !matches!(seen[index], Outcome::Envoy(None, _));
            let (Client::Pod(name) | Client::Plain(name)) = request.client;
            let is_written = logs[name].contains_key(&number(index));
            ensure!(is_written || !answered, "{name} has not written {}", number(index));
        }
        Ok(())
    })?;
    for (index, (request, outcome)) in requests.iter().zip(&mut seen).enumerate() {
        let (Client::Pod(first) | Client::Plain(first)) = request.client;
        if let Outcome::Envoy(_, flag) = outcome {
            *flag = logs[first].get(&number(index)).cloned().unwrap_or_else(|| "none".into());
        }
    }
    Ok(seen)
}

/// Whether an outcome is one that was said.
fn is_same(said: &Outcome, seen: &Outcome) -> bool {
    match (said, seen) {
        // Nobody is at the address, which no Envoy can know before: the connection fails.
        (Outcome::Reached(address), Outcome::Envoy(status, _)) if address.starts_with("10.") => {
            status.is_none_or(|status| status == 503)
        }
        // The log of a connection that was closed has no number.
        (Outcome::Envoy(None, _), Outcome::Envoy(None, _)) => true,
        (said, seen) => said == seen,
    }
}

fn routes_and_policies(mesh: &mut Mesh) -> anyhow::Result<()> {
    apply(mesh, "many", MANY)?;
    let kinds = [
        "server-v1",
        "server-v2",
        "guarded",
        "bare",
        "401 -",
        "403 -",
        "404 NR",
        "502 -",
        "503 NC",
        "503 UC",
        "503 UH",
        "503 URX,UF",
        "455 FI",
        "418 -",
        "307 -",
        "closed",
    ];
    compare(mesh, 0, &generated(0x5eed_0001, 400), &kinds)?;
    connections(mesh)
}

fn strict(mesh: &mut Mesh) -> anyhow::Result<()> {
    apply(mesh, "strict", STRICT)?;
    let kinds =
        ["server-v1", "server-v2", "guarded", "bare", "403 -", "502 -", "503 UC", "503 URX,UF", "closed"];
    compare(mesh, 1, &generated(0x5eed_0002, 300), &kinds)?;
    connections(mesh)
}

/// Whether bytes come back over a connection.
async fn echoes(address: SocketAddr) -> anyhow::Result<bool> {
    let Ok(Ok(mut stream)) = tokio::time::timeout(LIMIT, TcpStream::connect(address)).await else {
        return Ok(false);
    };
    let mut byte = [0];
    if stream.write_all(b"x").await.is_err() {
        return Ok(false);
    }
    Ok(matches!(tokio::time::timeout(LIMIT, stream.read_exact(&mut byte)).await, Ok(Ok(_))))
}

/// The same for connections of bytes.
fn connections(mesh: &Mesh) -> anyhow::Result<()> {
    let all = dumps(mesh)?;
    for (name, last, _, _) in SERVICES {
        for client in ["alice", "bob"] {
            let address = SocketAddr::from((Ipv4Addr::new(10, 96, 6, last), ECHO_PORT));
            let question = Question::to(&format!("tcp://{name}.default:{ECHO_PORT}"))?;
            let explanation = predicted(&all, Client::Pod(client), &question)?;
            let possible = allowed(&explanation)?;
            let arrives = possible.iter().any(|one| matches!(one, Outcome::Reached(_)));
            let closes = possible.iter().any(|one| matches!(one, Outcome::Envoy(..)));
            let seen = netns::within(&mesh.pod(client)?.network, || echoes(address))?;
            ensure!(if seen { arrives } else { closes }, "{client} echo: {seen}\n{}", explanation.text());
        }
    }
    Ok(())
}

/// The program itself, which finds the Envoys by the file of the mesh.
fn command(mesh: &mut Mesh) -> anyhow::Result<()> {
    apply(mesh, "many", MANY)?;
    let mut pods = String::from("pods:\n");
    for pod in &mesh.pods {
        let (name, namespace) = (&pod.workload.name, &pod.workload.namespace);
        pods += &format!("- {{name: {name}, namespace: {namespace}, netns: {}}}\n", pod.network);
    }
    let file = mesh.dir.join("pods.yaml");
    fs::write(&file, pods)?;
    let why = |args: &[&str]| -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(mesh.programs().ours("istioctl"));
        let output = command.arg("--mesh").arg(&file).arg("why").args(args).output().context("istioctl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), text + &String::from_utf8_lossy(&output.stderr)))
    };
    let (code, text) = why(&["alice", "--to", "http://server:9080/late", "-H", "x-n: 1"])?;
    ensure!(code == Some(0) && text.ends_with("would reach server-v2.default\n"), "{code:?}: {text}");
    let (code, text) = why(&["bob.other", "--to", "http://guarded.default:9080/admin", "-o", "json"])?;
    ensure!(code == Some(2), "{code:?}: {text}");
    let page: serde_json::Value = serde_json::from_str(&text)?;
    let end = &page["way"]["end"];
    ensure!(end["status"] == 403 && end["object"] == "AuthorizationPolicy guarded.default", "{text}");
    let (code, text) = why(&["guarded", "--from-ip", "10.77.0.100", "--to", "http://:9080/"])?;
    ensure!(code == Some(2) && text.contains("PeerAuthentication"), "{code:?}: {text}");
    let (code, text) = why(&["nobody", "--to", "http://server:9080/"])?;
    ensure!(code == Some(1) && text.starts_with("Error: "), "{code:?}: {text}");
    Ok(())
}
