//! A pod, its neighbours, and listeners everywhere.
//!
//! ```text
//! vm (10.11.0.5) -- virt0 (10.11.0.1) pod (10.9.0.5)  eth0 -- peer (10.9.0.1, the way out)
//!                                     pod (10.10.0.5) eth1 -- peer (10.10.0.1, the way to 172.17/16)
//! ```
//!
//! The peer has every address of 10.1/16, 10.2/16, 172.16/12, 192.0.2/24. Of
//! each address there is the IPv6 twin (see `Probe::twin`), unless the pod has
//! one family only.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::probe::{Place, Probe, Verdict};
use super::wire::{Listeners, Owner};
use super::{FILES, Isolated, add, ip, make, within};

/// The proxy's user.
pub const PROXY: u32 = 1337;
/// An application's user.
pub const APP: u32 = 1000;
/// Ports where the application, the peer and the virtual machine listen.
pub const PORTS: &[u16] = &[22, 53, 80, 443, 3306, 8000, 8005, 8010, 8011, 8080, 9999, 15008, 15021, 15090];
/// Ports where the proxy listens: usual ones and another set.
pub const PROXY_PORTS: &[u16] = &[15001, 15006, 15053, 16001, 16006];
/// Where the peer answers datagrams, beside everywhere else where it listens.
pub const SERVERS: &[&str] = &[
    "10.1.0.53:53",
    "10.2.0.53:53",
    "192.0.2.53:53",
    "[fd00:1::53]:53",
    "[fd00:2::53]:53",
    "[2001:db8::53]:53",
];
/// A resolver inside the pod.
pub const RESOLVER: &[&str] = &["127.0.0.1:53", "[::1]:53"];
const AGENT: &[&str] = &["127.0.0.1:15053", "[::1]:15053"];

/// Which addresses the pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

/// The namespaces and their listeners; they go when dropped.
#[derive(Debug)]
pub struct Rig {
    // Listeners end before their namespaces.
    _listeners: Vec<Listeners>,
    pod: Isolated,
    peer: Isolated,
    vm: Isolated,
}

impl Rig {
    /// Makes everything, with these files over those of `/etc` in the pod.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(families: Families, files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let [pod, peer, vm] = namespaces(families, files)?;
        let addresses = |texts: &[&str]| -> anyhow::Result<Vec<SocketAddr>> {
            texts.iter().map(|text| text.parse().with_context(|| (*text).to_owned())).collect()
        };
        let (app, proxy) = (Owner::of(APP), Owner::of(PROXY));
        let listen = |machine: &Isolated, place: Place, owner, tcp: &[u16], udp: &[&str]| {
            Listeners::start(machine.name(), place.name(), owner, tcp.to_vec(), addresses(udp)?)
        };
        let listeners = vec![
            listen(&pod, Place::Pod, app, PORTS, RESOLVER)?,
            listen(&pod, Place::Pod, proxy, PROXY_PORTS, AGENT)?,
            listen(&peer, Place::Peer, app, PORTS, SERVERS)?,
            listen(&vm, Place::Vm, app, PORTS, &[])?,
        ];
        Ok(Self { _listeners: listeners, pod, peer, vm })
    }

    /// The pod.
    pub fn pod(&self) -> &Isolated {
        &self.pod
    }

    /// The namespace of a place.
    pub fn at(&self, place: Place) -> &Isolated {
        match place {
            Place::Pod => &self.pod,
            Place::Peer => &self.peer,
            Place::Vm => &self.vm,
        }
    }

    /// Tries all connections at once, and tells what became of each.
    ///
    /// # Errors
    /// When a namespace cannot be entered.
    pub fn send(&self, probes: &[Probe]) -> anyhow::Result<Vec<anyhow::Result<Verdict>>> {
        let mut results: Vec<_> = probes.iter().map(|_| Err(anyhow::anyhow!("not sent"))).collect();
        for place in [Place::Pod, Place::Peer, Place::Vm] {
            let of_place: Vec<_> =
                probes.iter().cloned().enumerate().filter(|(_, probe)| probe.place == place).collect();
            if of_place.is_empty() {
                continue;
            }
            let answers = within(self.at(place).name(), || async {
                let mut tasks = JoinSet::new();
                for (index, probe) in of_place {
                    tasks.spawn(async move { (index, probe.send().await) });
                }
                Ok(tasks.join_all().await)
            })?;
            for (index, answer) in answers {
                results[index] = answer;
            }
        }
        Ok(results)
    }
}

