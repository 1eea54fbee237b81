//! The words of nft's language that rules of ours are made of: what one or
//! more expressions mean together.

use ipnet::IpNet;

use super::expr::{Comparison, Ct, Expr, Field, Meta, Set, Verdict, family_number};
use crate::config::owner::Ids;
use crate::config::port::Ports;
use crate::family::Family;
use crate::rule::{Addresses, Protocol, State};

/// Length of the buffer in which the kernel keeps the name of an interface.
const NAME_LENGTH: usize = 16;

/// One condition or statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clause {
    /// `iifname`, `oifname`: name of an interface.
    Interface {
        /// Whether the packet leaves by it.
        is_output: bool,
        /// The name, or how it begins.
        name: String,
        /// Whether any ending may follow.
        is_prefix: bool,
    },
    /// `meta nfproto`.
    Family(Family),
    /// `meta l4proto`.
    Protocol(Protocol),
    /// `ip saddr` and its like.
    Addresses {
        /// Whether it is the source.
        is_source: bool,
        /// The addresses.
        addresses: Addresses,
    },
    /// `ct state`.
    State(State),
    /// `tcp dport` and its like.
    Ports {
        /// The protocol.
        protocol: Protocol,
        /// Whether it is the source.
        is_source: bool,
        /// Whether it is one of these, or none.
        within: bool,
        /// The ports.
        ports: Ports,
    },
    /// `tcp dport != { .. }`.
    NotPorts {
        /// The protocol.
        protocol: Protocol,
        /// The ports, sorted.
        ports: Vec<u16>,
    },
    /// `meta mark`.
    Mark {
        /// Whether it is this one, or another.
        within: bool,
        /// The mark.
        mark: u32,
    },
    /// `ct mark`.
    ConnectionMark(u32),
    /// `meta skuid`, `meta skgid`.
    Owner {
        /// Whether it is the user.
        is_user: bool,
        /// Whether it is one of these, or none.
        within: bool,
        /// The ids.
        ids: Ids,
    },
    /// `meta skgid != { .. }`.
    NotGroups(Vec<Ids>),
    /// `counter`.
    Counter,
    /// `return`, `jump` and their like.
    Verdict(Verdict),
    /// `redirect to`.
    Redirect(u16),
    /// `tproxy to`.
    Tproxy(Option<Family>, u16),
    /// `ct zone set`.
    Zone(u16),
    /// `meta mark set`.
    SetMark(u32),
    /// `ct mark set meta mark`.
    SaveMark,
    /// `meta mark set ct mark`.
    RestoreMark,
    /// None of these.
    Unknown(Expr),
}

/// Bits of `ct state`.
pub(super) const INVALID: u32 = 1;
pub(super) const KNOWN: u32 = 2 | 4;

