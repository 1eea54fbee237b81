//! A node of a cluster, in place of a kubelet: every Pod of the API server
//! becomes a network namespace, in which its containers run with the
//! arguments, variables, files, users and capabilities that it says. Beside
//! it runs what else a cluster has: controllers of Deployments and endpoints,
//! a way to addresses of Services, and names.
//!
//! Images are programs of this tree: `proxyv2` is istio-init and istio-agent
//! with Envoy, `pilot` is istiod, `examples-bookinfo-NAME-VERSION` an
//! application of bookinfo.

mod container;
mod controllers;
mod field;
mod kubelet;
mod life;
mod mirror;
mod probe;
mod rest;
mod services;
mod volume;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::tasks::Tasks;
use serde_json::{Value, json};

use super::cluster::SERVICES;
use super::{Cluster, Place as ClusterPlace};
use crate::mesh::place::Place;
use crate::netns::{self, Network};
use crate::program::Programs;
use container::Sandbox;
use controllers::{Controllers, NODE};
use mirror::{Mirror, is_true, items, text};
use rest::Rest;

/// Address of the node, and of the API server on it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// Address of a machine outside of the cluster that has a way into it.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Zone of the node.
pub const ZONE: &str = "zone-1";
/// The first addresses of pods: 10.77.1.1 and on.
const PODS: u32 = 0x0a4d_0101;
/// Longest wait of tests for something to become true.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What all threads of a node share.
pub(crate) struct Shared {
    rest: Rest,
    mirror: Arc<Mirror>,
    stopped: AtomicBool,
    notes: Mutex<Vec<String>>,
    waiting: Mutex<BTreeMap<String, String>>,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Keeps what somebody should know when a test fails.
    fn note(&self, text: &str) {
        lock(&self.notes).push(text.to_owned());
    }

    /// What a pod waits for; nothing when it is empty.
    fn waits(&self, pod: &str, what: &str) {
        lock(&self.waiting).insert(pod.to_owned(), what.to_owned());
    }
}

/// A pod that lives on the node.
struct Lodger {
    namespace: String,
    dir: PathBuf,
    of: String,
    thread: JoinHandle<()>,
}

/// The pods by namespace, name and uid.
type Lodgers = BTreeMap<(String, String, String), Lodger>;

/// A running cluster of one node; everything of it is gone when it is dropped.
pub struct Node {
    /// The API server. Its methods are for threads of [`Node::inside`].
    pub cluster: Cluster,
    /// Namespace of the machine outside of the cluster.
    pub outside: String,
    machine: String,
    shared: Arc<Shared>,
    lodgers: Arc<Mutex<Lodgers>>,
    tasks: Tasks,
    threads: Vec<JoinHandle<()>>,
    place: Arc<Place>,
}

