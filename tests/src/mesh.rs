//! A mesh on this machine: istiod, and a namespace with redirection, agent,
//! Envoy and application for every pod of a directory of YAML files.

pub mod admin;
pub mod istiod;
pub mod place;
pub mod pod;
mod roster;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use config::Kind;
use config::kube::{Pod as PodObject, Service};

use crate::client::{Answer, Ask};
use crate::netns::{Network, make, pause};
use crate::process::Process;
use crate::program::Programs;
use istiod::Istiod;
use place::{Name, Place};
use pod::{Pod, Workload};

/// Where istiod is.
pub const ISTIOD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Where the client without a sidecar is.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Where istiod finds its settings, below the directory in which it runs.
pub const SETTINGS: &str = "etc/istio/config/mesh";
/// Who counts, where settings do not say it: as an installation of Istio has it.
const COUNTED: &str = "defaultProviders: {metrics: [prometheus]}\n";
/// Longest wait for something to become true.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// First part of the namespaces' names, and the name of the directory in
    /// which everything is written.
    pub name: Name,
    /// Directory of the objects; istiod follows a copy.
    pub objects: PathBuf,
    /// Environment of the agents of pods with that label `app`, over the usual one.
    pub agent_env: BTreeMap<String, Vec<(String, String)>>,
}

/// What is waited for will never be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Hopeless(pub String);

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    /// The pods with a sidecar.
    pub pods: Vec<Pod>,
    /// The control plane.
    pub istiod: Istiod,
    /// Namespace of the client without a sidecar.
    pub client: String,
    /// Directory that istiod follows.
    pub objects: PathBuf,
    /// Everything's directory.
    pub dir: PathBuf,
    place: Arc<Place>,
    options: Options,
    programs: Programs,
    keep: bool,
    network: Network,
}

impl Mesh {
    /// Starts everything and waits until all pods are ready. What an earlier
    /// mesh of that name left is removed first.
    ///
    /// # Errors
    /// What could not be started, with the end of its log; a mesh of that name
    /// that is running.
    pub fn start(programs: &Programs, options: &Options, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        Self::start_with_files(programs, options, &[], tell)
    }

    /// A mesh of these objects whose control plane has these settings (a
    /// `MeshConfig`).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_settings(name: &str, objects: &str, settings: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("mesh.yaml"), objects)?;
        let options =
            Options { name: name.parse()?, objects: folder.path().to_owned(), agent_env: BTreeMap::new() };
        Self::start_with_files(&Programs::find()?, &options, &[(SETTINGS, settings)], &mut |_| {})
    }

    /// As [`Self::start`], with files that istiod finds where it runs: their
    /// paths below the mesh's directory, and their texts.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_files(
        programs: &Programs,
        options: &Options,
        files: &[(&str, &str)],
        tell: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let place = Place::take(&options.name)?;
        let started = Self::start_at(&place, programs, options, files, tell);
        if started.is_err() {
            place.remove();
        }
        started
    }

    fn start_at(
        place: &Arc<Place>,
        programs: &Programs,
        options: &Options,
        files: &[(&str, &str)],
        tell: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let dir = place.dir();
        let objects = dir.join("objects");
        // As a whole, so that nothing is written when all is being removed.
        let (programs, workloads, hosts) = make(|| {
            fs::create_dir(dir.join("log")).with_context(|| dir.display().to_string())?;
            let programs = programs.install(&dir.join("bin"))?;
            copy_objects(&options.objects, &objects)?;
            let has_settings = files.iter().any(|(path, _)| *path == SETTINGS);
            let own = (!has_settings).then_some((SETTINGS, ""));
            for (path, text) in files.iter().copied().chain(own) {
                let text = if path == SETTINGS { &complete(text) } else { text };
                let file = dir.join(path);
                fs::create_dir_all(file.parent().context("a file has a folder")?)?;
                fs::write(&file, text).with_context(|| file.display().to_string())?;
            }
            let (workloads, hosts) = read(&objects)?;
            Ok((programs, workloads, hosts))
        })?;

        let mut network = Network::create(place.clone(), &hosts)?;
        tell("istiod");
        let istiod = Istiod::create(&mut network, &programs, dir, &objects)?;
        let client = network.add("client", CLIENT)?;
        let mut mesh = Self {
            pods: Vec::new(),
            istiod,
            client,
            objects,
            dir: dir.to_owned(),
            place: place.clone(),
            options: options.clone(),
            programs,
            keep: false,
            network,
        };
        mesh.istiod.start()?;
        for workload in workloads {
            mesh.add(workload)?;
        }
        for pod in &mut mesh.pods {
            pod.wait_ready()?;
            tell(&pod.workload.name);
        }
        fs::write(mesh.roster(), mesh.roster_text()).context("the file of the pods' names")?;
        Ok(mesh)
    }

    /// Starts one more pod; it is not waited for.
    ///
    /// # Errors
    /// What could not be started.
    pub fn add(&mut self, workload: Workload) -> anyhow::Result<()> {
        if workload.is_bare() {
            let mut pod = Pod::create(&mut self.network, &self.programs, &self.dir, workload)?;
            pod.start_app()?;
            self.pods.push(pod);
            return Ok(());
        }
        let token = self.istiod.token(&workload.namespace, &workload.service_account)?;
        let app = workload.labels.get("app").map_or("", String::as_str);
        let env = self.options.agent_env.get(app).map_or(&[][..], Vec::as_slice);
        let mut pod = Pod::create(&mut self.network, &self.programs, &self.dir, workload)?;
        pod.write_token(&token)?;
        pod.write_root(&self.istiod.root()?)?;
        let captures_dns = env.iter().any(|(name, value)| name == pod::DNS_CAPTURE && value == "true");
        if captures_dns {
            self.network.resolve(&pod.network, CLIENT, &pod.workload.namespace)?;
        }
        if !pod.workload.is_gateway() {
            pod.redirect(captures_dns)?;
        }
        pod.start(env)?;
        self.pods.push(pod);
        Ok(())
    }

    /// A pod by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self, name: &str) -> anyhow::Result<&Pod> {
        self.pods.iter().find(|pod| pod.workload.name == name).with_context(|| format!("no pod {name}"))
    }

    /// The same, to change it.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod_mut(&mut self, name: &str) -> anyhow::Result<&mut Pod> {
        self.pods.iter_mut().find(|pod| pod.workload.name == name).with_context(|| format!("no pod {name}"))
    }

    /// The programs it runs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Replaces a file of the objects at once, as an editor does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let temporary = self.dir.join("next.tmp");
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.objects.join(name)).with_context(|| name.to_owned())
    }

    /// A file of the objects.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.objects.join(name)).with_context(|| name.to_owned())
    }

    /// Asks for a page of productpage as the client without a sidecar.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn productpage(&self, user: Option<&str>) -> anyhow::Result<Answer> {
        let ask = self.ask_productpage()?;
        let ask = if let Some(user) = user { ask.header("end-user", user) } else { ask };
        ask.from(&self.client)
    }

    /// A request for productpage.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn ask_productpage(&self) -> anyhow::Result<Ask> {
        let address = self.pod("productpage-v1")?.workload.address;
        Ok(Ask::get((address, crate::app::PORT), "productpage:9080", "/productpage"))
    }

    /// Waits until a check returns something, or a [`Hopeless`] error.
    ///
    /// # Errors
    /// When it does not in time; with the last error.
    pub fn wait<T>(what: &str, mut check: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            match check() {
                Ok(value) => return Ok(value),
                Err(error) if error.is::<Hopeless>() => return Err(error.context(what.to_owned())),
                Err(error) if start.elapsed() > PATIENCE => {
                    return Err(error.context(format!("{what}: not within {PATIENCE:?}")));
                }
                Err(_) => pause(),
            }
        }
    }

    /// Starts istiod anew with other settings (a `MeshConfig`).
    ///
    /// # Errors
    /// When it does not end, or does not get ready.
    pub fn set(&mut self, settings: &str) -> anyhow::Result<()> {
        fs::write(self.dir.join(SETTINGS), complete(settings)).context(SETTINGS)?;
        self.istiod.stop()?;
        self.istiod.start()
    }

    /// Waits until every proxy has accepted what istiod has.
    ///
    /// # Errors
    /// When one does not in time.
    pub fn wait_synced(&self) -> anyhow::Result<()> {
        Self::wait("all proxies in sync", || {
            let states = self.istiod.states()?;
            for pod in self.pods.iter().filter(|pod| !pod.workload.is_bare()) {
                let state = states.get(&format!("{}.{}", pod.workload.name, pod.workload.namespace));
                ensure!(state.is_some_and(|state| state == "SYNCED"), "{} is {state:?}", pod.workload.name);
            }
            Ok(())
        })
    }

    /// Leaves it running when it is dropped.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn keep(&mut self) -> anyhow::Result<()> {
        self.place.keep()?;
        self.keep = true;
        let pods = self.pods.iter_mut().flat_map(|pod| [&mut pod.app, &mut pod.agent]);
        for process in pods.chain([&mut self.istiod.process]).flatten() {
            Process::release(process);
        }
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // Everybody is asked at once: they need not wait for each other.
        self.place.remove();
    }
}