impl Clause {
    /// Adds the clause to a rule.
    pub fn lower(&self, rule: &mut Vec<Expr>) {
        let equality = Comparison::equality;
        match self {
            Self::Interface { is_output, name, is_prefix } => {
                rule.push(Expr::Meta(if *is_output { Meta::Output } else { Meta::Input }));
                let mut name = name.clone().into_bytes();
                // With the zeros behind it, it is the whole name.
                if !is_prefix {
                    name.resize(NAME_LENGTH, 0);
                }
                rule.push(Expr::Compare(Comparison::Equal, name));
            }
            Self::Family(family) => {
                rule.push(Expr::Meta(Meta::Family));
                rule.push(Expr::Compare(Comparison::Equal, vec![family_number(*family)]));
            }
            Self::Protocol(protocol) => {
                rule.push(Expr::Meta(Meta::Protocol));
                rule.push(Expr::Compare(Comparison::Equal, vec![protocol_number(*protocol)]));
            }
            Self::Addresses { is_source, addresses } => lower_addresses(*is_source, *addresses, rule),
            Self::State(state) => {
                let bits = match state {
                    State::Invalid => INVALID,
                    State::Known => KNOWN,
                };
                rule.push(Expr::Ct(Ct::State));
                rule.push(Expr::Mask(bits.to_ne_bytes().to_vec()));
                rule.push(Expr::Compare(Comparison::Unequal, vec![0; 4]));
            }
            Self::Ports { protocol, is_source, within, ports } => {
                Self::Protocol(*protocol).lower(rule);
                rule.push(Expr::Payload(Field::port(*is_source)));
                let [first, last] = [ports.first(), ports.last()].map(|port| port.to_be_bytes().to_vec());
                between(*within, first, last, rule);
            }
            Self::NotPorts { protocol, ports } => {
                Self::Protocol(*protocol).lower(rule);
                rule.push(Expr::Payload(Field::port(false)));
                rule.push(Expr::NotIn(Set::Ports(ports.clone())));
            }
            Self::Mark { within, mark } => {
                rule.push(Expr::Meta(Meta::Mark));
                rule.push(Expr::Compare(equality(*within), mark.to_ne_bytes().to_vec()));
            }
            Self::ConnectionMark(mark) => {
                rule.push(Expr::Ct(Ct::Mark));
                rule.push(Expr::Compare(Comparison::Equal, mark.to_ne_bytes().to_vec()));
            }
            Self::Owner { is_user, within, ids } => {
                rule.push(Expr::Meta(if *is_user { Meta::User } else { Meta::Group }));
                if ids.first() == ids.last() {
                    rule.push(Expr::Compare(equality(*within), ids.first().to_ne_bytes().to_vec()));
                } else {
                    rule.push(Expr::HostToNetwork);
                    let [first, last] = [ids.first(), ids.last()].map(|id| id.to_be_bytes().to_vec());
                    between(*within, first, last, rule);
                }
            }
            Self::NotGroups(groups) => {
                rule.push(Expr::Meta(Meta::Group));
                rule.push(Expr::HostToNetwork);
                rule.push(Expr::NotIn(Set::Ids(groups.clone())));
            }
            Self::Counter => rule.push(Expr::Counter),
            Self::Verdict(verdict) => rule.push(Expr::Verdict(verdict.clone())),
            Self::Redirect(port) => {
                rule.push(Expr::Load(port.to_be_bytes().to_vec()));
                rule.push(Expr::Redirect);
            }
            Self::Tproxy(family, port) => {
                rule.push(Expr::Load(port.to_be_bytes().to_vec()));
                rule.push(Expr::Tproxy(*family));
            }
            Self::Zone(zone) => {
                rule.push(Expr::Load(zone.to_ne_bytes().to_vec()));
                rule.push(Expr::SetCt(Ct::Zone));
            }
            Self::SetMark(mark) => {
                rule.push(Expr::Load(mark.to_ne_bytes().to_vec()));
                rule.push(Expr::SetMeta(Meta::Mark));
            }
            Self::SaveMark => rule.extend([Expr::Meta(Meta::Mark), Expr::SetCt(Ct::Mark)]),
            Self::RestoreMark => rule.extend([Expr::Ct(Ct::Mark), Expr::SetMeta(Meta::Mark)]),
            Self::Unknown(expr) => rule.push(expr.clone()),
        }
    }
}

/// The number of a protocol in the header of a packet.
pub(super) const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// Compares with both ends; one value needs one comparison.
fn between(within: bool, first: Vec<u8>, last: Vec<u8>, rule: &mut Vec<Expr>) {
    if first == last {
        rule.push(Expr::Compare(Comparison::equality(within), first));
    } else if within {
        rule.push(Expr::Compare(Comparison::AtLeast, first));
        rule.push(Expr::Compare(Comparison::AtMost, last));
    } else {
        rule.push(Expr::Outside(first, last));
    }
}

fn lower_addresses(is_source: bool, addresses: Addresses, rule: &mut Vec<Expr>) {
    let Addresses { within, network } = addresses;
    let network = network.trunc();
    let family = Family::of(&network);
    let bytes = |address| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut value = bytes(network.addr());
    Clause::Family(family).lower(rule);
    // Whole bytes of a network need no mask: only those are loaded.
    let is_whole = network.prefix_len() > 0 && network.prefix_len() % 8 == 0;
    if is_whole {
        value.truncate(usize::from(network.prefix_len() / 8));
    }
    let length = u32::try_from(value.len()).unwrap_or_default();
    rule.push(Expr::Payload(Field::address(family, is_source, length)));
    if !is_whole {
        rule.push(Expr::Mask(bytes(netmask(&network))));
    }
    rule.push(Expr::Compare(Comparison::equality(within), value));
}

fn netmask(network: &IpNet) -> std::net::IpAddr {
    match network {
        IpNet::V4(network) => network.netmask().into(),
        IpNet::V6(network) => network.netmask().into(),
    }
}
