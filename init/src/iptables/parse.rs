//! A rule that `iptables-save` printed, read back.
//!
//! It knows the words that our rules have; any other word makes the rule one
//! that is not understood, never one that is understood wrongly.

use std::collections::VecDeque;

use ipnet::IpNet;

use crate::config::Interface;
use crate::config::owner::Ids;
use crate::config::port::Ports;
use crate::family::Family;
use crate::rule::{Addresses, Match, Protocol, Rule, State, Target};

/// Reads a rule of a family, without `-A CHAIN`.
///
/// # Errors
/// The word that is not understood.
pub fn parse(text: &str, family: Family) -> Result<Rule, String> {
    let mut words = Words { rest: text.split_ascii_whitespace().collect(), module: "", negated: false };
    let mut rule = Rule::new(Target::Return).only(family);
    let mut target = None;
    while let Some(word) = words.next() {
        match word {
            "!" => {
                words.negated = true;
                continue;
            }
            "-s" => rule.source = Some(words.addresses()?),
            "-d" => rule.destination = Some(words.addresses()?),
            "-i" => rule.input = Some(words.interface()?),
            "-o" => rule.output = Some(words.interface()?),
            "-p" => rule.protocol = Some(words.protocol()?),
            "-m" => words.module = words.value()?,
            "-j" => target = Some(words.target()?),
            _ => rule.matches.push(words.condition(word)?),
        }
        if std::mem::take(&mut words.negated) {
            return Err(format!("`! {word}`"));
        }
    }
    rule.target = target.ok_or("a rule without -j")?;
    Ok(rule)
}

struct Words<'a> {
    rest: VecDeque<&'a str>,
    /// The last module that was named: some words belong to several.
    module: &'a str,
    /// The word before was `!`.
    negated: bool,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.rest.pop_front()
    }

    fn value(&mut self) -> Result<&'a str, String> {
        self.next().ok_or_else(|| "a word without its value".to_owned())
    }

    fn is_negated(&mut self) -> bool {
        std::mem::take(&mut self.negated)
    }

    fn addresses(&mut self) -> Result<Addresses, String> {
        let within = !self.is_negated();
        let text = self.value()?;
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        Ok(Addresses { within, network: network.map_err(|_| format!("address `{text}`"))? })
    }

    fn interface(&mut self) -> Result<Interface, String> {
        Interface::parse(self.value()?)
    }

    fn protocol(&mut self) -> Result<Protocol, String> {
        match self.value()? {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            other => Err(format!("-p {other}")),
        }
    }

    fn condition(&mut self, word: &str) -> Result<Match, String> {
        let is = !self.is_negated();
        let value = self.value()?;
        let wrong = || format!("{}{word} {value}", if is { "" } else { "! " });
        let ports = || Ports::parse(value, |_| None).map_err(|_| wrong());
        let ids = || Ids::parse(value, |_| None).map_err(|_| wrong());
        Ok(match (word, is) {
            ("--dport", true) => Match::Destination(ports()?),
            ("--dport", false) => Match::NotDestination(ports()?),
            ("--sport", true) => Match::Source(ports()?),
            ("--dports", false) => {
                let ports: Result<Vec<u16>, _> = value.split(',').map(str::parse).collect();
                Match::NotDestinations(ports.map_err(|_| wrong())?)
            }
            ("--uid-owner", true) => Match::User(ids()?),
            ("--uid-owner", false) => Match::NotUser(ids()?),
            ("--gid-owner", true) => Match::Group(ids()?),
            ("--gid-owner", false) => Match::NotGroup(ids()?),
            ("--ctstate", true) if value == "INVALID" => Match::State(State::Invalid),
            ("--ctstate", true) if value == "RELATED,ESTABLISHED" => Match::State(State::Known),
            ("--mark", is) => {
                let mark = number(value).ok_or_else(wrong)?;
                match (self.module, is) {
                    ("mark", true) => Match::Mark(mark),
                    ("mark", false) => Match::NotMark(mark),
                    ("connmark", true) => Match::ConnectionMark(mark),
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(wrong()),
        })
    }

    /// The target with its options, which end the rule.
    fn target(&mut self) -> Result<Target, String> {
        let name = self.value()?;
        let options: Vec<&str> = self.rest.drain(..).collect();
        let wrong = || format!("-j {name} {}", options.join(" "));
        Ok(match (name, &options[..]) {
            ("RETURN", []) => Target::Return,
            ("ACCEPT", []) => Target::Accept,
            ("DROP", []) => Target::Drop,
            ("REDIRECT", ["--to-ports", port]) => Target::Redirect(port.parse().map_err(|_| wrong())?),
            ("CT", ["--zone", zone]) => Target::Zone(zone.parse().map_err(|_| wrong())?),
            ("MARK", ["--set-xmark", mark]) => Target::SetMark(whole(mark).ok_or_else(wrong)?),
            ("CONNMARK", [what, "--nfmask", ALL, "--ctmask", ALL]) => match *what {
                "--save-mark" => Target::SaveMark,
                "--restore-mark" => Target::RestoreMark,
                _ => return Err(wrong()),
            },
            ("TPROXY", ["--on-port", port, "--on-ip", "0.0.0.0" | "::", "--tproxy-mark", mark]) => {
                Target::Tproxy {
                    port: port.parse().map_err(|_| wrong())?,
                    mark: whole(mark).ok_or_else(wrong)?,
                }
            }
            (chain, []) => Target::Jump(chain.to_owned()),
            _ => return Err(wrong()),
        })
    }
}

/// A mask of all bits.
const ALL: &str = "0xffffffff";

/// A mark that takes all bits.
fn whole(text: &str) -> Option<u32> {
    number(text.strip_suffix(ALL)?.strip_suffix('/')?)
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::print::print;

    #[test]
    fn reads_what_it_prints() {
        for text in [
            "! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
            "-o lo -p tcp -m multiport ! --dports 53,15008 -m owner ! --gid-owner 7-9 -j RETURN",
            "-s ::6/128 -i lo -p tcp -j RETURN",
            "-p udp -m udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2",
            "-p tcp -m tcp --dport 8000:8010 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT",
            "-m conntrack --ctstate INVALID -j ISTIO_DROP",
            "-p tcp -m mark --mark 0x539 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            "-i lo -p tcp -m mark ! --mark 0x53a -j RETURN",
            "-p tcp -m connmark --mark 0x539 -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            "-j MARK --set-xmark 0x539/0xffffffff",
            "-p tcp -j REDIRECT --to-ports 15001",
            "! -d ::1/128 -p tcp -j TPROXY --on-port 15006 --on-ip :: --tproxy-mark 0x539/0xffffffff",
        ] {
            let family = if text.contains("::") { Family::V6 } else { Family::V4 };
            assert_eq!(print(&parse(text, family).unwrap()), text);
        }
    }

    #[test]
    fn understands_nothing_wrongly() {
        for text in [
            "-p icmp -j ACCEPT",
            "-p tcp -m tcp --tcp-flags SYN,RST SYN -j DROP",
            "-m mark --mark 0x1/0xff -j RETURN",
            "-j MARK --set-xmark 0x1/0xff",
            "! -i lo -j RETURN",
            "-p tcp",
            "-j DNAT --to-destination 10.0.0.1",
            "-m connmark ! --mark 0x1 -j RETURN",
            "-s 10.0.0.0/33 -j RETURN",
        ] {
            assert!(parse(text, Family::V4).is_err(), "{text}");
        }
    }
}
