//! One container: its root directory, its user, its program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::field;
use super::mirror::{items, text};
use super::volume::Volumes;
use crate::netns;
use crate::process::Process;

/// Where programs are found inside.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// User of images of applications.
const NOBODY: u64 = 65534;
/// Capabilities that a container runtime gives by itself.
const DEFAULTS: &[&str] = &[
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
    "audit_write",
];

/// What the containers of a pod share.
pub(super) struct Sandbox {
    /// Its network namespace.
    pub(super) namespace: String,
    /// Its folder.
    pub(super) dir: PathBuf,
    /// The folder that is the node's file system to volumes of the kind `hostPath`.
    pub(super) host: PathBuf,
    /// Programs of all images.
    pub(super) programs: PathBuf,
    /// Address of the API server.
    pub(super) api: std::net::SocketAddr,
    /// Addresses.
    pub(super) network: field::Network,
}

/// A container that was started.
pub(super) struct Running {
    process: Process,
    user: Vec<String>,
    variables: BTreeMap<String, String>,
}

impl Running {
    /// Starts a container of a pod.
    pub(super) fn start(
        sandbox: &Sandbox,
        pod: &Value,
        spec: &Value,
        volumes: &Volumes,
        find: field::Find<'_>,
    ) -> anyhow::Result<Self> {
        let name = text(&spec["name"]);
        let mut variables = field::variables(pod, spec, &sandbox.network, find)?;
        let image = Image::of(spec)?;
        let words = |list: &Value| -> Vec<String> {
            items(list).map(|word| field::expand(text(word), &variables)).collect()
        };
        let mut line = words(&spec["command"]);
        let args = words(&spec["args"]);
        if line.is_empty() {
            line = image.entrypoint(&args)?;
        }
        line.extend(args);
        for (name, value) in [
            ("PATH", PATH.to_owned()),
            ("HOSTNAME", text(&pod["metadata"]["name"]).to_owned()),
            ("KUBERNETES_SERVICE_HOST", sandbox.api.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", sandbox.api.port().to_string()),
        ] {
            variables.entry(name.to_owned()).or_insert(value);
        }
        let user = user(pod, spec, image.user())?;
        let root = sandbox.dir.join("roots").join(name);
        fs::create_dir_all(&root)?;
        let script = sandbox.dir.join(format!("{name}.sh"));
        fs::write(&script, script_of(sandbox, pod, spec, volumes, &root)?)?;
        let mut command = netns::command(&sandbox.namespace, Path::new("/bin/sh"));
        command.arg(&script).args(&user);
        if let Some(dir) = spec["workingDir"].as_str() {
            command.args(["env", "-C", dir]);
        }
        command.args(&line).env_clear().envs(&variables);
        let log = sandbox.log(name);
        let process = Process::start(command, &log)?;
        // A proxy opens its standard output anew, as its own user.
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666))?;
        Ok(Self { process, user, variables })
    }

    /// How it ended: the code that a shell would show.
    pub(super) fn ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt as _;

        let status = self.process.ended()?;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Runs a program inside, as the container's user.
    pub(super) fn exec(&self, words: &Value, limit: Duration) -> anyhow::Result<Output> {
        let pid = self.process.pid().context("it does not run")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string(), "--mount", "--net", "--root", "--wd", "--"]);
        command.args(&self.user).args(items(words).map(text)).env_clear().envs(&self.variables);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = netns::make(|| command.spawn().context("nsenter"))?;
        let begin = Instant::now();
        while child.try_wait()?.is_none() {
            if begin.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                bail!("{words}: not within {limit:?}");
            }
            netns::pause();
        }
        Ok(child.wait_with_output()?)
    }
}

impl Sandbox {
    /// Where a container's output goes.
    pub(super) fn log(&self, container: &str) -> PathBuf {
        self.dir.join(format!("{container}.log"))
    }
}

/// The program that stands for an image.
enum Image {
    Proxy,
    Pilot,
    App { name: String, version: String },
}

impl Image {
    fn of(spec: &Value) -> anyhow::Result<Self> {
        let image = text(&spec["image"]);
        let last = image.rsplit('/').next().unwrap_or(image);
        let last = last.split(['@', ':']).next().unwrap_or(last);
        if last == "proxyv2" {
            return Ok(Self::Proxy);
        }
        if last == "pilot" {
            return Ok(Self::Pilot);
        }
        let app = last.strip_prefix("examples-bookinfo-").and_then(|name| name.rsplit_once('-'));
        let (name, version) =
            app.with_context(|| format!("image {image:?}: the node has no program for it"))?;
        Ok(Self::App { name: name.to_owned(), version: version.to_owned() })
    }

    /// The program with its first arguments, to which those of the container are added.
    fn entrypoint(&self, args: &[String]) -> anyhow::Result<Vec<String>> {
        let program = |name: &str| format!("/usr/local/bin/{name}");
        Ok(match self {
            Self::Proxy if args.first().is_some_and(|first| first == "istio-iptables") => {
                vec![program("istio-init")]
            }
            Self::Proxy => vec![program("pilot-agent")],
            Self::Pilot => vec![program("istiod")],
            Self::App { name, version } => {
                ensure!(args.is_empty(), "an application takes no arguments");
                vec![program("harness"), "app".into(), name.clone(), version.clone()]
            }
        })
    }