impl Node {
    /// Starts an API server and a node of it. What an earlier one of that name
    /// left is removed first.
    ///
    /// # Errors
    /// What could not be started.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        let programs = Programs::find()?;
        let place = Place::take(&name.parse()?)?;
        let started = Self::start_at(&place, &programs);
        if started.is_err() {
            place.remove();
        }
        started
    }

    fn start_at(place: &Arc<Place>, programs: &Programs) -> anyhow::Result<Self> {
        let dir = place.dir().to_owned();
        let bin = dir.join("bin");
        netns::make(|| {
            programs.install(&bin)?;
            fs::hard_link(bin.join("istio-agent"), bin.join("pilot-agent")).context("pilot-agent")?;
            fs::hard_link(bin.join("istiod"), bin.join("pilot-discovery")).context("pilot-discovery")
        })?;
        let mut network = Network::create(place.clone(), "127.0.0.1 localhost\n")?;
        network.own(SERVICES)?;
        let machine = network.add("node", ADDRESS)?;
        let outside = network.add("outside", OUTSIDE)?;
        let bridge = network.name("net");
        netns::inside(&machine, || {
            let at = ClusterPlace { namespace: Some(machine.clone()), address: ADDRESS.into() };
            let cluster = Cluster::start_at(at)?;
            let rest = Rest::new(cluster.client(), cluster.runtime.handle().clone());
            let mirror = Arc::<Mirror>::default();
            let tasks = Tasks::new();
            {
                let _context = rest.handle().enter();
                mirror.follow(&tasks, &rest.client());
            }
            register(&cluster)?;
            let shared = Arc::new(Shared {
                rest: rest.clone(),
                mirror: mirror.clone(),
                stopped: AtomicBool::new(false),
                notes: Mutex::default(),
                waiting: Mutex::default(),
            });
            let lodgers = Arc::<Mutex<Lodgers>>::default();
            let mut controllers = Controllers::new(rest, mirror.clone(), cluster.root().to_owned());
            let (of_controllers, seen) = (shared.clone(), mirror.clone());
            let mut threads = vec![std::thread::spawn(move || {
                let mut version = 0;
                while !of_controllers.is_stopped() {
                    version = seen.wait(version, Duration::from_millis(500));
                    if seen.is_complete() && !controllers.run() {
                        netns::pause();
                    }
                }
            })];
            let keeper = Keeper {
                shared: shared.clone(),
                lodgers: lodgers.clone(),
                network,
                dir: dir.join("pods"),
                bin,
                api: cluster.address(),
                machines: vec![machine.clone(), outside.clone()],
                hosts: BTreeMap::new(),
                next: 0,
            };
            threads.push(std::thread::spawn(move || keeper.keep()));
            let of_services = tasks.clone();
            threads.push(std::thread::spawn(move || {
                netns::within(&bridge, || async {
                    services::serve(of_services, mirror).await;
                    Ok(())
                })
                .ok();
            }));
            {
                let ports =
                    std::net::TcpListener::bind((ADDRESS, kubelet::PORT)).context("port of the kubelet")?;
                ports.set_nonblocking(true)?;
                let tls = cluster.server_config(ADDRESS.into())?;
                let lodgers = lodgers.clone();
                let find: kubelet::Find = Arc::new(move |namespace, pod| {
                    let lodgers = lock(&lodgers);
                    let mut of_name =
                        lodgers.iter().filter(|((of, name, _), _)| of == namespace && name == pod);
                    of_name.next_back().map(|(_, lodger)| kubelet::Found {
                        network: lodger.namespace.clone(),
                        logs: lodger.dir.clone(),
                    })
                });
                let _context = cluster.runtime.handle().enter();
                let listener = tokio::net::TcpListener::from_std(ports)?;
                tasks.spawn("kubelet", kubelet::serve(tasks.clone(), listener, tls, find));
            }
            let (machine, outside) = (machine.clone(), outside.clone());
            Ok(Self { cluster, outside, machine, shared, lodgers, tasks, threads, place: place.clone() })
        })
    }

    /// Runs something on the node: only there is the API server reached.
    ///
    /// # Errors
    /// Its own.
    pub fn inside<T: Send>(
        &mut self,
        what: impl FnOnce(&mut Self) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let machine = self.machine.clone();
        netns::inside(&machine, || what(self))
    }

    /// The pods that a Service or Deployment of these labels has, as they are now.
    pub fn pods(&self, namespace: &str, labels: &Value) -> Vec<Arc<Value>> {
        let all = self.shared.mirror.all("Pod").into_iter();
        let chosen = all.filter(|((of, _), pod)| {
            of == namespace
                && mirror::selects(labels, &pod["metadata"]["labels"])
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        chosen.map(|(_, pod)| pod).collect()
    }

    /// Waits until that many pods of these labels are ready.
    ///
    /// # Errors
    /// When they are not in time, with what is known of them.
    pub fn wait_ready(
        &self,
        namespace: &str,
        labels: &Value,
        count: usize,
    ) -> anyhow::Result<Vec<Arc<Value>>> {
        let begin = Instant::now();
        loop {
            let pods = self.pods(namespace, labels);
            if pods.len() == count && pods.iter().all(|pod| is_true(pod, "Ready")) {
                return Ok(pods);
            }
            if begin.elapsed() > PATIENCE {
                bail!("{count} ready pods of {namespace} with {labels}: not in time\n{}", self.report());
            }
            netns::pause();
        }
    }

    /// What is known of all pods that are not ready.
    pub fn report(&self) -> String {
        let mut report = lock(&self.shared.notes).join("\n");
        for (pod, what) in lock(&self.shared.waiting).iter().filter(|(_, what)| !what.is_empty()) {
            report += &format!("\n{pod} waits: {what}");
        }
        for ((namespace, name), pod) in self.shared.mirror.all("Pod") {
            if is_true(&pod, "Ready") {
                continue;
            }
            report += &format!("\n--- {namespace}/{name}: {}", pod["status"]["phase"]);
            for list in ["initContainerStatuses", "containerStatuses"] {
                for one in items(&pod["status"][list]) {
                    let container = text(&one["name"]);
                    let log = self.output(&namespace, &name, container);
                    let lines: Vec<&str> = log.lines().collect();
                    let last = lines[lines.len().saturating_sub(12)..].join("\n");
                    report += &format!("\n{container}: {}, ready {}\n{last}", one["state"], one["ready"]);
                }
            }
        }
        report
    }

    fn lodger<T>(&self, namespace: &str, pod: &str, what: impl FnOnce(&Lodger) -> T) -> Option<T> {
        let lodgers = lock(&self.lodgers);
        let mut of_name = lodgers.iter().filter(|((of, name, _), _)| of == namespace && name == pod);
        of_name.next_back().map(|(_, lodger)| what(lodger))
    }

    /// What a container of a pod printed.
    pub fn output(&self, namespace: &str, pod: &str, container: &str) -> String {
        let log = self.lodger(namespace, pod, |lodger| lodger.dir.join(format!("{container}.log")));
        log.and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default()
    }

    /// The network namespace of a pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn network(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        let network = self.lodger(namespace, pod, |lodger| lodger.namespace.clone());
        network.with_context(|| format!("no pod {namespace}/{pod}"))
    }

    /// Kills every process of a pod, as when memory is short; the node starts
    /// its containers again.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn kill(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let processes = netns::processes(&self.network(namespace, pod)?);
        ensure!(!processes.is_empty(), "{namespace}/{pod} has no process");
        for process in processes {
            signal(process, Signal::SIGKILL);
        }
        Ok(())
    }

    /// Address of a Service.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn service(&self, namespace: &str, name: &str) -> anyhow::Result<Ipv4Addr> {
        let service = self.shared.mirror.get("Service", namespace, name);
        let service = service.with_context(|| format!("no service {namespace}/{name}"))?;
        text(&service["spec"]["clusterIP"]).parse().with_context(|| format!("address of {name}"))
    }
}

