//! The DNS proxy: it answers what istiod's name table has, and passes on what
//! it does not have. It knows nothing of how the table comes.

mod answer;
mod cache;
mod ndsz;
mod packet;
mod proxy;
mod query;
mod resolv_conf;
mod server;
mod table;
mod upstream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::istio::networking::nds::v1::NameTable;
use runtime::tasks::Tasks;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::metrics::dns::Dns;
use proxy::Proxy;
use resolv_conf::{ResolvConf, Watched};
use server::Sockets;
use table::Table;

/// The table as it last came from istiod; `None` before the first.
pub type Names = watch::Receiver<Option<Arc<NameTable>>>;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// This port of this machine, by the families of the servers to ask.
    Localhost(u16),
    /// This address.
    Address(SocketAddr),
}

/// What happens to requests before the first table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeforeTable {
    /// They fail, so that no host of the mesh is looked for elsewhere.
    Refuse,
    /// They are passed on: the agent is the only resolver of this machine, and
    /// istiod itself may have to be found by it.
    Forward,
}

/// How the proxy works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub listen: Listen,
    /// Namespace of the pod.
    pub namespace: String,
    /// Domain of the pod, `NS.svc.cluster.local`.
    pub domain: String,
    /// All servers are asked at once.
    pub is_parallel: bool,
    /// Longest time for an answer of other servers.
    pub timeout: Duration,
    /// Requests before the first table.
    pub before_table: BeforeTable,
    /// File that names other servers.
    pub resolv_conf: PathBuf,
}

/// The proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody can be asked.
    #[error("DNS proxy: read {}", path.display())]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The port is taken, or the address is not here.
    #[error("DNS proxy: listen on {address}/{protocol}; choose another address by DNS_PROXY_ADDR")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The names as one pod sees them, to be shown.
#[derive(Clone, Debug)]
pub struct View {
    names: Names,
    namespace: String,
    domain: String,
}

impl View {
    /// The names that a proxy with these settings answers from.
    #[must_use]
    pub fn new(settings: &Settings, names: Names) -> Self {
        Self { names, namespace: settings.namespace.clone(), domain: settings.domain.clone() }
    }

    /// The table as JSON with all forms of all names, for `/debug/ndsz`;
    /// `None` before the first.
    #[must_use]
    pub fn json(&self) -> Option<String> {
        let names = self.names.borrow().clone()?;
        ndsz::json(&names, &self.namespace, &self.domain)
    }
}

/// Opens the sockets and serves until the tasks are stopped; returns where it
/// listens, UDP and TCP.
///
/// # Errors
/// When `resolv.conf` cannot be read or a socket not be opened.
pub async fn start(
    settings: &Settings,
    names: Names,
    tasks: &Tasks,
    metrics: Arc<Dns>,
) -> Result<Vec<SocketAddr>, Error> {
    let path = &settings.resolv_conf;
    let resolv_conf =
        Watched::open(path).map_err(|source| Error::ResolvConf { path: path.clone(), source })?;
    start_with(settings, resolv_conf, names, tasks, metrics).await
}

async fn start_with(
    settings: &Settings,
    resolv_conf: Watched,
    names: Names,
    tasks: &Tasks,
    metrics: Arc<Dns>,
) -> Result<Vec<SocketAddr>, Error> {
    let conf = resolv_conf.current();
    let mut all = Vec::new();
    for address in addresses(settings.listen, &conf) {
        match Sockets::open(address).await {
            Ok(sockets) => all.push(sockets),
            // A server of a family that this machine has none of.
            Err((_, error)) if error.kind() == io::ErrorKind::AddrNotAvailable && !all.is_empty() => {
                warn!(target: "dns", %address, "this machine has no such address: no DNS requests come there");
            }
            Err((protocol, source)) => return Err(Error::Listen { address, protocol, source }),
        }
    }
    let addresses: Vec<SocketAddr> = all.iter().filter_map(|sockets| sockets.address().ok()).collect();
    info!(target: "dns", ?addresses, servers = ?conf.servers, search = conf.search, "DNS proxy");
    let (tables_tx, tables) = watch::channel(None);
    let proxy = Proxy::new(settings, resolv_conf, addresses.clone(), tables, tasks.clone(), metrics);
    let proxy = Arc::new(proxy);
    for sockets in all {
        sockets.serve(proxy.clone(), tasks);
    }
    let (namespace, domain) = (settings.namespace.clone(), settings.domain.clone());
    drop(tasks.spawn("dns table", follow(names, tables_tx, namespace, domain)));
    Ok(addresses)
}

/// Prepares each table for lookups. When no more come, the last one stays.
async fn follow(
    mut names: Names,
    tables: watch::Sender<Option<Arc<Table>>>,
    namespace: String,
    domain: String,
) {
    loop {
        let table = names.borrow_and_update().clone();
        if let Some(table) = table {
            let table = Table::new(table, &namespace, &domain);
            debug!(target: "dns", names = table.len(), "new name table");
            tables.send_replace(Some(Arc::new(table)));
        }
        if names.changed().await.is_err() {
            return;
        }
    }
}

/// Addresses to listen on: of `localhost` those of the families that servers
/// are asked in, since requests to them are what is redirected here.
fn addresses(listen: Listen, conf: &ResolvConf) -> Vec<SocketAddr> {
    let port = match listen {
        Listen::Address(address) => return vec![address],
        Listen::Localhost(port) => port,
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    if conf.servers.iter().any(SocketAddr::is_ipv4) || conf.servers.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    if conf.servers.iter().any(SocketAddr::is_ipv6) {
        ips.push(Ipv6Addr::LOCALHOST.into());
    }
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

#[cfg(test)]
mod tests;
