//! Pods without Kubernetes: network namespaces with one bridge between them.
//!
//! The bridge lives in a namespace of its own, so the network of this machine
//! stays as it is. `ip netns exec` gives each namespace its own `/etc/hosts`.

pub mod probe;
pub mod rig;
pub mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use anyhow::{Context as _, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::mesh::place::Place;

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// Where `ip netns exec` finds files to put over those of `/etc`.
const FILES: &str = "/etc/netns";
/// There when the folder of the names was first mounted by a harness.
const MOUNTED: &str = "/run/istio-harness.netns";
/// The bridge, which is every pod's way out.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Length of the network's prefix.
const PREFIX: u8 = 16;

/// Set when everything is being removed: nothing may be made from then on.
static CLOSED: RwLock<bool> = RwLock::new(false);

/// Runs something that makes processes or namespaces, unless all is being
/// removed.
///
/// # Errors
/// Its own, or that it came too late.
pub fn make<T>(what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let closed = CLOSED.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    ensure!(!*closed, "interrupted");
    what()
}

/// Lets nothing more be made and waits for what is being made.
pub fn close() {
    *CLOSED.write().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
}

/// Namespaces that belong together; they are removed with the place of their mesh.
#[derive(Debug)]
pub struct Network {
    place: Arc<Place>,
    hosts: String,
    next: u32,
}

impl Network {
    /// Makes the bridge. Namespaces are called as the mesh and the pod;
    /// `hosts` is the text of everybody's `/etc/hosts`.
    ///
    /// # Errors
    /// When the kernel refuses; root is needed.
    pub fn create(place: Arc<Place>, hosts: &str) -> anyhow::Result<Self> {
        let network = Self { place, hosts: hosts.to_owned(), next: 0 };
        let bridge = network.name("net");
        make(|| {
            network.place.claim(&bridge)?;
            add(&bridge)?;
            ip(
                Some(&bridge),
                &format!(
                    "link set lo up\nlink add br0 type bridge\naddr add {GATEWAY}/{PREFIX} dev br0\nlink set br0 up"
                ),
            )
        })?;
        Ok(network)
    }

    /// The full name of a namespace.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.place.name().as_str())
    }

    /// Makes a namespace with one interface of that address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&mut self, name: &str, address: Ipv4Addr) -> anyhow::Result<String> {
        let (bridge, namespace) = (self.name("net"), self.name(name));
        let port = format!("pod{}", self.next);
        self.next += 1;
        make(|| {
            self.place.claim(&namespace)?;
            add(&namespace)?;
            let files = Path::new(FILES).join(&namespace);
            create_files(&files)?;
            fs::write(files.join("hosts"), &self.hosts).context("hosts")?;
            ip(
                Some(&bridge),
                &format!(
                    "link add {port} type veth peer name eth0 netns {namespace}\nlink set {port} master br0 up"
                ),
            )?;
            ip(
                Some(&namespace),
                &format!(
                    "link set lo up\naddr add {address}/{PREFIX} dev eth0\nlink set eth0 up\n\
                     route add default via {GATEWAY}"
                ),
            )
        })
        .with_context(|| format!("network namespace {namespace}"))?;
        Ok(namespace)
    }
}

impl Network {
    /// Makes the addresses of a range local to the bridge's namespace: who
    /// listens there is reached from every pod.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn own(&self, range: &str) -> anyhow::Result<()> {
        make(|| ip(Some(&self.name("net")), &format!("route add local {range} dev lo")))
    }

    /// Lets the programs of a namespace ask a DNS server at that address, as
    /// those of a pod in a namespace of Kubernetes ask.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn resolve(&self, namespace: &str, server: Ipv4Addr, of: &str) -> anyhow::Result<()> {
        let text = format!(
            "nameserver {server}\nsearch {of}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
        make(|| fs::write(Path::new(FILES).join(namespace).join("resolv.conf"), text).context("resolv.conf"))
    }
}

/// Where the text of a namespace's `/etc/hosts` lies.
pub fn hosts_file(namespace: &str) -> PathBuf {
    Path::new(FILES).join(namespace).join("hosts")
}

/// Makes a namespace that leads nowhere.
fn add(name: &str) -> anyhow::Result<()> {
    // The first one on a machine makes `ip` mount a folder for their names.
    let mounts = fs::read_to_string("/proc/self/mounts").context("mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(NAMED)) {
        fs::write(MOUNTED, "").context(MOUNTED)?;
    }
    ip(None, &format!("netns add {name}"))
}

/// Takes back that mount, when it was made for us and nobody needs it any more.
fn unmount() {
    let is_empty = fs::read_dir(NAMED).is_ok_and(|mut entries| entries.next().is_none());
    if Path::new(MOUNTED).exists() && is_empty && nix::mount::umount(NAMED).is_ok() {
        fs::remove_dir(NAMED).ok();
        fs::remove_file(MOUNTED).ok();
    }
}