fn signal(process: Pid, signal: Signal) {
    kill(process, signal).ok();
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let tasks = self.tasks.clone();
        let handle = self.cluster.runtime.handle().clone();
        // Not on a thread of a runtime: tests have none.
        handle.block_on(async { tasks.stop(Duration::from_secs(2)).await });
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
        for (_, lodger) in std::mem::take(&mut *lock(&self.lodgers)) {
            lodger.thread.join().ok();
        }
        self.cluster.kill_api().ok();
        self.cluster.kill_etcd().ok();
        self.place.remove();
    }
}

/// Tells the API server of the node.
fn register(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&[json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {
            "kubernetes.io/hostname": NODE,
            "topology.kubernetes.io/region": "region-1",
            "topology.kubernetes.io/zone": ZONE,
        }},
        "status": {
            "addresses": [{"type": "InternalIP", "address": ADDRESS.to_string()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet::PORT}},
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {
                "kubeletVersion": "v1.33.0", "kubeProxyVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
                "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "netns://1", "operatingSystem": "linux",
                "architecture": "amd64",
            },
        },
    })])
}

/// Takes pods in, and writes the names of Services for everybody.
struct Keeper {
    shared: Arc<Shared>,
    lodgers: Arc<Mutex<Lodgers>>,
    network: Network,
    dir: PathBuf,
    bin: PathBuf,
    api: std::net::SocketAddr,
    machines: Vec<String>,
    hosts: BTreeMap<String, String>,
    next: u32,
}

