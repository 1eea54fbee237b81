//! `dashboard`: a local port that leads to a page inside of the mesh.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use runtime::tasks::Tasks;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::args::Global;
use crate::args::dashboard::{Dashboard as Args, What};
use crate::failure::Result;
use crate::proxies::{Mesh, Proxy};
use crate::render::plain::warn;

/// How long it is watched whether a connection stays.
const CHECK: Duration = Duration::from_millis(300);
/// How long nothing is accepted after what could not be.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens a port, prints its address, and serves until it is interrupted.
///
/// # Errors
/// When there is no such pod, or the port is taken.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let mut global = global.clone();
    // What belongs to the mesh lies beside its control plane.
    if args.pod.is_none() && global.namespace.is_none() {
        global.namespace = Some(global.istio_namespace.clone());
    }
    let mesh = Arc::new(Mesh::open(&global).await?);
    let (port, path) = args.what.place();
    let port = args.ui_port.unwrap_or(port);
    let pod = pod(args, &mesh).await?;
    check(&mesh, &pod, port).await?;
    let listeners = listen(&args.address, args.port).await;
    let listeners = listeners.with_context(|| format!("--address {} --port {}", args.address, args.port))?;
    let first = listeners.first().context("no address")?;
    let url = url(first.local_addr()?, path);
    writeln!(out, "{url}")?;
    out.flush()?;
    if args.browser {
        open(&url);
    }
    let tasks = Tasks::new();
    for listener in listeners {
        tasks.spawn("pages", serve(tasks.clone(), listener, mesh.clone(), pod.clone(), port));
    }
    Ok(tokio::signal::ctrl_c().await?)
}

/// All addresses of a name, with one port: a browser may take any of them.
async fn listen(host: &str, port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    let (mut listeners, mut port) = (Vec::new(), port);
    for address in addresses {
        match TcpListener::bind((address.ip(), port)).await {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            // A machine may know a name's address and not have it.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(listeners)
}

/// Whether it can be reached at all is told at once, not by the browser.
async fn check(mesh: &Mesh, pod: &Proxy, port: u16) -> anyhow::Result<()> {
    let mut connection = mesh.connect(pod, port).await?;
    // Who forwards says only then that nobody listens there; who listens, waits.
    match tokio::time::timeout(CHECK, connection.read_u8()).await {
        Ok(Err(error)) => Err(error).with_context(|| format!("port {port} of {pod} closes at once")),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

async fn pod(args: &Args, mesh: &Mesh) -> anyhow::Result<Proxy> {
    match (&args.pod, args.what.labels()) {
        (Some(name), _) => mesh.proxy(name).await,
        (None, Some("")) => {
            let found = mesh.istiods("").await?;
            found.into_iter().next().context("no running Istio pods; name their namespace with -i")
        }
        (None, Some(labels)) => {
            let found = mesh.selected(labels).await;
            let found = found.with_context(|| format!("is it installed? it has the labels {labels}"))?;
            found.into_iter().next().context("no pods")
        }
        (None, None) => bail!("name the pod: istioctl dashboard envoy POD[.NAMESPACE]"),
    }
}

fn url(address: SocketAddr, path: &str) -> String {
    if address.ip().is_loopback() {
        return format!("http://localhost:{}{path}", address.port());
    }
    format!("http://{address}{path}")
}

/// The browser of this desktop, if there is one.
fn open(url: &str) {
    let opened = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if opened.is_err() {
        eprintln!("Warning: no browser could be opened; open the address above");
    }
}

async fn serve(tasks: Tasks, listener: TcpListener, mesh: Arc<Mesh>, pod: Proxy, port: u16) {
    let mut is_told = false;
    loop {
        let mut near = match listener.accept().await {
            Ok((near, _)) => near,
            Err(error) => {
                // Without files left, it would be refused again at once.
                if !std::mem::replace(&mut is_told, true) {
                    warn(format!("a connection could not be accepted: {error}"));
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (mesh, pod) = (mesh.clone(), pod.clone());
        tasks.spawn("page", async move {
            match mesh.connect(&pod, port).await {
                // A browser that goes away is no failure.
                Ok(mut far) => drop(tokio::io::copy_bidirectional(&mut near, &mut far).await),
                Err(error) => warn(format!("{error:#}")),
            }
        });
    }
}

impl What {
    /// Port and path of its page.
    const fn place(self) -> (u16, &'static str) {
        match self {
            Self::Envoy => (15000, "/"),
            Self::Proxy => (15020, "/stats/prometheus"),
            Self::Istiod => (15014, "/debug"),
            Self::Prometheus => (9090, "/"),
            Self::Grafana => (3000, "/"),
            Self::Kiali => (20001, "/kiali"),
            Self::Jaeger => (16686, "/"),
            Self::Zipkin => (9411, "/"),
        }
    }

    /// Labels of its pods: none, when the pod is named; empty, for the control plane.
    const fn labels(self) -> Option<&'static str> {
        match self {
            Self::Envoy | Self::Proxy => None,
            Self::Istiod => Some(""),
            Self::Prometheus => Some("app.kubernetes.io/name=prometheus"),
            Self::Grafana => Some("app.kubernetes.io/name=grafana"),
            Self::Kiali => Some("app=kiali"),
            Self::Jaeger => Some("app=jaeger"),
            Self::Zipkin => Some("app=zipkin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_one_that_a_browser_opens() {
        assert_eq!(url("127.0.0.1:80".parse().unwrap(), "/"), "http://localhost:80/");
        assert_eq!(url("10.0.0.1:81".parse().unwrap(), "/kiali"), "http://10.0.0.1:81/kiali");
    }

    #[tokio::test]
    async fn all_addresses_of_a_name_have_one_port() {
        let listeners = listen("localhost", 0).await.unwrap();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|one| one.local_addr().unwrap()).collect();
        assert!(addresses[0].is_ipv4(), "{addresses:?}");
        assert!(addresses.iter().all(|one| one.port() == addresses[0].port() && one.port() != 0));
        let error = listen("127.0.0.1", addresses[0].port()).await.unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
    }
}
