//! Probes and hooks of containers, run as a kubelet runs them: from the node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use pki::verify::Proof;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::container::{Running, Sandbox};
use super::mirror::{items, text};
use super::rest::Rest;
use crate::client::Ask;
use crate::grpc::Channel;

/// `SERVING` of a health service's answer.
const SERVING: i32 = 1;

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
    let kinds = ["httpGet", "tcpSocket", "grpc"];
    let what = kinds.iter().map(|kind| &spec[*kind]).find(|what| what.is_object());
    let what = what.with_context(|| format!("the node has no probes of this kind: {spec}"))?;
    let ip = match text(&what["host"]) {
        "" => sandbox.network.pod.into(),
        host => host.parse().with_context(|| format!("host {host:?}"))?,
    };
    let address = SocketAddr::new(ip, port(&what["port"], container)?);
    match rest.run(async { tokio::time::timeout(limit, ask(spec, address)).await }) {
        Ok(result) => result,
        Err(_) => bail!("{address}: not within {limit:?}"),
    }
}

/// Asks over the network.
async fn ask(spec: &Value, address: SocketAddr) -> anyhow::Result<()> {
    if spec["tcpSocket"].is_object() {
        TcpStream::connect(address).await?;
        return Ok(());
    }
    if spec["grpc"].is_object() {
        let status = Channel::plain(address).await?.health(text(&spec["grpc"]["service"])).await?;
        ensure!(status == SERVING, "the service's status is {status}");
        return Ok(());
    }
    let what = &spec["httpGet"];
    let path = what["path"].as_str().unwrap_or("/");
    let mut ask = Ask::get(address, &address.to_string(), path).header("user-agent", "kube-probe/1.33");
    for header in items(&what["httpHeaders"]) {
        ask = ask.header(text(&header["name"]), text(&header["value"]));
    }
    let mut sender =
        if text(&what["scheme"]) == "HTTPS" { secure(address).await? } else { ask.connect().await? };
    let answer = ask.send_over(&mut sender).await?;
    ensure!((200..400).contains(&answer.status.as_u16()), "{}: {}", answer.status, answer.body.trim());
    Ok(())
}

/// A connection over TLS; a kubelet looks at no certificate.
async fn secure(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let config = pki::verify::unverified_client_config(Proof::Nothing, &[b"http/1.1"])?;
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(address.ip().into(), stream).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(connection);
    Ok(sender)
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

#[cfg(test)]
mod tests;