impl Keeper {
    fn keep(mut self) {
        let mut version = 0;
        while !self.shared.is_stopped() {
            version = self.shared.mirror.wait(version, Duration::from_millis(500));
            if !self.shared.mirror.is_complete() {
                continue;
            }
            self.tell_names();
            for ((namespace, name), pod) in self.shared.mirror.all("Pod") {
                let key = (namespace, name, text(&pod["metadata"]["uid"]).to_owned());
                let is_new = !lock(&self.lodgers).contains_key(&key);
                if is_new
                    && pod["spec"]["nodeName"] == NODE
                    && let Err(error) = self.take(&key, &pod)
                {
                    self.shared.note(&format!("{}/{}: {error:#}", key.0, key.1));
                }
            }
            let mut lodgers = lock(&self.lodgers);
            lodgers.retain(|(namespace, name, _), lodger| {
                !lodger.thread.is_finished() || self.shared.mirror.get("Pod", namespace, name).is_some()
            });
        }
    }

    fn take(&mut self, key: &(String, String, String), pod: &Arc<Value>) -> anyhow::Result<()> {
        let (of, name, _) = key;
        let serial = self.next;
        self.next += 1;
        let address = Ipv4Addr::from_bits(PODS + serial);
        let namespace = self.network.add(&format!("{serial}-{name}"), address)?;
        let dir = self.dir.join(format!("{serial}-{name}"));
        fs::create_dir_all(&dir)?;
        write_names(&mut self.hosts, &namespace, &services::hosts(&self.shared.mirror, of));
        for sysctl in items(&pod["spec"]["securityContext"]["sysctls"]) {
            let path = Path::new("/proc/sys").join(text(&sysctl["name"]).replace('.', "/"));
            let value = text(&sysctl["value"]).to_owned();
            netns::inside(&namespace, || {
                fs::write(&path, value).with_context(|| path.display().to_string())
            })?;
        }
        let network = field::Network { pod: address, node: ADDRESS };
        let sandbox = Sandbox {
            namespace: namespace.clone(),
            dir: dir.clone(),
            host: self.dir.with_file_name("host"),
            programs: self.bin.clone(),
            api: self.api,
            network,
        };
        let (shared, pod) = (self.shared.clone(), pod.clone());
        let thread = std::thread::spawn(move || life::live(&shared, &pod, sandbox));
        lock(&self.lodgers).insert(key.clone(), Lodger { namespace, dir, of: of.clone(), thread });
        Ok(())
    }

    fn tell_names(&mut self) {
        let mut texts = BTreeMap::new();
        let all: Vec<(String, String)> = {
            let lodgers = lock(&self.lodgers);
            let alive = lodgers.values().filter(|lodger| !lodger.thread.is_finished());
            alive.map(|lodger| (lodger.namespace.clone(), lodger.of.clone())).collect()
        };
        let machines = self.machines.iter().map(|machine| (machine.clone(), String::new()));
        for (namespace, of) in all.into_iter().chain(machines) {
            let text = texts.entry(of.clone()).or_insert_with(|| services::hosts(&self.shared.mirror, &of));
            write_names(&mut self.hosts, &namespace, text);
        }
    }
}

/// Writes the same file: those who run see it as theirs.
fn write_names(known: &mut BTreeMap<String, String>, namespace: &str, text: &str) {
    if known.get(namespace).is_none_or(|known| known != text)
        && fs::write(netns::hosts_file(namespace), text).is_ok()
    {
        known.insert(namespace.to_owned(), text.to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
