//! Who may do what: policies with real requests.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use istio_tests::app::{ECHO_PORT, PORT};
use istio_tests::client::Ask;
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("requests_pass_or_not_as_policies_say", requests),
    ("what_is_denied_is_denied_however_it_is_written", smuggling),
    ("connections_pass_or_not_as_policies_say", connections),
    ("tokens_are_checked_with_keys_in_place_and_fetched", tokens),
    ("a_server_outside_decides_what_it_is_asked_about", outside),
];

const FILE: &str = "policies.yaml";
/// Port of the issuer and of the server that decides.
const OUTSIDE: u16 = 9100;

/// A server, and callers of two namespaces.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: server, namespace: default}
spec:
  clusterIP: 10.96.2.1
  selector: {app: server}
  ports: [{name: http, port: 9080}, {name: tcp-echo, port: 9000}]
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: default}
spec: {clusterIP: 10.96.2.2, ports: [{name: http, port: 9100}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside, namespace: default, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.100]}]
ports: [{name: http, port: 9100}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: server, namespace: default, labels: {kubernetes.io/service-name: server}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.20], targetRef: {kind: Pod, name: server, namespace: default}}]
ports: [{name: http, port: 9080}, {name: tcp-echo, port: 9000}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: default, labels: {app: server, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: server, containers: [{name: app}]}
status: {phase: Running, podIP: 10.77.0.20}
---
apiVersion: v1
kind: Pod
metadata: {name: alice, namespace: default, labels: {app: alice, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: alice, containers: [{name: app}]}
status: {phase: Running, podIP: 10.77.0.21}
---
apiVersion: v1
kind: Pod
metadata: {name: bob, namespace: other, labels: {app: bob, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: bob, containers: [{name: app}]}
status: {phase: Running, podIP: 10.77.0.22}
";

const MESH: &str = "
extensionProviders:
- name: outside
  envoyExtAuthzHttp:
    service: default/outside.default.svc.cluster.local
    port: 9100
    pathPrefix: /check
    timeout: 5s
    includeRequestHeadersInCheck: [x-answer]
";

/// A mesh of those workloads, with a provider.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    Mesh::start_with_settings("istio-e2e-policies", OBJECTS, MESH)
}

/// Who asks: a pod by name, or the client without a sidecar.
const PLAIN: &str = "client";

fn ask(path: &str) -> Ask {
    Ask::get((Ipv4Addr::new(10, 96, 2, 1), PORT), "server.default:9080", path)
}

fn status(mesh: &Mesh, who: &str, ask: &Ask) -> anyhow::Result<u16> {
    let mut ask = ask.clone();
    let network = if who == PLAIN {
        ask.address = SocketAddr::from((mesh.pod("server")?.workload.address, PORT));
        mesh.client.clone()
    } else {
        mesh.pod(who)?.network.clone()
    };
    Ok(ask.from(&network)?.status.as_u16())
}

/// Waits until all requests end as they should.
fn expect(mesh: &Mesh, what: &str, wanted: &[(&str, Ask, u16)]) -> anyhow::Result<()> {
    Mesh::wait(what, || {
        for (who, ask, wanted) in wanted {
            let seen = status(mesh, who, ask)?;
            let Ask { method, path, headers, .. } = ask;
            ensure!(seen == *wanted, "{who}: {method} {path} {headers:?} got {seen}, not {wanted}");
        }
        Ok(())
    })
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: p, namespace: default}}\nspec: {spec}\n"
    )
}

fn remove(mesh: &Mesh) -> anyhow::Result<()> {
    fs::remove_file(mesh.objects.join(FILE))?;
    expect(mesh, "no policy", &[("alice", ask("/headers"), 200), (PLAIN, ask("/headers"), 200)])
}