    fn user(&self) -> u64 {
        match self {
            Self::Proxy | Self::Pilot => 1337,
            Self::App { .. } => NOBODY,
        }
    }
}

/// The words before a program that make it run as the security context says.
fn user(pod: &Value, spec: &Value, of_image: u64) -> anyhow::Result<Vec<String>> {
    let (own, common) = (&spec["securityContext"], &pod["spec"]["securityContext"]);
    let id = |name: &str| own[name].as_u64().or(common[name].as_u64());
    let uid = id("runAsUser").unwrap_or(of_image);
    let gid = id("runAsGroup").unwrap_or(if uid == of_image { of_image } else { 0 });
    let is_nonroot = own["runAsNonRoot"].as_bool().or(common["runAsNonRoot"].as_bool()).unwrap_or_default();
    ensure!(!is_nonroot || uid != 0, "the container would run as root, and runAsNonRoot is set");
    let mut words = vec!["setpriv".to_owned(), format!("--reuid={uid}"), format!("--regid={gid}")];
    let more =
        items(&common["supplementalGroups"]).filter_map(Value::as_u64).chain(common["fsGroup"].as_u64());
    let groups: Vec<String> = more.map(|id| id.to_string()).collect();
    words.push(if groups.is_empty() {
        "--clear-groups".into()
    } else {
        format!("--groups={}", groups.join(","))
    });
    if own["privileged"] != true {
        let names = |list: &Value| -> Vec<String> {
            items(list).map(|name| text(name).trim_start_matches("CAP_").to_lowercase()).collect()
        };
        let (added, dropped) = (names(&own["capabilities"]["add"]), names(&own["capabilities"]["drop"]));
        let is_dropped = |name: &str| dropped.iter().any(|drop| drop == "all" || drop == name);
        let mut kept: Vec<&str> = DEFAULTS.iter().copied().filter(|name| !is_dropped(name)).collect();
        kept.extend(added.iter().map(String::as_str));
        let kept: String = kept.iter().fold(String::new(), |mut all, name| {
            write!(all, ",+{name}").ok();
            all
        });
        words.push(format!("--bounding-set=-all{kept}"));
    }
    if own["allowPrivilegeEscalation"] == false {
        words.push("--no-new-privs".into());
    }
    words.push("--".into());
    Ok(words)
}

/// A shell script that makes the root directory in a mount namespace of its
/// own, and runs its arguments there. The process stays the same one.
fn script_of(
    sandbox: &Sandbox,
    pod: &Value,
    spec: &Value,
    volumes: &Volumes,
    root: &Path,
) -> anyhow::Result<String> {
    let mut script = format!(
        "set -e\nmount -t tmpfs -o mode=0755 none {root}\ncd {root}\n\
         mkdir usr proc dev etc tmp run var sys\nchmod 1777 tmp\nln -s /run var/run\n\
         for link in bin lib lib64 sbin; do if [ -e /usr/$link ]; then ln -s usr/$link $link; fi; done\n\
         mount --rbind /usr usr\nmount -o remount,bind,ro usr\nmount --bind {programs} usr/local/bin\n\
         mount --bind /proc proc\nmount --rbind /dev dev\n\
         touch etc/hosts etc/resolv.conf\nmount --bind /etc/hosts etc/hosts\n\
         echo 'hosts: files dns' > etc/nsswitch.conf\n\
         printf 'root:x:0:0::/:\\nistio-proxy:x:1337:1337::/:\\n' > etc/passwd\n",
        root = root.display(),
        programs = sandbox.programs.display(),
    );
    // A mount may lie in another one; what is only read is so when all are there.
    let mut mounts: Vec<&Value> = items(&spec["volumeMounts"]).collect();
    mounts.sort_by_key(|mount| text(&mount["mountPath"]).len());
    let mut sealed = String::new();
    for mount in mounts {
        let (name, path) = (text(&mount["name"]), text(&mount["mountPath"]));
        let volume = items(&pod["spec"]["volumes"]).find(|volume| volume["name"] == name);
        let volume = volume.with_context(|| format!("there is no volume {name}"))?;
        let mut from = volumes.path(name);
        if let Some(below) = mount["subPath"].as_str() {
            from.push(below);
        }
        let inside = format!(".{}", path.replace("/var/run/", "/run/").trim_end_matches('/'));
        ensure!(!inside.contains(['\'', '\n']), "mountPath {path:?}");
        if from.is_file() {
            writeln!(script, "mkdir -p \"$(dirname '{inside}')\"\ntouch '{inside}'")?;
        } else {
            writeln!(script, "mkdir -p '{inside}'")?;
        }
        writeln!(script, "mount --bind '{}' '{inside}'", from.display())?;
        let may_be_written = ["emptyDir", "hostPath"].iter().any(|kind| volume.get(kind).is_some());
        if mount["readOnly"] == true || !may_be_written {
            writeln!(sealed, "mount -o remount,bind,ro '{inside}'")?;
        }
    }
    script += &sealed;
    if spec["securityContext"]["readOnlyRootFilesystem"] == true {
        script += "mount -o remount,bind,ro .\n";
    }
    writeln!(script, "exec chroot {} \"$@\"", root.display())?;
    Ok(script)
}

/// A log that somebody may look at.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    use std::io::Read as _;

    let mut output = String::new();
    File::open(path).and_then(|mut file| file.read_to_string(&mut output)).ok();
    let all: Vec<&str> = output.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
