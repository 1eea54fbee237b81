//! What requests meet.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context as _, ensure};
use istio_tests::app::{ECHO_PORT, PORT};
use istio_tests::client::Ask;
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns;
use istio_tests::process::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Case, version};

pub(crate) const CASES: &[Case] = &[
    ("jason_gets_reviews_v2_and_everybody_else_v1", routes_by_header),
    ("reviews_sees_the_identity_of_its_caller", identity),
    ("plaintext_is_refused_under_strict", plaintext),
    ("an_application_reaches_itself_by_its_service", itself),
    ("unknown_destinations_pass_through", passthrough),
    ("the_proxys_own_traffic_is_not_redirected", proxy_user),
    ("the_101st_connection_is_refused", circuit_breaker),
];

fn routes_by_header(mesh: &mut Mesh) -> anyhow::Result<()> {
    for (user, wanted) in [(None, "v1"), (Some("jason"), "v2"), (Some("jasonx"), "v1"), (Some("JASON"), "v1")]
    {
        for _ in 0..20 {
            let seen = version(mesh, user)?;
            ensure!(seen == wanted, "{user:?} got {seen}");
        }
    }
    Ok(())
}

fn identity(mesh: &mut Mesh) -> anyhow::Result<()> {
    let page = mesh.productpage(Some("jason"))?.json()?;
    let caller = &page["reviews"]["caller"]["identity"];
    ensure!(caller == "spiffe://cluster.local/ns/default/sa/bookinfo-productpage", "{caller}");
    // The page of v2 has the answer of ratings, which reviews called.
    ensure!(page["reviews"]["ratings"]["stars"] == 5, "{page}");
    // What a client claims to be counts for nothing.
    let claim = "By=x;URI=spiffe://cluster.local/ns/default/sa/admin";
    let ask = mesh.ask_productpage()?.header("x-forwarded-client-cert", claim);
    let ask = Ask { path: "/headers".into(), ..ask };
    let headers = ask.from(&mesh.client)?.json()?;
    ensure!(!headers.to_string().contains("sa/admin"), "{headers}");
    Ok(())
}

fn plaintext(mesh: &mut Mesh) -> anyhow::Result<()> {
    for name in ["reviews-v1", "details-v1", "ratings-v1"] {
        let address = mesh.pod(name)?.workload.address;
        let answer = Ask::get((address, PORT), "x", "/headers").from(&mesh.client);
        ensure!(answer.is_err(), "{name} answered {:?}", answer.map(|answer| answer.status));
        // Nor does Envoy's own port help.
        let answer = Ask::get((address, names::port::INBOUND), "x", "/headers").from(&mesh.client);
        ensure!(answer.is_err(), "{name} at 15006 answered {:?}", answer.map(|answer| answer.status));
    }
    Ok(())
}

fn itself(mesh: &mut Mesh) -> anyhow::Result<()> {
    let service = SocketAddr::from(([10, 96, 0, 12], PORT));
    let details = mesh.pod("details-v1")?;
    let answer = Ask::get(service, "details:9080", "/details/0").from(&details.network)?;
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
    Ok(())
}

fn passthrough(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut command: Command = netns::command(&mesh.client, &mesh.programs().harness);
    command.args(["app", "outside", "v1"]);
    let _outside = Process::start(command, &mesh.dir.join("log/outside.log"))?;
    let ask = Ask::get((CLIENT, PORT), "outside.example", "/headers");
    let details = mesh.pod("details-v1")?;
    Mesh::wait("an answer from outside", || {
        let answer = ask.from(&details.network)?;
        ensure!(answer.status.is_success(), "{}", answer.status);
        ensure!(answer.json()?["name"] == "outside", "{}", answer.body);
        // It went through Envoy.
        ensure!(answer.headers.get("server").is_some_and(|server| server == "envoy"), "{:?}", answer.headers);
        Ok(())
    })
}

fn proxy_user(mesh: &mut Mesh) -> anyhow::Result<()> {
    use istio_tests::mesh::pod::User;
    let details = mesh.pod("details-v1")?;
    let url = format!("http://{}:{PORT}/headers", mesh.pod("productpage-v1")?.workload.address);
    let fetch = |user| -> anyhow::Result<String> {
        let mut command = details.command(user, std::path::Path::new("curl"));
        let output = command.args(["-s", "-i", "--max-time", "10", &url]).output().context("curl")?;
        Ok(String::from_utf8_lossy(&output.stdout).to_lowercase())
    };
    // The application's request carries what its Envoy adds on the way out, the proxy user's does not.
    let (app, proxy) = (fetch(User::App)?, fetch(User::Proxy)?);
    ensure!(app.contains("200 ok") && app.contains("x-envoy-attempt-count"), "{app}");
    ensure!(proxy.contains("200 ok") && !proxy.contains("x-envoy-attempt-count"), "{proxy}");
    Ok(())
}

/// Holds that many connections and tells whether each one echoes.
async fn connections(address: SocketAddr, count: usize) -> anyhow::Result<Vec<(bool, TcpStream)>> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        let mut byte = [0];
        let echoed = stream.write_all(b"x").await.is_ok()
            && tokio::time::timeout(istio_tests::client::LIMIT, stream.read_exact(&mut byte)).await?.is_ok();
        held.push((echoed, stream));
    }
    Ok(held)
}

fn circuit_breaker(mesh: &mut Mesh) -> anyhow::Result<()> {
    // The rule holds for all ports of reviews: one that speaks plain TCP shows connections.
    let text = mesh.read("bookinfo.yaml")?;
    let (before, rest) = text.split_once("  name: reviews\n").context("service reviews")?;
    let rest = rest.replacen(
        "    targetPort: 9080\n",
        &format!("    targetPort: 9080\n  - {{name: tcp-echo, port: {ECHO_PORT}}}\n"),
        1,
    );
    let rest = rest.replacen(
        "- {name: http, port: 9080, protocol: TCP}\n",
        &format!("- {{name: http, port: 9080, protocol: TCP}}\n- {{name: tcp-echo, port: {ECHO_PORT}, protocol: TCP}}\n"),
        1,
    );
    mesh.write("bookinfo.yaml", &format!("{before}  name: reviews\n{rest}"))?;
    let service = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 14), ECHO_PORT));
    let productpage = mesh.pod("productpage-v1")?;
    let cluster = format!("outbound|{ECHO_PORT}||reviews.default.svc.cluster.local");
    Mesh::wait("the TCP port", || {
        let held = netns::within(&productpage.network, || connections(service, 1))?;
        ensure!(held[0].0, "no echo");
        productpage.stat(&format!("cluster.{cluster};.upstream_cx_overflow")).map(drop)
    })?;
    Mesh::wait("no connection open", || {
        let open = productpage.stat(&format!("cluster.{cluster};.upstream_cx_active"))?;
        ensure!(open == 0, "{open} open");
        Ok(())
    })?;
    let before = productpage.stat(&format!("cluster.{cluster};.upstream_cx_overflow"))?;
    let echoed = netns::within(&productpage.network, || async {
        let held = connections(service, 101).await?;
        Ok(held.iter().map(|(echoed, _)| *echoed).collect::<Vec<_>>())
    })?;
    let after = productpage.stat(&format!("cluster.{cluster};.upstream_cx_overflow"))?;
    ensure!(echoed[..100].iter().all(|echoed| *echoed), "100 connections are allowed: {echoed:?}");
    ensure!(!echoed[100], "the 101st connection went through");
    ensure!(after == before + 1, "overflow went from {before} to {after}");
    mesh.write("bookinfo.yaml", &text)
}