/// A policy's `spec`, and who asks what with which outcome.
type Row<'a> = (&'a str, Vec<(&'a str, Ask, u16)>);

fn requests(mesh: &mut Mesh) -> anyhow::Result<()> {
    let get = || ask("/headers");
    let post = || get().method(Method::POST);
    let with = |name: &str, value: &str| get().header(name, value);
    let rows: &[Row] = &[
        ("{}", vec![("alice", get(), 403), (PLAIN, get(), 403)]),
        (
            "{rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/alice]}}]}]}",
            vec![("alice", get(), 200), ("bob", get(), 403), (PLAIN, get(), 403)],
        ),
        (
            "{rules: [{from: [{source: {namespaces: ['oth*']}}]}]}",
            vec![("alice", get(), 403), ("bob", get(), 200), (PLAIN, get(), 403)],
        ),
        (
            "{rules: [{from: [{source: {serviceAccounts: [alice, other/bob]}}], to: [{operation: {notMethods: [POST]}}]}]}",
            vec![("alice", get(), 200), ("bob", get(), 200), ("bob", post(), 403), (PLAIN, get(), 403)],
        ),
        (
            "{rules: [{from: [{source: {ipBlocks: [10.77.0.100/32]}}]}]}",
            vec![("alice", get(), 403), (PLAIN, get(), 200)],
        ),
        (
            "{action: DENY, rules: [{from: [{source: {notPrincipals: ['*']}}], to: [{operation: {ports: ['9080']}}]}]}",
            vec![("alice", get(), 200), (PLAIN, get(), 403)],
        ),
        (
            "{rules: [{to: [{operation: {paths: ['/headers', '/status/{*}'], hosts: ['server.*']}}]}]}",
            vec![
                ("alice", get(), 200),
                ("alice", ask("/status/201"), 201),
                ("alice", ask("/status/201/x"), 403),
                ("alice", ask("/other"), 403),
            ],
        ),
        (
            "{rules: [{when: [{key: 'request.headers[x-a.b]', values: ['v*'], notValues: [v2]}]}]}",
            vec![
                ("alice", with("x-a.b", "v1"), 200),
                ("alice", with("x-a.b", "v2"), 403),
                ("alice", with("x-axb", "v1"), 403),
                ("alice", get(), 403),
            ],
        ),
    ];
    for (spec, wanted) in rows {
        mesh.write(FILE, &policy(spec))?;
        expect(mesh, spec, wanted)?;
    }
    // What is denied stays so, whatever allows it; what is only tried changes nothing.
    let both = format!(
        "{}---\n{}---\n{}",
        policy("{rules: [{}]}").replace("name: p", "name: all"),
        policy("{action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ['9080']}}]}]}"),
        policy("{action: DENY, rules: [{}]}")
            .replace("name: p", "name: tried, annotations: {istio.io/dry-run: 'true'}"),
    );
    mesh.write(FILE, &both)?;
    expect(mesh, "deny before allow", &[("alice", get(), 200), ("alice", post(), 403)])?;
    remove(mesh)
}

fn smuggling(mesh: &mut Mesh) -> anyhow::Result<()> {
    let spec = "{action: DENY, rules: [{to: [{operation: {paths: ['/admin*'], ports: ['9080']}}, {operation: {methods: [DELETE], ports: ['9080']}}]}]}";
    mesh.write(FILE, &policy(spec))?;
    let denied = ["/admin", "/%61dmin", "/x/../admin", "/./admin", "/admin;x", "/x/%2e%2e/admin", "/admin?x"];
    let mut wanted: Vec<(&str, Ask, u16)> = denied.iter().map(|path| (PLAIN, ask(path), 403)).collect();
    wanted.push((PLAIN, ask("/headers").method(Method::DELETE), 403));
    wanted.push((PLAIN, ask("/headers"), 200));
    wanted.push((PLAIN, ask("/x/admin"), 404));
    expect(mesh, "paths", &wanted)?;
    remove(mesh)
}

/// Whether the server's port for bytes echoes.
fn echoes(mesh: &Mesh, who: &str) -> anyhow::Result<bool> {
    netns::within(&mesh.pod(who)?.network, || async {
        let mut stream = TcpStream::connect((Ipv4Addr::new(10, 96, 2, 1), ECHO_PORT)).await?;
        let mut byte = [0];
        let answer = async {
            stream.write_all(b"x").await?;
            stream.read_exact(&mut byte).await
        };
        let answer = tokio::time::timeout(istio_tests::client::LIMIT, answer).await?;
        Ok(answer.is_ok())
    })
}

fn connections(mesh: &mut Mesh) -> anyhow::Result<()> {
    let rows = [
        ("{rules: [{from: [{source: {namespaces: [other]}}]}]}", false, true),
        (
            "{action: DENY, rules: [{from: [{source: {namespaces: [other]}}], to: [{operation: {ports: ['9000']}}]}]}",
            true,
            false,
        ),
        // Less is allowed and more denied where requests would be needed.
        ("{rules: [{to: [{operation: {methods: [GET]}}]}]}", false, false),
        ("{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]}", true, true),
    ];
    for (spec, alice, bob) in rows {
        mesh.write(FILE, &policy(spec))?;
        Mesh::wait(spec, || {
            let seen = (echoes(mesh, "alice")?, echoes(mesh, "bob")?);
            ensure!(seen == (alice, bob), "{seen:?}");
            Ok(())
        })?;
    }
    remove(mesh)
}

const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"k1","x":"gGWD09U02auiVT73xeeks7n5F_7RUHNCWgCP5fq1DsA","y":"W3oaTS-27hBoK7WKMICuSPznefXv6PLIrkaYaTdJUdo"}]}"#;
// Signed once with keys that are gone: of test@issuer until 2100, ended in 2020,
// of other@issuer, and with another key under the same name.
const GOOD: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJpc3MiOiJ0ZXN0QGlzc3VlciIsInN1YiI6InVzZXIiLCJhdWQiOiJtZXNoIiwiZXhwIjo0MTAyNDQ0ODAwLCJncm91cHMiOlsiYWRtaW4iLCJzdGFmZiJdLCJzY29wZSI6InJlYWQgd3JpdGUiLCJyZWFsbSI6eyJyb2xlIjoiYm9zcyJ9fQ.CwxvNLJUr8gFE-sbzRdMEcRp3dWzpL86Ot0P9lYvCf-lE1B82YlSLT3JXKGPcOfLdQGm2i1lvXobbS1wh1JMuA";
const EXPIRED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJpc3MiOiJ0ZXN0QGlzc3VlciIsInN1YiI6InVzZXIiLCJhdWQiOiJtZXNoIiwiZXhwIjoxNjAwMDAwMDAwLCJncm91cHMiOlsiYWRtaW4iLCJzdGFmZiJdLCJzY29wZSI6InJlYWQgd3JpdGUiLCJyZWFsbSI6eyJyb2xlIjoiYm9zcyJ9fQ.QlBgEQ_1y8hb62hh7TY-7zWrlLXcAtteBv-Nsmp5KUygNMKap_DGI6V300z0J0jhEnfTFKbKra4Im9xL_TPxTg";
const FOREIGN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJpc3MiOiJvdGhlckBpc3N1ZXIiLCJzdWIiOiJ1c2VyIiwiYXVkIjoibWVzaCIsImV4cCI6NDEwMjQ0NDgwMCwiZ3JvdXBzIjpbImFkbWluIiwic3RhZmYiXSwic2NvcGUiOiJyZWFkIHdyaXRlIiwicmVhbG0iOnsicm9sZSI6ImJvc3MifX0.eMXHxLHDt3emz5oHBMgrCEGn232scQOlMBxBkcjylhlMytZu1dzVf-Y448oxnNO8L5T7xAiRAlrRb2TJ3WM_gg";
const FORGED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJpc3MiOiJ0ZXN0QGlzc3VlciIsInN1YiI6InVzZXIiLCJhdWQiOiJtZXNoIiwiZXhwIjo0MTAyNDQ0ODAwLCJncm91cHMiOlsiYWRtaW4iLCJzdGFmZiJdLCJzY29wZSI6InJlYWQgd3JpdGUiLCJyZWFsbSI6eyJyb2xlIjoiYm9zcyJ9fQ.6C_Ce-RoMHBN27fJMCaQXzRpFtySZ-Q1ptqlOlUxYX2U3rmty5hMvfaojpbZ6utLSFzx_n05KJWlg5M0JLpunA";

