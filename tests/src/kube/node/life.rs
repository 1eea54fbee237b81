//! The life of a pod, on a thread of its own: sandbox, volumes, init
//! containers, containers, probes, its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Shared;
use super::container::{Running, Sandbox, tail};
use super::mirror::{items, text};
use super::probe::{self, Probe};
use super::volume::Volumes;
use crate::netns;

/// Wait before a container is started again, which grows with each time.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest such wait.
const LONGEST: Duration = Duration::from_secs(10);
/// How often volumes are looked at.
const VOLUMES: Duration = Duration::from_millis(500);

/// One container of the pod, and what became of it.
struct Container {
    spec: Value,
    is_init: bool,
    running: Option<Running>,
    startup: Option<Probe>,
    readiness: Option<Probe>,
    liveness: Option<Probe>,
    restarts: u32,
    state: Value,
    exit: Option<i32>,
    ended: Option<Instant>,
}

impl Container {
    fn new(spec: &Value, is_init: bool) -> Self {
        let state = json!({"waiting": {"reason": "PodInitializing"}});
        let (running, startup, readiness, liveness) = (None, None, None, None);
        let spec = spec.clone();
        Self {
            spec,
            is_init,
            running,
            startup,
            readiness,
            liveness,
            restarts: 0,
            state,
            exit: None,
            ended: None,
        }
    }

    fn name(&self) -> &str {
        text(&self.spec["name"])
    }

    /// An init container that goes on beside the others.
    fn is_sidecar(&self) -> bool {
        self.is_init && self.spec["restartPolicy"] == "Always"
    }

    fn is_started(&self) -> bool {
        self.running.is_some() && self.startup.as_ref().is_none_or(|probe| probe.verdict == Some(true))
    }

    fn is_ready(&self) -> bool {
        if self.is_init && !self.is_sidecar() {
            return self.exit == Some(0);
        }
        self.is_started() && self.readiness.as_ref().is_none_or(|probe| probe.verdict == Some(true))
    }

    fn start(&mut self, life: &Life) -> anyhow::Result<()> {
        let of = text(&life.pod["metadata"]["namespace"]);
        let find = |kind: &str, name: &str| life.shared.mirror.get(kind, of, name);
        let running = match Running::start(&life.sandbox, &life.pod, &self.spec, &life.volumes, &find) {
            Ok(running) => running,
            Err(error) => {
                self.state =
                    json!({"waiting": {"reason": "CreateContainerError", "message": format!("{error:#}")}});
                self.ended = Some(Instant::now());
                return Err(error);
            }
        };
        self.state = json!({"running": {"startedAt": now()}});
        self.startup = Probe::of(&self.spec, "startupProbe");
        self.readiness = Probe::of(&self.spec, "readinessProbe");
        self.liveness = Probe::of(&self.spec, "livenessProbe");
        self.exit = None;
        self.ended = None;
        let hook = &self.spec["lifecycle"]["postStart"];
        if hook.is_object() {
            // The container counts as started when the hook is done.
            let limit = Duration::from_secs(60);
            let done = probe::act(hook, &life.shared.rest, &life.sandbox, &self.spec, &running, limit);
            if let Err(error) = done {
                running.signal(Signal::SIGKILL);
                life.shared.note(&format!("{}: postStart: {error:#}", self.name()));
            }
        }
        self.running = Some(running);
        Ok(())
    }

    /// Sees whether it ended, and probes it; `true` when its state changed.
    fn look(&mut self, life: &Life) -> bool {
        let Some(running) = &mut self.running else { return false };
        if let Some(code) = running.ended() {
            self.running = None;
            self.exit = Some(code);
            self.ended = Some(Instant::now());
            let reason = if code == 0 { "Completed" } else { "Error" };
            self.state = json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}});
            return true;
        }
        let probes = if self.startup.as_ref().is_some_and(|probe| probe.verdict != Some(true)) {
            [self.startup.as_mut(), None]
        } else {
            [self.readiness.as_mut(), self.liveness.as_mut()]
        };
        let mut is_changed = false;
        for probe in probes.into_iter().flatten() {
            is_changed |= probe.run(&life.shared.rest, &life.sandbox, &self.spec, running);
        }
        let failed = [&self.startup, &self.liveness];
        if let Some(probe) = failed.into_iter().flatten().find(|probe| probe.verdict == Some(false)) {
            life.shared.note(&format!("{}: killed, its probe says: {}", text(&self.spec["name"]), probe.why));
            running.signal(Signal::SIGKILL);
        }
        is_changed
    }

    /// Starts it again when its time has come.
    fn again(&mut self, life: &Life) -> bool {
        let wait = (AGAIN * (1 << self.restarts.min(6))).min(LONGEST);
        if self.running.is_some() || self.ended.is_some_and(|ended| ended.elapsed() < wait) {
            return false;
        }
        let is_first = self.exit.is_none();
        self.restarts += u32::from(!is_first);
        self.start(life).is_ok()
    }

    fn status(&self) -> Value {
        json!({
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": "",
            "ready": self.is_ready(),
            "started": self.is_started(),
            "restartCount": self.restarts,
            "state": self.state,
        })
    }
}