/// Settings that say who counts.
fn complete(settings: &str) -> String {
    if settings.contains("defaultProviders") {
        return settings.to_owned();
    }
    format!("{}\n{COUNTED}", settings.trim_end())
}

fn copy_objects(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        if let (Some("yaml"), Some(name)) = (path.extension().and_then(|end| end.to_str()), path.file_name())
        {
            fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// The pods of the objects, and everybody's `/etc/hosts`: what DNS is in a cluster.
fn read(objects: &Path) -> anyhow::Result<(Vec<Workload>, String)> {
    let mut workloads = Vec::new();
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n{ISTIOD} istiod.istio-system.svc\n");
    for entry in fs::read_dir(objects)? {
        let path = entry?.path();
        let contents = config::yaml::read(&path.display().to_string(), &fs::read_to_string(&path)?);
        if let Some(problem) = contents.problems.first() {
            bail!("{problem}");
        }
        for object in contents.objects {
            let mut store = config::Store::default();
            let (namespace, name) = (object.key.namespace.to_string(), object.key.name.to_string());
            let (kind, meta) = (object.key.kind, object.meta.clone());
            store.apply(object.into());
            if kind == Kind::Pod
                && let Some((_, pod)) = store.get::<PodObject>(&namespace, &name)
            {
                let address = pod.addresses().next().unwrap_or_default();
                workloads.push(Workload {
                    address: address
                        .parse()
                        .with_context(|| format!("address of pod {name}: {address:?}"))?,
                    service_account: pod.service_account().to_owned(),
                    namespace,
                    name,
                    labels: meta.labels,
                    annotations: meta.annotations,
                });
            } else if kind == Kind::Service
                && let Some((_, service)) = store.get::<Service>(&namespace, &name)
            {
                for address in service.addresses() {
                    hosts += &format!(
                        "{address} {name} {name}.{namespace} {name}.{namespace}.svc.cluster.local\n"
                    );
                }
            }
        }
    }
    workloads.sort_by(|one, other| one.name.cmp(&other.name));
    ensure!(!workloads.is_empty(), "{}: no Pod", objects.display());
    Ok((workloads, hosts))
}