/// Makes the folder of a namespace's files. What it lies in is removed when the
/// last namespace goes, which may be just now.
///
/// # Errors
/// When it cannot be made.
pub fn create_files(folder: &Path) -> anyhow::Result<()> {
    const ATTEMPTS: usize = 100;
    let mut result = fs::create_dir_all(folder);
    for _ in 1..ATTEMPTS {
        match result {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => result = fs::create_dir_all(folder),
            _ => break,
        }
    }
    result.with_context(|| folder.display().to_string())
}

/// Runs lines of `ip` commands in a namespace.
fn ip(namespace: Option<&str>, lines: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("ip (package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("ip")?;
    }
    let output = child.wait_with_output().context("ip")?;
    if !output.status.success() {
        bail!("ip: {} (in: {lines})", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A namespace that leads nowhere: `lo` and one end of a pair of interfaces.
/// It is removed when dropped.
#[derive(Debug)]
pub struct Isolated {
    name: String,
}

impl Isolated {
    /// Makes one with these addresses on `eth0`, and these files over those of
    /// `/etc`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(addresses: &[String], files: &[(&str, &str)]) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let machine = Self { name: format!("istio-test-{}-{serial}", std::process::id()) };
        let name = &machine.name;
        // Only the given addresses: none that the kernel makes by itself.
        let mut lines = "link set lo up\nlink add eth0 type veth peer name peer0\n\
                         link set eth0 addrgenmode none\nlink set peer0 addrgenmode none\n\
                         link set eth0 up\nlink set peer0 up\n"
            .to_owned();
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            lines += &format!("addr add {address} dev eth0{nodad}\n");
        }
        make(|| {
            add(name)?;
            let folder = Path::new(FILES).join(name);
            create_files(&folder)?;
            for (file, text) in files {
                fs::write(folder.join(file), text)?;
            }
            ip(Some(name), &lines)
        })?;
        Ok(machine)
    }

    /// A command that will run inside it.
    pub fn command(&self, program: &Path) -> Command {
        command(&self.name, program)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        delete(&self.name);
        fs::remove_dir(FILES).ok();
        unmount();
    }
}

/// A command that will run inside a namespace.
pub fn command(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Runs a future on a thread of that namespace and waits for it.
///
/// # Errors
/// When the namespace cannot be entered, or the future's own.
pub fn within<T, F>(namespace: &str, future: impl FnOnce() -> F + Send) -> anyhow::Result<T>
where
    T: Send,
    F: Future<Output = anyhow::Result<T>>,
{
    inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(future())
    })
}

/// Runs something on a thread of that namespace and waits for it. Threads and
/// programs that it starts are of the namespace, too.
///
/// # Errors
/// When the namespace cannot be entered, or its own.
pub fn inside<T: Send>(
    namespace: &str,
    what: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = Path::new(NAMED).join(namespace);
            let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
            // Only this thread changes, and whatever it makes.
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {namespace}"))?;
            what()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Names of all namespaces that begin so; for tests, not for removal: another
/// mesh's name may begin alike.
pub fn list(prefix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(NAMED).into_iter().chain(fs::read_dir(FILES)).flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))).collect()
}

/// Whether there is a namespace of that name, or files for one.
pub fn exists(name: &str) -> bool {
    [NAMED, FILES].iter().any(|folder| Path::new(folder).join(name).symlink_metadata().is_ok())
}

/// Ends every process in these namespaces and removes them. What is gone
/// already is no error.
pub fn remove(names: &BTreeSet<String>) {
    let mut rounds = 0;
    loop {
        let processes: Vec<Pid> = names.iter().flat_map(|name| processes(name)).collect();
        if processes.is_empty() || rounds > 100 {
            break;
        }
        // Envoys and agents are asked first; nobody may refuse for long.
        let signal = if rounds < 20 { Signal::SIGTERM } else { Signal::SIGKILL };
        for process in processes {
            if rounds == 0 || signal == Signal::SIGKILL {
                kill(process, signal).ok();
            }
        }
        rounds += 1;
        pause();
    }
    for name in names {
        delete(name);
    }
    // Others may use them.
    fs::remove_dir(FILES).ok();
    unmount();
}

/// Removes a namespace and its files; nothing may run in it any more.
fn delete(name: &str) {
    let deleted = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
    if deleted.is_err() {
        eprintln!("network namespace {name} stays: there is no program `ip`");
    }
    fs::remove_dir_all(PathBuf::from(FILES).join(name)).ok();
}

/// Waits a moment for processes to end.
pub fn pause() {
    #[expect(clippy::disallowed_methods, reason = "the harness has nothing else to do meanwhile")]
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Processes whose network is that of a namespace.
pub fn processes(namespace: &str) -> Vec<Pid> {
    let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let own = Pid::this();
    text.split_ascii_whitespace()
        .filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?)))
        .filter(|&pid| pid != own)
        .collect()
}
