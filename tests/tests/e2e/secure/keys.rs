//! Keys of token issuers behind servers that are slow or away.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use istio_tests::client::Ask;
use istio_tests::mesh::{ISTIOD, Mesh};
use istio_tests::netns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::table::apply;
use super::tokens::tokens;
use super::{SERVER, SETTINGS};

/// Port of the server.
const PORT: u16 = 9701;
/// Says who fetches keys.
const FETCH: &str = "PILOT_JWT_ENABLE_REMOTE_JWKS";

/// How the server answers, and who has asked it.
#[derive(Debug, Default)]
struct State {
    delay: Duration,
    askers: Vec<IpAddr>,
}

/// A server of keys.
#[derive(Clone, Debug, Default)]
struct KeyServer(Arc<Mutex<State>>);

impl KeyServer {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers that late from now on, and forgets who has asked.
    fn slow(&self, delay: Duration) {
        *self.state() = State { delay, askers: Vec::new() };
    }

    /// Serves while something is done.
    fn during(&self, mesh: &Mesh, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let network = mesh.pod("bare")?.network.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                netns::within(&network, || async {
                    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
                    ready.send(()).ok();
                    tokio::select! {
                        _ = stopped => {}
                        () = self.serve(listener) => {}
                    }
                    Ok(())
                })
            });
            let result = is_ready.recv().map_err(anyhow::Error::from).and_then(|()| work());
            stop.send(()).ok();
            let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.and(served)
        })
    }

    async fn serve(&self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((stream, peer)) = listener.accept().await {
            let server = self.clone();
            connections.spawn(async move { server.answer(stream, peer.ip()).await.ok() });
        }
    }

    async fn answer(&self, mut stream: TcpStream, peer: IpAddr) -> anyhow::Result<()> {
        let mut head = Vec::<u8>::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let delay = {
            let mut state = self.state();
            state.askers.push(peer);
            state.delay
        };
        tokio::time::sleep(delay).await;
        let keys = &tokens()?.keys;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", keys.len());
        stream.write_all(format!("{head}{keys}").as_bytes()).await?;
        Ok(())
    }
}

/// A rule with that path of the server, so that nothing of an earlier one counts.
fn rule(path: &str, more: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: keys, namespace: default}}, \
         spec: {{selector: {{matchLabels: {{app: server}}}}, jwtRules: [{{issuer: one@issuer, \
         jwksUri: 'http://keys.default.svc.cluster.local:{PORT}/{path}'{more}}}]}}}}"
    )
}

/// Waits for the status of a request with a token, and of one without.
fn expect(mesh: &Mesh, what: &str, wanted: u16) -> anyhow::Result<()> {
    let token = tokens()?.fill("Bearer {one}");
    Mesh::wait(&format!("{what}: {wanted}"), || {
        let ask = Ask::get((SERVER.pod, SERVER.port), "server.default", "/x");
        let network = &mesh.pod("bare")?.network;
        let seen = ask.clone().header("authorization", &token).from(network)?.status;
        ensure!(seen == wanted, "{seen}");
        let without = ask.from(network)?.status;
        ensure!(without == 200, "without a token: {without}");
        Ok(())
    })
}

pub(crate) fn by_istiod(mesh: &mut Mesh) -> anyhow::Result<()> {
    let server = KeyServer::default();
    // It finds the server by its name, which in a cluster leads to the Service.
    let rule =
        |path: &str, more: &str| rule(path, more).replace("keys.default.svc.cluster.local", "10.77.0.23");
    apply(mesh, &rule("away", ""))?;
    expect(mesh, "istiod, nobody answers", 401)?;
    server.during(mesh, || {
        expect(mesh, "istiod, the server has come", 200)?;
        ensure!(server.state().askers.iter().all(|peer| *peer == ISTIOD), "{:?}", server.state().askers);
        server.slow(Duration::from_millis(1500));
        apply(mesh, &rule("late", ", timeout: 500ms"))?;
        expect(mesh, "istiod, too late", 401)?;
        // It does not wait for the answer, and asks again.
        Mesh::wait("asked again", || {
            ensure!(server.state().askers.len() > 1, "not yet");
            Ok(())
        })?;
        expect(mesh, "istiod, too late again", 401)?;
        apply(mesh, &rule("slow", ", timeout: 10s"))?;
        expect(mesh, "istiod, late but in time", 200)
    })?;
    expect(mesh, "istiod, the last keys stay", 200)?;
    apply(mesh, "")
}

pub(crate) fn by_envoy(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.istiod.env.push((FETCH, "envoy"));
    mesh.set(SETTINGS)?;
    let result = envoy(mesh);
    mesh.istiod.env.retain(|(name, _)| *name != FETCH);
    mesh.set(SETTINGS)?;
    apply(mesh, "").and(result)
}

fn envoy(mesh: &Mesh) -> anyhow::Result<()> {
    let server = KeyServer::default();
    apply(mesh, &rule("away", ""))?;
    expect(mesh, "Envoy, nobody answers", 401)?;
    server.during(mesh, || {
        expect(mesh, "Envoy, the server has come", 200)?;
        ensure!(server.state().askers.iter().all(|peer| *peer == SERVER.pod), "{:?}", server.state().askers);
        server.slow(Duration::from_millis(1500));
        apply(mesh, &rule("late", ", timeout: 500ms"))?;
        expect(mesh, "Envoy, too late", 401)?;
        apply(mesh, &rule("slow", ""))?;
        expect(mesh, "Envoy, late but within its 5 s", 200)
    })?;
    expect(mesh, "Envoy, the last keys stay", 200)
}