/// Answers requests of the outside with what `answer` says of their heads, as
/// long as `body` runs.
fn serve<T>(
    mesh: &Mesh,
    answer: impl Fn(&str) -> (u16, String) + Sync,
    body: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let listener = netns::within(&mesh.client, || async { Ok(TcpListener::bind((CLIENT, OUTSIDE))?) })?;
    listener.set_nonblocking(true)?;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => reply(stream, &answer).unwrap_or_default(),
                    Err(_) => wait(&listener),
                }
            }
        });
        let result = body();
        is_done.store(true, Ordering::Relaxed);
        result
    })
}

/// Waits for a connection, or a little.
fn wait(listener: &TcpListener) {
    use nix::poll::{PollFd, PollFlags, poll};
    let mut listener = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    // Whatever it says, the caller looks itself.
    let _ = poll(&mut listener, 50_u16);
}

fn reply(mut stream: std::net::TcpStream, answer: impl Fn(&str) -> (u16, String)) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => head.extend(&buffer[..count]),
        }
    }
    let (status, body) = answer(&String::from_utf8_lossy(&head));
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn tokens(mesh: &mut Mesh) -> anyhow::Result<()> {
    let with = |token: &str| ask("/headers").header("authorization", &format!("Bearer {token}"));
    let authentication = |keys: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: r, namespace: default}}\nspec:\n  jwtRules:\n  - issuer: test@issuer\n    {keys}\n---\n"
        )
    };
    let checked = [
        ("alice", ask("/headers"), 200),
        ("alice", with(GOOD), 200),
        ("alice", with(EXPIRED), 401),
        ("alice", with(FOREIGN), 401),
        ("alice", with(FORGED), 401),
        ("alice", with("nonsense"), 401),
    ];
    let in_place = authentication(&format!("jwks: '{KEYS}'"));
    mesh.write(FILE, &in_place)?;
    expect(mesh, "keys in place", &checked)?;
    let claims = "{rules: [{from: [{source: {requestPrincipals: [test@issuer/user]}}], \
        when: [{key: 'request.auth.claims[groups]', values: [admin]}, \
        {key: 'request.auth.claims[realm][role]', values: ['bo*']}, {key: 'request.auth.claims[scope]', values: [write]}, \
        {key: request.auth.audiences, values: [mesh]}]}]}";
    mesh.write(FILE, &format!("{in_place}{}", policy(claims)))?;
    expect(
        mesh,
        "claims",
        &[("alice", ask("/headers"), 403), ("alice", with(GOOD), 200), ("alice", with(EXPIRED), 401)],
    )?;
    let other = policy("{rules: [{from: [{source: {requestPrincipals: ['*/nobody']}}]}]}");
    mesh.write(FILE, &format!("{in_place}{other}"))?;
    expect(mesh, "another subject", &[("alice", with(GOOD), 403)])?;
    // Nobody serves the keys yet: every token is refused, and what has none passes.
    let fetched = authentication(&format!("jwksUri: 'http://{CLIENT}:{OUTSIDE}/keys'"));
    mesh.write(FILE, &fetched)?;
    expect(mesh, "no keys", &[("alice", ask("/headers"), 200), ("alice", with(GOOD), 401)])?;
    // A connection that alice's proxy has kept is answered once more by the rules
    // that it was opened under: what a request says is not yet that keys were fetched.
    let is_asked = AtomicBool::new(false);
    let answer = |head: &str| {
        is_asked.fetch_or(head.starts_with("GET /keys "), Ordering::Relaxed);
        (200, KEYS.to_owned())
    };
    serve(mesh, answer, || {
        Mesh::wait("keys asked for", || {
            ensure!(is_asked.load(Ordering::Relaxed), "nobody has asked");
            Ok(())
        })?;
        expect(mesh, "keys fetched", &checked)
    })?;
    // The issuer is away again: its last keys stay.
    expect(mesh, "keys stay", &checked)?;
    remove(mesh)
}

