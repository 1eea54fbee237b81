//! From flags, environment and facts to a configuration; all errors at once.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::env::Only;
use super::owner::{self, Ids};
use super::port::{self, Ports};
use super::{
    Action, BackEnd, Config, Dns, Error, Facts, Groups, Inbound, Interface, Outbound, Tproxy, Validation,
    Variant,
};
use crate::args::Args;
use crate::plan::TO_ITSELF;

/// Groups of one list: iptables-restore reads no longer rule (255 words).
const MAX_GROUPS: usize = 63;
/// Defaults of TPROXY mode.
const MARK: u32 = 1337;
const TABLE: u32 = 133;
/// Route tables with a meaning of their own (`RT_TABLE_DEFAULT` to `_LOCAL`).
const SYSTEM_TABLES: RangeInclusive<u32> = 253..=255;
/// Defaults of the probe.
const PROBE_PORT: u16 = 15002;
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every value that is wrong, not only the first.
    pub fn resolve(args: &Args, only: &Only, facts: &Facts) -> Result<Self, Vec<Error>> {
        let mut read = Reader { facts, errors: Vec::new() };
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
            tproxy: read.tproxy(args),
            ipv6,
            // An address that was looked for and is not used.
            guard: !ipv6 && facts.addresses.iter().any(is_ipv6_of_an_interface),
            action: action(args),
            force: args.force_apply.unwrap_or(false),
            back_end: read.back_end(args),
            validation: args.run_validation.unwrap_or(false).then(|| Validation {
                port: args.iptables_probe_port.unwrap_or(PROBE_PORT),
                timeout: args.probe_timeout.unwrap_or(PROBE_TIMEOUT),
            }),
            cni: args.cni_mode.unwrap_or(false),
            network_namespace: given(args.network_namespace.as_ref()).map(PathBuf::from),
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
        self.list(flag, list, |text| Interface::parse(text.trim()))
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

    fn back_end(&mut self, args: &Args) -> BackEnd {
        let variant = match text(args.force_iptables_binary.as_ref()) {
            "" => None,
            "nft" => Some(Variant::Nft),
            "legacy" => Some(Variant::Legacy),
            value => {
                self.wrong("--force-iptables-binary", value, "write nft or legacy");
                None
            }
        };
        match args.native_nftables {
            Some(true) => BackEnd::Native,
            _ => BackEnd::Iptables(variant),
        }
    }

    /// Mark and table are checked in any mode, but only TPROXY has them.
    fn tproxy(&mut self, args: &Args) -> Option<Tproxy> {
        let mark = self.number("--istio-inbound-tproxy-mark", args.istio_inbound_tproxy_mark.as_ref(), MARK);
        let table = self.number(
            "--istio-inbound-tproxy-route-table",
            args.istio_inbound_tproxy_route_table.as_ref(),
            TABLE,
        );
        let mode = text(args.istio_inbound_interception_mode.as_ref());
        if mode != "TPROXY" {
            return None;
        }
        if mark == 0 || mark == TO_ITSELF {
            self.wrong(
                "--istio-inbound-tproxy-mark",
                &mark.to_string(),
                format!("0 is no mark and {TO_ITSELF} stands for what Envoy sends to its own pod; write another number"),
            );
        }
        if table == 0 || SYSTEM_TABLES.contains(&table) {
            self.wrong(
                "--istio-inbound-tproxy-route-table",
                &table.to_string(),
                "0 and 253 to 255 are the system's own; write another number",
            );
        }
        Some(Tproxy { mark, table })
    }

    fn number(&mut self, flag: &'static str, value: Option<&String>, default: u32) -> u32 {
        let Some(value) = given(value) else { return default };
        let read = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
            None => value.parse().ok().filter(|_| !value.starts_with('+')),
        };
        read.unwrap_or_else(|| {
            self.wrong(
                flag,
                value,
                "not a number from 0 to 4294967295; write it decimal (1337) or hexadecimal (0x539)",
            );
            default
        })
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

/// An IPv6 address by which others can be reached, be it only neighbours.
fn is_ipv6_of_an_interface(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if !address.is_loopback() && *address != crate::passthrough::ADDRESS)
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
