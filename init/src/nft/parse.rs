//! From the kernel's expressions back to words: what several of them mean
//! together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::clause::{Clause, INVALID, KNOWN, protocol_number};
use super::expr::{Comparison, Ct, Expr, Field, Header, Meta, Set, family_of};
use crate::config::owner::Ids;
use crate::config::port::Ports;
use crate::family::Family;
use crate::rule::{Addresses, Protocol, State};

/// The clauses of a rule; what means nothing together is [`Clause::Unknown`].
pub(super) fn clauses(rule: &[Expr]) -> Vec<Clause> {
    let mut rest = rule;
    // A port means something only together with the protocol that came before.
    let mut protocol = None;
    let mut clauses = Vec::new();
    while let [first, behind @ ..] = rest {
        let (clause, length) = clause(rest, protocol).unwrap_or((Clause::Unknown(first.clone()), 1));
        if let Clause::Protocol(known) | Clause::Ports { protocol: known, .. } = clause {
            protocol = Some(known);
        }
        clauses.push(clause);
        rest = behind.get(length.saturating_sub(1)..).unwrap_or_default();
    }
    clauses
}

/// The first clause, and of how many expressions it is made.
fn clause(rest: &[Expr], protocol: Option<Protocol>) -> Option<(Clause, usize)> {
    match rest {
        [Expr::Meta(meta @ (Meta::Input | Meta::Output)), Expr::Compare(Comparison::Equal, name), ..] => {
            let is_prefix = !name.contains(&0);
            let name = name.split(|&byte| byte == 0).next()?;
            let name = String::from_utf8(name.to_vec()).ok()?;
            Some((Clause::Interface { is_output: *meta == Meta::Output, name, is_prefix }, 2))
        }
        [Expr::Meta(Meta::Protocol), Expr::Compare(Comparison::Equal, number), rest @ ..] => {
            let all = [Protocol::Tcp, Protocol::Udp];
            let protocol = all.into_iter().find(|&protocol| [protocol_number(protocol)] == number[..])?;
            match ports(rest, protocol) {
                Some((clause, length)) => Some((clause, length + 2)),
                None => Some((Clause::Protocol(protocol), 2)),
            }
        }
        [Expr::Payload(Field { header: Header::Transport, .. }), ..] => ports(rest, protocol?),
        [Expr::Meta(Meta::Family), Expr::Compare(Comparison::Equal, number), rest @ ..] => {
            let [number] = number[..] else { return None };
            let family = family_of(number)?;
            match addresses(rest, family) {
                Some((clause, length)) => Some((clause, length + 2)),
                None => Some((Clause::Family(family), 2)),
            }
        }
        [Expr::Meta(meta @ (Meta::User | Meta::Group)), rest @ ..] => {
            let (clause, length) = owner(rest, *meta == Meta::User)?;
            Some((clause, length + 1))
        }
        [Expr::Meta(Meta::Mark), Expr::Compare(comparison, mark), ..] => {
            Some((Clause::Mark { within: is_within(*comparison)?, mark: number(mark)? }, 2))
        }
        [Expr::Meta(Meta::Mark), Expr::SetCt(Ct::Mark), ..] => Some((Clause::SaveMark, 2)),
        [Expr::Ct(Ct::Mark), Expr::SetMeta(Meta::Mark), ..] => Some((Clause::RestoreMark, 2)),
        [Expr::Ct(Ct::Mark), Expr::Compare(Comparison::Equal, mark), ..] => {
            Some((Clause::ConnectionMark(number(mark)?), 2))
        }
        [Expr::Ct(Ct::State), Expr::Mask(bits), Expr::Compare(Comparison::Unequal, zero), ..]
            if zero[..] == [0; 4] =>
        {
            let state = match number(bits)? {
                INVALID => State::Invalid,
                KNOWN => State::Known,
                _ => return None,
            };
            Some((Clause::State(state), 3))
        }
        [Expr::Load(value), Expr::Redirect, ..] => Some((Clause::Redirect(port(value)?), 2)),
        [Expr::Load(value), Expr::Tproxy(family), ..] => Some((Clause::Tproxy(*family, port(value)?), 2)),
        [Expr::Load(value), Expr::SetCt(Ct::Zone), ..] => {
            Some((Clause::Zone(u16::from_ne_bytes(value[..].try_into().ok()?)), 2))
        }
        [Expr::Load(value), Expr::SetMeta(Meta::Mark), ..] => Some((Clause::SetMark(number(value)?), 2)),
        [Expr::Counter, ..] => Some((Clause::Counter, 1)),
        [Expr::Verdict(verdict), ..] => Some((Clause::Verdict(verdict.clone()), 1)),
        _ => None,
    }
}

