//! Probes and hooks of containers, run as a kubelet runs them: from the node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::net::TcpStream;

use super::container::{Running, Sandbox};
use super::mirror::{items, text};
use super::rest::Rest;
use crate::client::Ask;

/// A probe and what it found so far.
pub(super) struct Probe {
    spec: Value,
    begin: Instant,
    next: Instant,
    good: u64,
    bad: u64,
    /// What it last said that counts; before that, nothing is known.
    pub(super) verdict: Option<bool>,
    /// Why it failed last.
    pub(super) why: String,
}

impl Probe {
    /// A probe of a container, if it has one of that kind.
    pub(super) fn of(container: &Value, kind: &str) -> Option<Self> {
        let spec = container.get(kind).filter(|spec| spec.is_object())?.clone();
        let begin = Instant::now();
        let next = begin + seconds(&spec["initialDelaySeconds"], 0);
        Some(Self { spec, begin, next, good: 0, bad: 0, verdict: None, why: String::new() })
    }

    /// Probes if it is time; `true` when the verdict changed.
    pub(super) fn run(
        &mut self,
        rest: &Rest,
        sandbox: &Sandbox,
        container: &Value,
        running: &Running,
    ) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        let period = seconds(&self.spec["periodSeconds"], 10);
        // One that is not yet ready is looked at more often, so that tests are fast.
        let period = if self.verdict == Some(true) { period } else { period.min(Duration::from_millis(300)) };
        self.next = now + period;
        let limit = seconds(&self.spec["timeoutSeconds"], 1);
        let before = self.verdict;
        match act(&self.spec, rest, sandbox, container, running, limit) {
            Ok(()) => {
                (self.good, self.bad) = (self.good + 1, 0);
                if self.good >= self.spec["successThreshold"].as_u64().unwrap_or(1) {
                    self.verdict = Some(true);
                }
            }
            Err(error) => {
                self.why = format!("{error:#}");
                (self.good, self.bad) = (0, self.bad + 1);
                // As if it had been looked at as seldom as it says.
                let least = self.spec["failureThreshold"].as_u64().unwrap_or(3);
                let longest =
                    seconds(&self.spec["periodSeconds"], 10) * u32::try_from(least).unwrap_or(u32::MAX);
                if self.verdict == Some(true) && self.bad >= least || self.begin.elapsed() > longest {
                    self.verdict = Some(false);
                }
            }
        }
        before != self.verdict
    }
}

/// Does what a probe or a hook says.
pub(super) fn act(
    spec: &Value,
    rest: &Rest,
    sandbox: &Sandbox,
    container: &Value,
    running: &Running,
    limit: Duration,
) -> anyhow::Result<()> {
    if spec["exec"].is_object() {
        let output = running.exec(&spec["exec"]["command"], limit)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", output.status, said.trim());
        return Ok(());
    }
    if let Some(length) = spec["sleep"]["seconds"].as_u64() {
        rest.run(async { tokio::time::sleep(Duration::from_secs(length)).await });
        return Ok(());
    }
    let (kind, what) = if spec["httpGet"].is_object() {
        ("httpGet", &spec["httpGet"])
    } else {
        ("tcpSocket", &spec["tcpSocket"])
    };
    ensure!(what.is_object(), "the node has no probes of this kind: {spec}");
    let ip = match text(&what["host"]) {
        "" => sandbox.network.pod.into(),
        host => host.parse().with_context(|| format!("host {host:?}"))?,
    };
    let address = SocketAddr::new(ip, port(&what["port"], container)?);
    let attempt = async {
        if kind == "tcpSocket" {
            TcpStream::connect(address).await?;
            return Ok(());
        }
        ensure!(text(&what["scheme"]) != "HTTPS", "the node has no HTTPS probes");
        let path = what["path"].as_str().unwrap_or("/");
        let mut ask = Ask::get(address, &address.to_string(), path).header("user-agent", "kube-probe/1.33");
        for header in items(&what["httpHeaders"]) {
            ask = ask.header(text(&header["name"]), text(&header["value"]));
        }
        let answer = ask.send().await?;
        ensure!((200..400).contains(&answer.status.as_u16()), "{}: {}", answer.status, answer.body.trim());
        Ok(())
    };
    match rest.run(async { tokio::time::timeout(limit, attempt).await }) {
        Ok(result) => result,
        Err(_) => bail!("{address}: not within {limit:?}"),
    }
}

fn port(port: &Value, container: &Value) -> anyhow::Result<u16> {
    let number = match port {
        Value::String(name) => items(&container["ports"])
            .find(|one| one["name"] == **name)
            .with_context(|| format!("there is no port {name}"))?["containerPort"]
            .as_u64(),
        other => other.as_u64(),
    };
    Ok(u16::try_from(number.context("port")?)?)
}

fn seconds(value: &Value, default: u64) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or(default))
}
