//! What is to become of a call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::ensure;
use istio_tests::call::{Reply, Scheme};
use istio_tests::mesh::Mesh;
use serde::Deserialize;

/// The header in which a proxy tells whose certificate it saw.
const CALLER: &str = "x-forwarded-client-cert";

/// What is to become of a call; what is not said may be as it likes, but the call
/// has to succeed.
///
/// Texts may be `""` for what must not be there, `*` for what must, `~PART` for a
/// part; and have `{host}`, `{port}`, `{to}` and `{from}` for what was sent, with addresses.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expect {
    /// There is no answer: the connection is refused, reset, closed or stays silent.
    pub(super) refused: bool,
    /// Status of HTTP, if not 200.
    status: Option<u16>,
    /// Status of gRPC, if not 0.
    grpc: Option<u32>,
    /// First line of an answer of HTTP/1.0.
    line: Option<String>,
    /// Headers of the answer.
    answers: BTreeMap<String, String>,
    /// What the server calls itself.
    name: Option<String>,
    /// What the server was spoken to.
    protocol: Option<String>,
    /// The host that it saw.
    host: Option<String>,
    /// The path that it saw, with its query.
    path: Option<String>,
    /// Address at which it was called.
    local: Option<String>,
    /// Address that called it.
    peer: Option<String>,
    /// Server name of the TLS that it ended.
    sni: Option<String>,
    /// The bytes that it saw.
    raw: Option<String>,
    /// What the PROXY protocol told it first: version and client (`v1 192.0.2.1`).
    proxied: Option<String>,
    /// Headers that it saw.
    sees: BTreeMap<String, String>,
    /// Whether its proxy saw the certificate of the caller.
    mtls: Option<bool>,
    /// The only headers of a proxy's kind (`x-*`, `server`) that it may have seen.
    only: Option<Vec<String>>,
    /// What proxies have in their logs, by their names.
    logs: BTreeMap<String, String>,
    /// Of several calls: whether all came to one address.
    same: Option<bool>,
    /// Of several calls: percentages of the servers, by their names or addresses.
    shares: BTreeMap<String, u32>,
}

/// What was sent, for the texts.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) port: u16,
    pub(super) host: String,
}

impl Sent {
    /// A text with its blanks filled in.
    pub(super) fn filled(&self, text: &str) -> String {
        let text = if text == self.host {
            text.to_owned()
        } else {
            text.replace("{host}", &self.filled(&self.host))
        };
        text.replace("{port}", &self.port.to_string())
            .replace("{to}", &self.to.to_string())
            .replace("{from}", &self.from.to_string())
    }

    fn matches(&self, what: &str, seen: Option<&str>, wanted: &str) -> anyhow::Result<()> {
        let wanted = self.filled(wanted);
        let is_right = match (seen, wanted.as_str()) {
            (seen, "") => seen.is_none(),
            (seen, "*") => seen.is_some(),
            (Some(seen), wanted) => match wanted.strip_prefix('~') {
                Some(part) => seen.contains(part),
                None => seen == wanted,
            },
            (None, _) => false,
        };
        ensure!(is_right, "{what} is {seen:?}, not {wanted:?}");
        Ok(())
    }
}

impl Expect {
    /// Checks one answer.
    pub(super) fn check(&self, reply: &Reply, scheme: Scheme, sent: &Sent) -> anyhow::Result<()> {
        let is_http = !matches!(scheme, Scheme::Tcp | Scheme::ServerFirst);
        if is_http {
            let status = self.status.unwrap_or(200);
            ensure!(reply.status == status, "status {}, not {status}: {:?}", reply.status, reply.headers);
        }
        if scheme == Scheme::Grpc && self.status.is_none() {
            let wanted = self.grpc.unwrap_or(0);
            ensure!(reply.grpc == Some(wanted), "gRPC status {:?}, not {wanted}", reply.grpc);
        }
        if let Some(line) = &self.line {
            sent.matches("line", Some(&reply.line), line)?;
        }
        for (name, wanted) in &self.answers {
            let seen = reply.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            sent.matches(name, seen.as_deref(), wanted)?;
        }
        let server = &reply.server;
        for (name, wanted) in [
            ("name", &self.name),
            ("protocol", &self.protocol),
            ("host", &self.host),
            ("path", &self.path),
            ("local", &self.local),
            ("peer", &self.peer),
            ("sni", &self.sni),
            ("proxied", &self.proxied),
            ("raw", &self.raw),
        ] {
            if let Some(wanted) = wanted {
                sent.matches(name, server[name].as_str(), wanted)?;
            }
        }
        for (name, wanted) in &self.sees {
            sent.matches(&format!("header {name}"), server["headers"][name].as_str(), wanted)?;
        }
        if let Some(wanted) = self.mtls {
            let seen = server["headers"][CALLER].as_str();
            ensure!(seen.is_some() == wanted, "the caller's certificate: {seen:?}");
        }
        if let Some(allowed) = &self.only {
            for name in server["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
                let is_of_proxy = name.starts_with("x-") || name == "server";
                ensure!(!is_of_proxy || allowed.contains(name), "the server sees {name}");
            }
        }
        Ok(())
    }

    /// Waits for what proxies log, which they do from time to time.
    pub(super) fn check_logs(&self, mesh: &Mesh) -> anyhow::Result<()> {
        for (pod, wanted) in &self.logs {
            let pod = mesh.pod(pod)?;
            Mesh::wait(&format!("{wanted:?} in the log of {}", pod.workload.name), || {
                ensure!(pod.output().contains(wanted), "it is not there");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Checks where several calls went.
    pub(super) fn check_all(
        &self,
        times: u32,
        servers: &BTreeSet<String>,
        names: &BTreeMap<String, u32>,
    ) -> anyhow::Result<()> {
        if let Some(same) = self.same {
            ensure!((servers.len() == 1) == same, "the calls went to {servers:?}");
        }
        for (name, percent) in &self.shares {
            let (all, part) = (f64::from(times), f64::from(*percent) / 100.0);
            let seen = f64::from(names.get(name).copied().unwrap_or(0));
            // Five standard deviations.
            let wide = 5.0 * (all * part * (1.0 - part)).sqrt();
            ensure!((seen - all * part).abs() <= wide, "{seen} of {all} calls went to {name}: {names:?}");
        }
        Ok(())
    }
}
