//! What a run has to do: everything a user wrote, checked, before anything is
//! touched.

pub mod env;
pub mod owner;
pub mod port;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::args::Args;
use env::Only;
use owner::Ids;
use port::Ports;

/// Groups of one list: iptables-restore reads no longer rule (255 words).
const MAX_GROUPS: usize = 63;
/// Characters of an interface name (the kernel's IFNAMSIZ less the end).
const MAX_INTERFACE: usize = 15;

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
    /// An option of the original that is not there yet.
    #[error("{flag} is not supported; {instead}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A variable that should hold a truth value.
    #[error("{name}={value} is neither true nor false and is ignored")]
    NotBoolean {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
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

/// Name of an interface; a trailing `+` stands for any ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

impl Interface {
    /// The loopback interface.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
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
    /// Write IPv6 rules too.
    pub ipv6: bool,
    /// What to do.
    pub action: Action,
    /// Write rules that are in force already.
    pub force: bool,
    /// The front end to use, when told.
    pub variant: Option<Variant>,
    /// File that a dry run is written to as well.
    pub dry_run_file: Option<String>,
    /// Things worth a warning.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every value that is wrong, not only the first.
    pub fn resolve(args: &Args, only: &Only, facts: &Facts) -> Result<Self, Vec<Error>> {
        let mut read = Reader { facts, errors: Vec::new() };
        read.refuse_unsupported(args);
        let mut warnings = Vec::new();

        let user = owner::id_of(&facts.passwd, &only.envoy_user).unwrap_or(names::port::PROXY_UID);
        let uid = given(args.proxy_uid.as_ref()).map_or_else(|| user.to_string(), ToOwned::to_owned);
        let gid = given(args.proxy_gid.as_ref()).unwrap_or(&uid);
        let uids = read.ids("--proxy-uid", &uid, &facts.passwd);
        // A name that was given for the user only is that user's id.
        let gids = if gid == uid { uids.clone() } else { read.ids("--proxy-gid", gid, &facts.group) };

        let cidr = text(args.istio_service_cidr.as_ref());
        let outbound = match cidr {
            "*" => Outbound::All,
            list => Outbound::Only(read.networks("--istio-service-cidr", list)),
        };
        let inbound = match text(args.istio_inbound_ports.as_ref()) {
            "" => Inbound::None,
            "*" => Inbound::All {
                except: read
                    .ports("--istio-local-exclude-ports", text(args.istio_local_exclude_ports.as_ref())),
            },
            list => Inbound::Only(read.ports("--istio-inbound-ports", list)),
        };
        let groups = match only.owner_groups.as_str() {
            "*" => Groups::All {
                except: read.ids(
                    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
                    &only.owner_groups_exclude,
                    &facts.group,
                ),
            },
            list => Groups::Only(read.groups(list)),
        };
        let ipv6 = read.wants_ipv6(args.dual_stack.unwrap_or(false));
        let dns = read.dns(args, &mut warnings);
        let config = Self {
            envoy_port: read.port("--envoy-port", args.envoy_port.as_ref(), names::port::OUTBOUND),
            inbound_port: read.port(
                "--inbound-capture-port",
                args.inbound_capture_port.as_ref(),
                names::port::INBOUND,
            ),
            tunnel_port: read.port(
                "--inbound-tunnel-port",
                args.inbound_tunnel_port.as_ref(),
                names::port::INBOUND_TUNNEL,
            ),
            uids,
            gids,
            inbound,
            outbound,
            outbound_except: read
                .networks("--istio-service-exclude-cidr", text(args.istio_service_exclude_cidr.as_ref())),
            outbound_ports: read.ports("--istio-outbound-ports", text(args.istio_outbound_ports.as_ref())),
            outbound_ports_except: read.ports(
                "--istio-local-outbound-ports-exclude",
                text(args.istio_local_outbound_ports_exclude.as_ref()),
            ),
            interfaces_except: read
                .interfaces("--istio-exclude-interfaces", text(args.istio_exclude_interfaces.as_ref())),
            virtual_interfaces: read
                .interfaces("--kube-virt-interfaces", text(args.kube_virt_interfaces.as_ref())),
            groups,
            loopback: read.loopback(&only.loopback_cidr),
            dns,
            drop_invalid: args.drop_invalid.unwrap_or(false),
            ipv6,
            action: action(args),
            force: args.force_apply.unwrap_or(false),
            variant: read.variant(text(args.force_iptables_binary.as_ref())),
            dry_run_file: only.dry_run_file.clone(),
            warnings,
        };
        if read.errors.is_empty() { Ok(config) } else { Err(read.errors) }
    }
}

fn action(args: &Args) -> Action {
    if args.skip_rule_apply == Some(true) {
        Action::Skip
    } else if args.dry_run == Some(true) {
        Action::DryRun
    } else if args.cleanup_only == Some(true) {
        Action::Cleanup
    } else {
        Action::Apply
    }
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

/// An empty value means the default.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

/// Reads values and keeps what is wrong with them.
struct Reader<'a> {
    facts: &'a Facts,
    errors: Vec<Error>,
}

impl Reader<'_> {
    fn wrong(&mut self, flag: &'static str, value: &str, why: impl Into<String>) {
        self.errors.push(Error::Value { flag, value: value.to_owned(), why: why.into() });
    }

    fn refuse_unsupported(&mut self, args: &Args) {
        let network_namespace = given(args.network_namespace.as_ref()).is_some();
        let tproxy = args.istio_inbound_interception_mode.as_deref() == Some("TPROXY");
        for (asked, flag, instead) in [
            (
                Some(tproxy),
                "--istio-inbound-interception-mode TPROXY",
                "use REDIRECT (the client's address is then in X-Forwarded-For)",
            ),
            (args.run_validation, "--run-validation", "leave it out"),
            (args.native_nftables, "--native-nftables", "leave it out: rules go through iptables-nft"),
            (args.cni_mode, "--cni-mode", "run it as the pod's init container"),
            (Some(network_namespace), "--network-namespace", "run it inside: nsenter --net=PATH istio-init"),
        ] {
            if asked == Some(true) {
                self.errors.push(Error::Unsupported { flag, instead });
            }
        }
    }

    /// Reads each member of a list; empty members are dropped, as the original does.
    fn list<T>(
        &mut self,
        flag: &'static str,
        list: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for member in list.split(',').filter(|member| !member.is_empty()) {
            match read(member) {
                Ok(value) => values.push(value),
                Err(why) => self.wrong(flag, member, why),
            }
        }
        values
    }

    fn ports(&mut self, flag: &'static str, list: &str) -> Vec<Ports> {
        let services = &self.facts.services;
        self.list(flag, list, |text| Ports::parse(text.trim(), |name| port::service(services, name)))
    }

    fn port(&mut self, flag: &'static str, value: Option<&String>, default: u16) -> u16 {
        let Some(value) = value else { return default };
        value.parse().unwrap_or_else(|_| {
            self.wrong(flag, value, "a port is a decimal number from 0 to 65535");
            default
        })
    }

    fn ids(&mut self, flag: &'static str, list: &str, database: &str) -> Vec<Ids> {
        self.list(flag, list, |text| Ids::parse(text.trim(), |name| owner::id_of(database, name)))
    }

    fn groups(&mut self, list: &str) -> Vec<Ids> {
        const NAME: &str = "ISTIO_OUTBOUND_OWNER_GROUPS";
        let groups = self.ids(NAME, list, &self.facts.group);
        if groups.len() > MAX_GROUPS {
            self.wrong(NAME, list, format!("{} groups, at most {MAX_GROUPS} are possible", groups.len()));
        }
        groups
    }

    fn networks(&mut self, flag: &'static str, list: &str) -> Vec<IpNet> {
        self.list(flag, list, |text| match text.parse::<IpNet>() {
            Ok(network) => Ok(network.trunc()),
            Err(_) if text == "*" => Err("`*` cannot stand here".to_owned()),
            Err(_) => match text.trim().parse::<IpAddr>() {
                Ok(address) => Err(format!("an address needs a mask: {}", IpNet::from(address))),
                Err(_) => Err("no CIDR; write for example 10.0.0.0/8, without blanks".to_owned()),
            },
        })
    }

    fn interfaces(&mut self, flag: &'static str, list: &str) -> Vec<Interface> {
        self.list(flag, list, |text| {
            let text = text.trim();
            if text.is_empty() || text.len() > MAX_INTERFACE {
                Err(format!("an interface name has 1 to {MAX_INTERFACE} characters"))
            } else if text.contains(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '!') {
                Err("an interface name has no blank, quote, `!` or `/`".to_owned())
            } else {
                Ok(Interface(text.to_owned()))
            }
        })
    }

    fn loopback(&mut self, value: &str) -> Ipv4Net {
        match value.parse::<Ipv4Net>() {
            Ok(network) if network.addr().is_loopback() && network.prefix_len() >= 8 => network.trunc(),
            _ => {
                self.wrong(
                    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
                    value,
                    "not a part of 127.0.0.0/8; write for example 127.0.0.1/32",
                );
                Ipv4Net::from(Ipv4Addr::LOCALHOST)
            }
        }
    }

    fn variant(&mut self, value: &str) -> Option<Variant> {
        match value {
            "" => None,
            "nft" => Some(Variant::Nft),
            "legacy" => Some(Variant::Legacy),
            _ => {
                self.wrong("--force-iptables-binary", value, "write nft or legacy");
                None
            }
        }
    }

    /// The first usable address decides, or with `dual_stack` any IPv6 one.
    fn wants_ipv6(&mut self, dual_stack: bool) -> bool {
        let mut usable = self.facts.addresses.iter().filter(|address| is_usable(address)).peekable();
        let Some(first) = usable.peek() else {
            self.errors.push(Error::NoAddress);
            return false;
        };
        first.is_ipv6() || (dual_stack && usable.any(IpAddr::is_ipv6))
    }

    fn dns(&mut self, args: &Args, warnings: &mut Vec<String>) -> Option<Dns> {
        if args.redirect_dns != Some(true) {
            return None;
        }
        if args.capture_all_dns == Some(true) {
            return Some(Dns::All);
        }
        match &self.facts.resolv_conf {
            Ok(text) => {
                let servers = nameservers(text);
                if servers.is_empty() {
                    warnings.push(
                        "REDIRECT_DNS is set, but CAPTURE_ALL_DNS is false, and no DNS servers provided. \
                         DNS capture disabled."
                            .to_owned(),
                    );
                    return None;
                }
                Some(Dns::Servers(servers))
            }
            Err(why) => {
                self.errors.push(Error::ResolvConf(why.clone()));
                None
            }
        }
    }
}

fn is_usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_link_local_multicast = v4.octets()[..3] == [224, 0, 0];
            !v4.is_loopback() && !v4.is_link_local() && !is_link_local_multicast
        }
        IpAddr::V6(v6) => {
            let is_link_local_multicast = v6.segments()[0] & 0xff0f == 0xff02;
            !v6.is_loopback() && !v6.is_unicast_link_local() && !is_link_local_multicast
        }
    }
}

/// The servers of a `resolv.conf`; lines that cannot be read are dropped.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? == "nameserver" { words.next()?.parse().ok() } else { None }
    });
    addresses.collect()
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
