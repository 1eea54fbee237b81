//! Addresses of Services: who connects or sends to one is led to a ready endpoint, as
//! kube-proxy did it in its first years, by a program between the two. And
//! their names, in everybody's `/etc/hosts`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use runtime::tasks::Tasks;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::mirror::{Mirror, Objects, items, text};

/// What is carried to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn of(port: &Value) -> Option<Self> {
        match text(&port["protocol"]) {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// An address of a Service.
type Front = (Protocol, SocketAddr);

/// Where connections and datagrams to an address may go.
type Table = BTreeMap<Front, Vec<SocketAddr>>;

/// The table that counts now.
type Current = Arc<Mutex<Table>>;

/// How often the table is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long who sent a datagram is remembered.
const IDLE: Duration = Duration::from_secs(60);
/// Longest datagram.
const DATAGRAM: usize = 65536;

/// The table of all Services.
fn table(services: &Objects, slices: &Objects) -> Table {
    let mut table = Table::new();
    for ((namespace, name), service) in services {
        let addresses: Vec<_> =
            items(&service["spec"]["clusterIPs"]).filter_map(|ip| text(ip).parse().ok()).collect();
        for port in items(&service["spec"]["ports"]) {
            let number = port["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            let (Some(protocol), Some(number)) = (Protocol::of(port), number) else { continue };
            let of_service = slices.iter().filter(|((of, _), slice)| {
                of == namespace && slice["metadata"]["labels"]["kubernetes.io/service-name"] == **name
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
                table.insert((protocol, SocketAddr::new(*address, number)), targets.clone());
            }
        }
    }
    table
}

/// Serves the addresses of Services until the tasks are stopped; in the
/// namespace that has these addresses.
pub(super) async fn serve(tasks: Tasks, mirror: Arc<Mirror>) {
    let current = Current::default();
    let mut listeners = BTreeMap::new();
    while !tasks.is_stopped() {
        let next = table(&mirror.all("Service"), &mirror.all("EndpointSlice"));
        listeners.retain(|front, _| next.contains_key(front));
        for front in next.keys() {
            if listeners.contains_key(front) {
                continue;
            }
            let (protocol, address) = *front;
            // Tried again when it cannot be had.
            let task = match protocol {
                Protocol::Tcp => TcpListener::bind(address).await.ok().map(|listener| {
                    tasks.spawn("service", accept(tasks.clone(), listener, *front, current.clone()))
                }),
                Protocol::Udp => UdpSocket::bind(address).await.ok().map(|socket| {
                    tasks.spawn("service", receive(tasks.clone(), socket, *front, current.clone()))
                }),
            };
            if let Some(task) = task {
                listeners.insert(*front, Stop(task));
            }
        }
        *lock(&current) = next;
        tokio::time::sleep(TICK).await;
    }
}

fn lock(current: &Current) -> MutexGuard<'_, Table> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a listener when it is dropped; its connections go on.
struct Stop(tokio::task::JoinHandle<Option<()>>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The next one of the endpoints, in turn.
fn next(table: &Current, front: Front, turn: &mut usize) -> Option<SocketAddr> {
    let table = lock(table);
    let targets = table.get(&front).map_or(&[][..], Vec::as_slice);
    *turn = turn.wrapping_add(1);
    targets.get(*turn % targets.len().max(1)).copied()
}

async fn accept(tasks: Tasks, listener: TcpListener, front: Front, table: Current) {
    let mut turn = 0;
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        // Without an endpoint the connection ends here.
        let Some(target) = next(&table, front, &mut turn) else { continue };
        tasks.spawn("connection to a service", async move {
            if let Ok(mut server) = TcpStream::connect(target).await {
                client.set_nodelay(true).ok();
                server.set_nodelay(true).ok();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            }
        });
    }
}

/// Leads datagrams on: each sender has one endpoint as long as it goes on.
async fn receive(tasks: Tasks, socket: UdpSocket, front: Front, table: Current) {
    let socket = Arc::new(socket);
    let mut senders: BTreeMap<SocketAddr, Weak<UdpSocket>> = BTreeMap::new();
    let (mut turn, mut bytes) = (0, vec![0; DATAGRAM]);
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut bytes).await else { continue };
        senders.retain(|_, known| known.strong_count() > 0);
        let known = senders.get(&sender).and_then(Weak::upgrade).filter(|known| {
            let targets = lock(&table).get(&front).cloned().unwrap_or_default();
            known.peer_addr().is_ok_and(|target| targets.contains(&target))
        });
        let way = if let Some(way) = known {
            way
        } else {
            let Some(target) = next(&table, front, &mut turn) else { continue };
            let Ok(way) = connect(target).await else { continue };
            let way = Arc::new(way);
            senders.insert(sender, Arc::downgrade(&way));
            tasks.spawn("answers of a service", answer(socket.clone(), way.clone(), sender));
            way
        };
        way.send(&bytes[..length]).await.ok();
    }
}

async fn connect(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let way = UdpSocket::bind((any, 0)).await?;
    way.connect(target).await?;
    Ok(way)
}

/// Leads answers back until there are none for a while.
async fn answer(socket: Arc<UdpSocket>, way: Arc<UdpSocket>, sender: SocketAddr) {
    let mut bytes = vec![0; DATAGRAM];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, way.recv(&mut bytes)).await {
        socket.send_to(&bytes[..length], sender).await.ok();
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ports_of_both_protocols_lead_to_ready_endpoints() {
        let services = json!({
            "spec": {"clusterIPs": ["10.96.0.10"], "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                {"name": "other", "port": 54, "protocol": "SCTP"},
            ]},
        });
        let slices = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "dns"}},
            "ports": [{"name": "dns", "port": 1053}, {"name": "dns-tcp", "port": 2053}],
            "endpoints": [
                {"addresses": ["10.77.1.1"], "conditions": {"ready": true}},
                {"addresses": ["10.77.1.2"], "conditions": {"ready": false}},
            ],
        });
        let of = |name: &str, object: Value| -> Objects {
            [(("default".to_owned(), name.to_owned()), Arc::new(object))].into()
        };
        let table = table(&of("dns", services), &of("dns-1", slices));
        let wanted = [
            ((Protocol::Tcp, address("10.96.0.10:53")), vec![address("10.77.1.1:2053")]),
            ((Protocol::Udp, address("10.96.0.10:53")), vec![address("10.77.1.1:1053")]),
        ];
        assert_eq!(table, wanted.into());
    }

    #[tokio::test]
    async fn datagrams_come_back_from_the_endpoint() {
        let tasks = Tasks::new();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let service = socket.local_addr().unwrap();
        let front = (Protocol::Udp, service);
        let mut endpoints = Vec::new();
        for name in ["a", "b"] {
            let endpoint = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            endpoints.push(endpoint.local_addr().unwrap());
            tasks.spawn("endpoint", async move {
                let mut bytes = [0; 64];
                while let Ok((length, sender)) = endpoint.recv_from(&mut bytes).await {
                    let said = [name.as_bytes(), &bytes[..length]].concat();
                    endpoint.send_to(&said, sender).await.unwrap();
                }
            });
        }
        let table: Current = Arc::new(Mutex::new([(front, endpoints.clone())].into()));
        tasks.spawn("service", receive(tasks.clone(), socket, front, table.clone()));
        let client = connect(service).await.unwrap();
        let ask = async || {
            client.send(b"?").await.unwrap();
            let mut bytes = [0; 64];
            let length = client.recv(&mut bytes).await.unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let first = ask().await;
        assert!(["a?", "b?"].contains(&&*first), "{first}");
        assert_eq!(ask().await, first);
        // Its endpoint is gone: the other one answers.
        let at = usize::from(first == "b?");
        lock(&table).insert(front, vec![endpoints[1 - at]]);
        assert_ne!(ask().await, first);
        tasks.stop(Duration::from_secs(5)).await;
    }
}
