//! The words for what went wrong: seen, in force, what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use caps::{CapSet, Capability};

use super::dial::Seen;
use super::{Finding, Report};
use crate::config::Config;
use crate::family::Family;
use crate::live;

/// The redirection is not what the configuration wants; `Display` is the
/// message for the user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What was found out of every path.
    pub findings: Vec<Finding>,
    message: String,
}

impl Failure {
    pub(super) fn new(config: &Config, report: &Report) -> Self {
        #[expect(clippy::disallowed_methods, reason = "only to name the node in a message")]
        let node = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
        let families: Vec<Family> =
            Family::ALL.into_iter().filter(|it| *it == Family::V4 || config.ipv6).collect();
        let message = Message { report, rules: &rules(&families), node: node.as_deref() }.to_string();
        Self { findings: report.findings.clone(), message }
    }
}

struct Message<'a> {
    report: &'a Report,
    rules: &'a str,
    node: Option<&'a str>,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { findings, took } = self.report;
        writeln!(f, "iptables validation failed; workload is not ready for Istio.")?;
        writeln!(f, "Seen within {:.1} s:", took.as_secs_f64())?;
        for finding in findings {
            writeln!(f, "  {finding}")?;
        }
        writeln!(f, "Rules in force: {}", self.rules)?;
        let node = match self.node {
            Some(name) => format!("node {name}"),
            None => "node of this pod".to_owned(),
        };
        write!(
            f,
            "With Istio's CNI plugin, its agent on the node writes the rules before the pod starts. A pod that was \
             placed before that agent was ready has none; the log of the istio-cni pod on the {node} tells.\n\
             If Istio is installed with 'cni.repair.deletePods=true', this pod is deleted and made again by itself; \
             otherwise delete it, so that it starts on a node where istio-cni runs."
        )
    }
}

/// What a dial came to.
pub(super) fn seen(to: SocketAddr, expected: u16, seen: Option<&Seen>) -> String {
    let port = to.port();
    match seen {
        Some(Seen::Refused) => format!("{to}: connection refused: no rule redirects it to port {expected}"),
        Some(Seen::Unanswered(waited)) => format!(
            "{to}: no answer for {:.1} s: packets are dropped, or no rule redirects it to port {expected}",
            waited.as_secs_f64()
        ),
        Some(Seen::TakenElsewhere) => format!(
            "{to}: accepted by another process: one that listens on port {port}, to which no rule redirects, or \
             one that shares port {expected}"
        ),
        Some(Seen::Strayed { port: other, .. }) if *other != expected => {
            format!("{to}: accepted by the wrong port: it came out at {other} instead of {expected}")
        }
        Some(Seen::Strayed { meant: Some(meant), .. }) => {
            format!("{to}: it came out at port {expected}, but as meant for {meant}: it is redirected twice")
        }
        Some(Seen::Strayed { meant: None, .. }) => format!(
            "{to}: it came out at port {expected}, but the kernel does not tell the original destination \
             (SO_ORIGINAL_DST), which Envoy needs"
        ),
        Some(Seen::NoRoute(error)) if to.is_ipv6() => {
            format!("{to}: {}: the address {} is not on the interface lo", error.desc(), to.ip())
        }
        Some(Seen::NoRoute(error) | Seen::Error(error)) => format!("{to}: {}", error.desc()),
        None => format!("{to}: not dialled in time"),
    }
}

/// Why there is no listener.
pub(super) fn no_listener(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("no listener available: another process listens on {address}, where Envoy will have to")
        }
        _ => format!("no listener available: {address}: {error}"),
    }
}

/// The chains of ours that are in force, as far as this user may know.
fn rules(families: &[Family]) -> String {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false) {
        let uid = nix::unistd::geteuid();
        return format!("cannot be read by this user (uid {uid}), which takes the capability NET_ADMIN");
    }
    let live = match live::read() {
        Ok(live) => live,
        Err(error) => return format!("cannot be read: {error:#}"),
    };
    let mut told: Vec<String> = live.unknown;
    for found in live.found.iter().filter(|found| found.ours != [0, 0]) {
        for (family, tables) in
            Family::ALL.into_iter().zip(&found.tables).filter(|(it, _)| families.contains(it))
        {
            let chains = tables.ours().map(|(table, chain, rules)| format!("{table}/{chain} ({rules})"));
            let chains: Vec<String> = chains.collect();
            let chains = if chains.is_empty() { "none".to_owned() } else { chains.join(", ") };
            told.push(format!("{} {} by {}", family.name(), chains, found.by.name()));
        }
    }
    if told.is_empty() { "none of Istio's".to_owned() } else { told.join("; ") }
}
