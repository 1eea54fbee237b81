//! What a run has to do: everything a user wrote, checked, before anything is
//! touched.

pub mod env;
pub mod owner;
pub mod port;
mod resolve;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::family::Family;
use owner::Ids;
use port::Ports;

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A flag or its variable.
    #[error("{flag}: `{value}`: {why}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given, or the member of the list that is wrong.
        value: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A variable that cannot be read; the original takes it for unset too.
    #[error("{name}={value} is ignored: {why}")]
    Ignored {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The pod has no address.
    #[error(
        "no valid local IP address found: every address of every interface is a loopback or link-local one; \
         give the pod an address before this container runs"
    )]
    NoAddress,
    /// DNS redirection needs the servers.
    #[error("--redirect-dns: /etc/resolv.conf: {0}; or pass --capture-all-dns")]
    ResolvConf(String),
}

/// Inbound TCP ports that go to Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// None: no inbound redirection.
    None,
    /// All but some.
    All {
        /// These stay.
        except: Vec<Ports>,
    },
    /// These.
    Only(Vec<Ports>),
}

/// Outbound destinations that go to Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// All.
    All,
    /// These, maybe none.
    Only(Vec<IpNet>),
}

/// Groups whose processes' traffic is redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All but some.
    All {
        /// These are left alone.
        except: Vec<Ids>,
    },
    /// These, maybe none.
    Only(Vec<Ids>),
}

/// DNS requests that go to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// Those to any server.
    All,
    /// Those to the servers of `/etc/resolv.conf`.
    Servers(Vec<IpAddr>),
}

/// Characters of an interface name (the kernel's IFNAMSIZ less the end).
const MAX_INTERFACE: usize = 15;

/// Which names of interfaces are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern<'a> {
    /// This one.
    Whole(&'a str),
    /// All that begin so.
    Beginning(&'a str),
}

impl Pattern<'_> {
    /// Whether a name is meant.
    pub fn fits(self, name: &str) -> bool {
        match self {
            Self::Whole(whole) => name == whole,
            Self::Beginning(beginning) => name.starts_with(beginning),
        }
    }
}

/// Name of an interface; a trailing `+` stands for any ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

impl Interface {
    /// The loopback interface.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// Reads a name as iptables takes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_INTERFACE {
            Err(format!("an interface name has 1 to {MAX_INTERFACE} characters"))
        } else if text.contains(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '!') {
            Err("an interface name has no blank, quote, `!` or `/`".to_owned())
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// Its name, or the beginning of it for which a trailing `+` stands.
    pub fn pattern(&self) -> Pattern<'_> {
        match self.0.strip_suffix('+') {
            Some(beginning) => Pattern::Beginning(beginning),
            None => Pattern::Whole(&self.0),
        }
    }

    /// Whether it stands for every interface.
    pub fn is_any(&self) -> bool {
        self.0 == "+"
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Inbound capture that leaves the client's address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tproxy {
    /// Mark of captured packets.
    pub mark: u32,
    /// Route table for them.
    pub table: u32,
}

/// What writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// The iptables programs, of one variant when told.
    Iptables(Option<Variant>),
    /// The kernel's nf_tables, spoken to directly.
    Native,
}

/// The probe of `--run-validation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validation {
    /// Port that is dialled.
    pub port: u16,
    /// How long it may take.
    pub timeout: Duration,
}

/// What to do with the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring it into force.
    Apply,
    /// Print it.
    DryRun,
    /// Remove everything of ours.
    Cleanup,
    /// Nothing.
    Skip,
}

/// The kernel's two front ends for iptables rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Rules live in nf_tables.
    Nft,
    /// Rules live in ip_tables.
    Legacy,
}

/// Facts about the system that the configuration is read against.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Text of `/etc/passwd`; empty when there is none.
    pub passwd: String,
    /// Text of `/etc/group`.
    pub group: String,
    /// Text of `/etc/services`.
    pub services: String,
    /// Text of `/etc/resolv.conf`, or why it cannot be read.
    pub resolv_conf: Result<String, String>,
    /// Addresses of all interfaces in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Envoy's outbound listener.
    pub envoy_port: u16,
    /// Envoy's inbound listener.
    pub inbound_port: u16,
    /// HBONE, never redirected.
    pub tunnel_port: u16,
    /// Users of the proxy.
    pub uids: Vec<Ids>,
    /// Groups of the proxy.
    pub gids: Vec<Ids>,
    /// What is redirected on its way in.
    pub inbound: Inbound,
    /// What is redirected on its way out.
    pub outbound: Outbound,
    /// Destinations that are not.
    pub outbound_except: Vec<IpNet>,
    /// Destination ports that are, whatever the address.
    pub outbound_ports: Vec<Ports>,
    /// Destination ports that are not.
    pub outbound_ports_except: Vec<Ports>,
    /// Interfaces that are left alone.
    pub interfaces_except: Vec<Interface>,
    /// Interfaces of virtual machines.
    pub virtual_interfaces: Vec<Interface>,
    /// Whose traffic is redirected.
    pub groups: Groups,
    /// IPv4 addresses that count as the loopback.
    pub loopback: Ipv4Net,
    /// DNS redirection.
    pub dns: Option<Dns>,
    /// Drop what connection tracking calls invalid.
    pub drop_invalid: bool,
    /// Inbound capture by TPROXY instead of REDIRECT.
    pub tproxy: Option<Tproxy>,
    /// Write IPv6 rules too.
    pub ipv6: bool,
    /// The pod has IPv6 addresses, but its IPv6 traffic is left alone.
    pub guard: bool,
    /// What to do.
    pub action: Action,
    /// Write rules that are in force already.
    pub force: bool,
    /// What writes the rules.
    pub back_end: BackEnd,
    /// Probe the redirection afterwards.
    pub validation: Option<Validation>,
    /// Run in the place of Istio's CNI plugin: the lock of legacy iptables is
    /// the pod's, not the node's.
    pub cni: bool,
    /// The network namespace to work in, when it is another than ours.
    pub network_namespace: Option<PathBuf>,
    /// File that a dry run is written to as well.
    pub dry_run_file: Option<String>,
    /// Things worth a warning.
    pub warnings: Vec<String>,
}

impl Config {
    /// Addresses that are the pod itself.
    pub fn loopback(&self, family: Family) -> IpNet {
        match family {
            Family::V4 => self.loopback.into(),
            Family::V6 => IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        }
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            passwd: String::new(),
            group: String::new(),
            services: String::new(),
            resolv_conf: Ok(String::new()),
            addresses: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