/// What a pod's containers have in common.
struct Life {
    shared: Arc<Shared>,
    pod: Value,
    sandbox: Sandbox,
    volumes: Volumes,
    told: Value,
    begin: String,
}

/// Lives a pod to its end.
pub(super) fn live(shared: &Arc<Shared>, pod: &Value, sandbox: Sandbox) {
    let volumes = Volumes::new(&sandbox.dir, &sandbox.host, shared.rest.clone(), pod);
    let mut life =
        Life { shared: shared.clone(), pod: pod.clone(), sandbox, volumes, told: Value::Null, begin: now() };
    let all = [("initContainers", true), ("containers", false)];
    let mut containers: Vec<Container> = all
        .into_iter()
        .flat_map(|(list, is_init)| items(&pod["spec"][list]).map(move |spec| Container::new(spec, is_init)))
        .collect();
    let ended = life.run(&mut containers);
    if let Err(error) = &ended {
        shared.note(&format!("{}: {error:#}", life.title()));
    }
    life.end(&mut containers);
}

impl Life {
    fn title(&self) -> String {
        let metadata = &self.pod["metadata"];
        format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"]))
    }

    fn path(&self) -> String {
        let metadata = &self.pod["metadata"];
        format!("/api/v1/namespaces/{}/pods/{}", text(&metadata["namespace"]), text(&metadata["name"]))
    }

    /// The pod as it is now; `None` when it is to end.
    fn is_wanted(&mut self) -> bool {
        if self.shared.is_stopped() {
            return false;
        }
        let metadata = &self.pod["metadata"];
        let now = self.shared.mirror.get("Pod", text(&metadata["namespace"]), text(&metadata["name"]));
        let Some(now) = now.filter(|now| now["metadata"]["uid"] == metadata["uid"]) else { return false };
        self.pod["metadata"] = now["metadata"].clone();
        now["metadata"]["deletionTimestamp"].is_null()
    }

    fn run(&mut self, containers: &mut [Container]) -> anyhow::Result<()> {
        self.tell(containers, "Pending");
        // A pod waits for its volumes; the API server may not know them yet.
        while let Err(error) = self.volumes.update(&self.pod, &self.sandbox.network, &self.shared.mirror) {
            if !self.is_wanted() {
                return Ok(());
            }
            self.shared.waits(&self.title(), &format!("{error:#}"));
            netns::pause();
        }
        self.shared.waits(&self.title(), "");
        let mut seen = Instant::now();
        loop {
            if !self.is_wanted() {
                return Ok(());
            }
            let mut is_changed = false;
            for container in &mut *containers {
                is_changed |= container.look(self);
            }
            is_changed |= self.advance(containers)?;
            let phase = self.phase(containers);
            if is_changed || self.told["phase"] != phase {
                self.tell(containers, phase);
            }
            if seen.elapsed() > VOLUMES {
                seen = Instant::now();
                self.volumes.update(&self.pod, &self.sandbox.network, &self.shared.mirror).ok();
            }
            netns::pause();
        }
    }

    /// Starts what may run next; `true` when something was.
    fn advance(&mut self, containers: &mut [Container]) -> anyhow::Result<bool> {
        let policy = self.pod["spec"]["restartPolicy"].as_str().unwrap_or("Always").to_owned();
        let mut is_changed = false;
        for at in 0..containers.len() {
            let is_initialized = containers
                .iter()
                .filter(|one| one.is_init)
                .all(|one| if one.is_sidecar() { one.is_started() } else { one.exit == Some(0) });
            let container = &mut containers[at];
            if container.running.is_none() {
                let is_once = container.is_init && !container.is_sidecar();
                let restarts = match container.exit {
                    None => true,
                    Some(0) if is_once => false,
                    Some(0) => policy == "Always" || container.is_sidecar(),
                    Some(_) => policy != "Never" || container.is_sidecar(),
                };
                if restarts && (container.is_init || is_initialized || container.exit.is_some()) {
                    is_changed |= container.again(self);
                }
            }
            if container.is_init {
                let is_done =
                    if container.is_sidecar() { container.is_started() } else { container.exit == Some(0) };
                if !is_done {
                    if container.exit.is_some_and(|code| code != 0)
                        && !container.is_sidecar()
                        && policy == "Never"
                    {
                        bail!(
                            "init container {} failed: {}",
                            container.name(),
                            tail(&self.sandbox.log(container.name()), 5)
                        );
                    }
                    // The next ones wait for it.
                    break;
                }
            }
        }
        Ok(is_changed)
    }