fn is_within(comparison: Comparison) -> Option<bool> {
    match comparison {
        Comparison::Equal => Some(true),
        Comparison::Unequal => Some(false),
        Comparison::AtMost | Comparison::AtLeast => None,
    }
}

/// A number in the machine's byte order.
fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn port(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

fn id(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// `within`, both ends, and the number of expressions.
fn between(rest: &[Expr]) -> Option<(bool, &[u8], &[u8], usize)> {
    match rest {
        [Expr::Compare(Comparison::AtLeast, first), Expr::Compare(Comparison::AtMost, last), ..] => {
            Some((true, first, last, 2))
        }
        [Expr::Outside(first, last), ..] => Some((false, first, last, 1)),
        [Expr::Compare(comparison, value), ..] => Some((is_within(*comparison)?, value, value, 1)),
        _ => None,
    }
}

fn ports(rest: &[Expr], protocol: Protocol) -> Option<(Clause, usize)> {
    let [Expr::Payload(field), rest @ ..] = rest else { return None };
    let is_source = *field == Field::port(true);
    if !is_source && *field != Field::port(false) {
        return None;
    }
    if let [Expr::NotIn(Set::Ports(ports)), ..] = rest
        && !is_source
    {
        return Some((Clause::NotPorts { protocol, ports: ports.clone() }, 2));
    }
    let (within, first, last, length) = between(rest)?;
    let ports = Ports::range(port(first)?, port(last)?);
    Some((Clause::Ports { protocol, is_source, within, ports }, length + 1))
}

fn owner(rest: &[Expr], is_user: bool) -> Option<(Clause, usize)> {
    match rest {
        [Expr::HostToNetwork, Expr::NotIn(Set::Ids(groups)), ..] if !is_user => {
            Some((Clause::NotGroups(groups.clone()), 2))
        }
        [Expr::HostToNetwork, rest @ ..] => {
            let (within, first, last, length) = between(rest)?;
            let ids = Ids::range(id(first)?, id(last)?);
            Some((Clause::Owner { is_user, within, ids }, length + 1))
        }
        [Expr::Compare(comparison, value), ..] => {
            let within = is_within(*comparison)?;
            Some((Clause::Owner { is_user, within, ids: Ids::one(number(value)?) }, 1))
        }
        _ => None,
    }
}

fn addresses(rest: &[Expr], family: Family) -> Option<(Clause, usize)> {
    let [Expr::Payload(field), rest @ ..] = rest else { return None };
    let is_source = *field == Field::address(family, true, field.length);
    if !is_source && *field != Field::address(family, false, field.length) {
        return None;
    }
    let (mask, comparison, value, length) = match rest {
        [Expr::Compare(comparison, value), ..] => (None, comparison, value, 2),
        [Expr::Mask(mask), Expr::Compare(comparison, value), ..] => (Some(mask), comparison, value, 3),
        _ => return None,
    };
    let address = address(family, value)?;
    let prefix = match mask {
        None => u8::try_from(value.len() * 8).ok()?,
        Some(mask) => ipnet::ip_mask_to_prefix(self::address(family, mask)?).ok()?,
    };
    let network = IpNet::new(address, prefix).ok()?;
    let addresses = Addresses { within: is_within(*comparison)?, network };
    Some((Clause::Addresses { is_source, addresses }, length))
}

/// The address that begins with some bytes.
fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    let mut octets = [0; 16];
    octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
    match family {
        Family::V6 => Some(Ipv6Addr::from(octets).into()),
        Family::V4 if bytes.len() > 4 => None,
        Family::V4 => Some(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()),
    }
}
