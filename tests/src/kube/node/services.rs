//! Addresses of Services: who connects to one is led to a ready endpoint, as
//! kube-proxy did it in its first years, by a program between the two. And
//! their names, in everybody's `/etc/hosts`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};

use super::mirror::{Mirror, items, text};

/// Where connections to an address may go.
type Table = BTreeMap<SocketAddr, Vec<SocketAddr>>;

/// How often the table is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The table of all Services.
fn table(mirror: &Mirror) -> Table {
    let mut table = Table::new();
    let slices = mirror.all("EndpointSlice");
    for ((namespace, name), service) in mirror.all("Service") {
        let addresses: Vec<_> =
            items(&service["spec"]["clusterIPs"]).filter_map(|ip| text(ip).parse().ok()).collect();
        for port in items(&service["spec"]["ports"]).filter(|port| port["protocol"] == "TCP") {
            let Some(number) = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            let of_service = slices.iter().filter(|((of, _), slice)| {
                *of == namespace && slice["metadata"]["labels"]["kubernetes.io/service-name"] == *name
            });
            let mut targets = Vec::new();
            for (_, slice) in of_service {
                let same = items(&slice["ports"]).find(|one| text(&one["name"]) == text(&port["name"]));
                let Some(target) = same.and_then(|one| u16::try_from(one["port"].as_u64()?).ok()) else {
                    continue;
                };
                let ready = items(&slice["endpoints"]).filter(|one| one["conditions"]["ready"] == true);
                let ips = ready.flat_map(|one| items(&one["addresses"]));
                targets.extend(ips.filter_map(|ip| Some(SocketAddr::new(text(ip).parse().ok()?, target))));
            }
            for address in &addresses {
                table.insert(SocketAddr::new(*address, number), targets.clone());
            }
        }
    }
    table
}

/// Serves the addresses of Services until the tasks are stopped; in the
/// namespace that has these addresses.
pub(super) async fn serve(tasks: Tasks, mirror: Arc<Mirror>) {
    let current: Arc<Mutex<Table>> = Arc::default();
    let mut listeners = BTreeMap::new();
    while !tasks.is_stopped() {
        let next = table(&mirror);
        listeners.retain(|address, _| next.contains_key(address));
        for address in next.keys() {
            if listeners.contains_key(address) {
                continue;
            }
            // Tried again when it cannot be had.
            if let Ok(listener) = TcpListener::bind(address).await {
                let task = tasks.spawn("service", accept(tasks.clone(), listener, *address, current.clone()));
                listeners.insert(*address, Stop(task));
            }
        }
        *current.lock().unwrap_or_else(PoisonError::into_inner) = next;
        tokio::time::sleep(TICK).await;
    }
}

/// Ends a listener when it is dropped; its connections go on.
struct Stop(tokio::task::JoinHandle<Option<()>>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(tasks: Tasks, listener: TcpListener, address: SocketAddr, table: Arc<Mutex<Table>>) {
    let turn = AtomicUsize::new(0);
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let target = {
            let table = table.lock().unwrap_or_else(PoisonError::into_inner);
            let targets = table.get(&address).map_or(&[][..], Vec::as_slice);
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            targets.get(turn % targets.len().max(1)).copied()
        };
        // Without an endpoint the connection ends here.
        let Some(target) = target else { continue };
        tasks.spawn("connection to a service", async move {
            if let Ok(mut server) = TcpStream::connect(target).await {
                client.set_nodelay(true).ok();
                server.set_nodelay(true).ok();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            }
        });
    }
}

/// What `/etc/hosts` of a pod in that namespace says.
pub(super) fn hosts(mirror: &Mirror, own: &str) -> String {
    let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
    let slices = mirror.all("EndpointSlice");
    for ((namespace, name), service) in mirror.all("Service") {
        let ip = text(&service["spec"]["clusterIP"]);
        let addresses: Vec<&str> = if ip == "None" {
            let of_service = slices.iter().filter(|((of, _), slice)| {
                *of == namespace && slice["metadata"]["labels"]["kubernetes.io/service-name"] == *name
            });
            let endpoints = of_service.flat_map(|(_, slice)| items(&slice["endpoints"]));
            let ready = endpoints.filter(|one| one["conditions"]["ready"] == true);
            ready.flat_map(|one| items(&one["addresses"])).map(text).collect()
        } else {
            vec![ip]
        };
        let short = if namespace == own { format!(" {name}") } else { String::new() };
        for address in addresses.into_iter().filter(|address| !address.is_empty()) {
            hosts += &format!(
                "{address} {name}.{namespace}.svc.cluster.local {name}.{namespace}.svc {name}.{namespace}{short}\n"
            );
        }
    }
    hosts
}