    fn phase(&self, containers: &[Container]) -> &'static str {
        let main = || containers.iter().filter(|container| !container.is_init);
        let policy = self.pod["spec"]["restartPolicy"].as_str().unwrap_or("Always");
        if policy != "Always"
            && main().all(|container| container.exit.is_some() && container.running.is_none())
        {
            return if main().all(|container| container.exit == Some(0)) { "Succeeded" } else { "Failed" };
        }
        if main().any(|container| container.running.is_some() || container.exit.is_some()) {
            "Running"
        } else {
            "Pending"
        }
    }

    /// Writes the status, if it is another one than before. What cannot be
    /// written is written later.
    fn tell(&mut self, containers: &[Container], phase: &str) {
        let is_initialized = containers
            .iter()
            .filter(|one| one.is_init)
            .all(|one| if one.is_sidecar() { one.is_started() } else { one.exit == Some(0) });
        let are_ready = phase == "Running"
            && containers.iter().filter(|one| !one.is_init || one.is_sidecar()).all(Container::is_ready);
        let condition = |kind: &str, is_true: bool| json!({"type": kind, "status": if is_true { "True" } else { "False" }});
        let address = self.sandbox.network.pod.to_string();
        let statuses = |is_init: bool| -> Vec<Value> {
            containers.iter().filter(|one| one.is_init == is_init).map(Container::status).collect()
        };
        let status = json!({
            "phase": phase,
            "hostIP": self.sandbox.network.node.to_string(),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": self.begin,
            "conditions": [
                condition("PodReadyToStartContainers", true),
                condition("Initialized", is_initialized),
                condition("Ready", are_ready),
                condition("ContainersReady", are_ready),
                condition("PodScheduled", true),
            ],
            "initContainerStatuses": statuses(true),
            "containerStatuses": statuses(false),
        });
        if self.told == status {
            return;
        }
        let path = format!("{}/status", self.path());
        self.told = match self.shared.rest.merge(&path, &json!({"status": status})) {
            Ok(_) => status,
            Err(_) => Value::Null,
        };
    }

    /// Ends everything in order: hooks, then the application, then its
    /// sidecars, the last one first.
    fn end(mut self, containers: &mut [Container]) {
        let is_crash = self.shared.is_stopped();
        let grace = self.pod["metadata"]["deletionGracePeriodSeconds"].as_u64();
        let grace = grace.or(self.pod["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30);
        let deadline = Instant::now() + Duration::from_secs(if is_crash { 0 } else { grace });
        if !is_crash {
            std::thread::scope(|scope| {
                for container in &*containers {
                    let hook = &container.spec["lifecycle"]["preStop"];
                    let life = &self;
                    if let Some(running) = container.running.as_ref().filter(|_| hook.is_object()) {
                        scope.spawn(move || {
                            let left = deadline.saturating_duration_since(Instant::now());
                            let done = probe::act(
                                hook,
                                &life.shared.rest,
                                &life.sandbox,
                                &container.spec,
                                running,
                                left,
                            );
                            if let Err(error) = done {
                                life.shared.note(&format!("{}: preStop: {error:#}", life.title()));
                            }
                        });
                    }
                }
            });
        }
        let (init, main): (Vec<_>, Vec<_>) = containers.iter_mut().partition(|container| container.is_init);
        let groups = std::iter::once(main).chain(init.into_iter().rev().map(|container| vec![container]));
        for mut group in groups {
            for container in &group {
                container.running.iter().for_each(|running| running.signal(Signal::SIGTERM));
            }
            while group.iter().any(|container| container.running.is_some()) {
                if Instant::now() >= deadline {
                    group
                        .iter()
                        .flat_map(|one| &one.running)
                        .for_each(|running| running.signal(Signal::SIGKILL));
                }
                for container in &mut group {
                    if container.running.as_mut().is_some_and(|running| running.ended().is_some()) {
                        container.running = None;
                    }
                }
                netns::pause();
            }
        }
        if is_crash {
            return;
        }
        netns::remove(&BTreeSet::from([self.sandbox.namespace.clone()]));
        let uid = text(&self.pod["metadata"]["uid"]).to_owned();
        while !self.shared.is_stopped() && self.delete(&uid).is_err() {
            netns::pause();
        }
    }

    /// `Ok` when it is gone.
    fn delete(&mut self, uid: &str) -> anyhow::Result<()> {
        let metadata = &self.pod["metadata"];
        let known = self.shared.mirror.get("Pod", text(&metadata["namespace"]), text(&metadata["name"]));
        if known.is_none_or(|now| now["metadata"]["uid"] != *uid) {
            return Ok(());
        }
        self.shared.rest.delete(&self.path(), uid, Some(0)).context("it is gone soon")
    }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