fn outside(mesh: &mut Mesh) -> anyhow::Result<()> {
    let decide = |head: &str| {
        let is_check = head.starts_with("GET /check/");
        let is_good = head.to_ascii_lowercase().contains("x-answer: yes");
        (if is_check && is_good { 200 } else { 403 }, String::new())
    };
    let spec = |provider: &str| {
        let rules = "rules: [{to: [{operation: {paths: ['/status/*']}}]}]";
        policy(&format!("{{action: CUSTOM, provider: {{name: {provider}}}, {rules}}}"))
    };
    let good = || ask("/status/201").header("x-answer", "yes");
    mesh.write(FILE, &spec("outside"))?;
    serve(mesh, decide, || {
        let wanted =
            [("alice", good(), 201), ("alice", ask("/status/201"), 403), ("alice", ask("/headers"), 200)];
        expect(mesh, "the server decides", &wanted)
    })?;
    // Nobody can be asked: nothing of it passes.
    expect(mesh, "no server", &[("alice", good(), 403), ("alice", ask("/headers"), 200)])?;
    mesh.write(FILE, &spec("unknown"))?;
    expect(mesh, "no provider", &[("alice", good(), 403), ("alice", ask("/headers"), 200)])?;
    fs::remove_file(mesh.objects.join(FILE)).context("policies")?;
    expect(mesh, "no policy", &[("alice", ask("/status/201"), 201)])
}