fn namespaces(families: Families, files: &[(&str, &str)]) -> anyhow::Result<[Isolated; 3]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = |place: Place| format!("istio-test-{}-rig{serial}-{}", std::process::id(), place.name());
    let machines = make(|| {
        let machines = [Place::Pod, Place::Peer, Place::Vm].map(|place| Isolated { name: name(place) });
        for machine in &machines {
            add(machine.name())?;
        }
        Ok(machines)
    })?;
    let [pod, peer, vm] = &machines;
    if !files.is_empty() {
        let folder = Path::new(FILES).join(pod.name());
        super::create_files(&folder)?;
        for (file, text) in files {
            fs::write(folder.join(file), text).context((*file).to_owned())?;
        }
    }
    let (peer_name, vm_name) = (peer.name(), vm.name());
    ip(
        Some(pod.name()),
        &format!(
            "link set lo up\n\
             link add eth0 type veth peer name pod0 netns {peer_name}\n\
             link add eth1 type veth peer name pod1 netns {peer_name}\n\
             link add virt0 type veth peer name eth0 netns {vm_name}\n\
             link set eth0 addrgenmode none\nlink set eth1 addrgenmode none\nlink set virt0 addrgenmode none\n\
             link set eth0 up\nlink set eth1 up\nlink set virt0 up"
        ),
    )?;
    ip(
        Some(peer.name()),
        "link set lo up\nlink set pod0 addrgenmode none\nlink set pod1 addrgenmode none\n\
         link set pod0 up\nlink set pod1 up",
    )?;
    ip(Some(vm.name()), "link set lo up\nlink set eth0 addrgenmode none\nlink set eth0 up")?;
    within(pod.name(), || async {
        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{family}"), "1").with_context(|| family.to_owned())?;
        }
        Ok(())
    })?;
    if families != Families::V6 {
        ip(Some(pod.name()), POD_V4)?;
        ip(Some(peer.name()), PEER_V4)?;
        ip(Some(vm.name()), "addr add 10.11.0.5/24 dev eth0\nroute add default via 10.11.0.1")?;
    }
    if families != Families::V4 {
        ip(Some(pod.name()), POD_V6)?;
        ip(Some(peer.name()), PEER_V6)?;
        ip(
            Some(vm.name()),
            "addr add fe80::5/64 dev eth0 nodad\naddr add fd00:11::5/64 dev eth0 nodad\nroute add default via fd00:11::1",
        )?;
    }
    Ok(machines)
}

const POD_V4: &str = "\
addr add 10.9.0.5/24 dev eth0
addr add 10.10.0.5/24 dev eth1
addr add 10.11.0.1/24 dev virt0
route add default via 10.9.0.1
route add 172.17.0.0/16 via 10.10.0.1";
const POD_V6: &str = "\
addr add fe80::5/64 dev eth0 nodad
addr add fe80::5/64 dev eth1 nodad
addr add fe80::1/64 dev virt0 nodad
addr add fd00:9::5/64 dev eth0 nodad
addr add fd00:10::5/64 dev eth1 nodad
addr add fd00:11::1/64 dev virt0 nodad
route add default via fd00:9::1
route add fd00:17::/32 via fd00:10::1";
const PEER_V4: &str = "\
addr add 10.9.0.1/24 dev pod0
addr add 10.10.0.1/24 dev pod1
route add local 10.1.0.0/16 dev lo
route add local 10.2.0.0/16 dev lo
route add local 172.16.0.0/12 dev lo
route add local 192.0.2.0/24 dev lo
route add 10.11.0.0/24 via 10.9.0.5";
const PEER_V6: &str = "\
addr add fe80::1/64 dev pod0 nodad
addr add fe80::1/64 dev pod1 nodad
addr add fd00:9::1/64 dev pod0 nodad
addr add fd00:10::1/64 dev pod1 nodad
route add local fd00:1::/32 dev lo
route add local fd00:2::/32 dev lo
route add local fd00:16::/32 dev lo
route add local fd00:17::/32 dev lo
route add local 2001:db8::/32 dev lo
route add fd00:11::/64 via fd00:9::5";
