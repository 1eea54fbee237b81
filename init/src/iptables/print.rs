//! A rule, printed exactly as `iptables-save` prints it back, so that wanted
//! and live rules are compared as text.

use std::fmt;

use ipnet::IpNet;

use crate::config::Interface;
use crate::rule::{Addresses, Match, Protocol, Rule, State, Target};

/// The rule in the words of iptables, without `-A CHAIN`.
pub fn print(rule: &Rule) -> String {
    Printed(rule).to_string()
}

struct Printed<'a>(&'a Rule);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { family: _, source, destination, input, output, protocol, matches, target } = self.0;
        addresses(f, "-s", source.as_ref())?;
        addresses(f, "-d", destination.as_ref())?;
        interface(f, "-i", input.as_ref())?;
        interface(f, "-o", output.as_ref())?;
        if let Some(protocol) = protocol {
            write!(f, "-p {} ", protocol.name())?;
        }
        for condition in matches {
            write(f, condition, protocol.map_or("tcp", Protocol::name))?;
        }
        match target {
            Target::Return => f.write_str("-j RETURN"),
            Target::Accept => f.write_str("-j ACCEPT"),
            Target::Drop => f.write_str("-j DROP"),
            Target::Jump(chain) => write!(f, "-j {chain}"),
            Target::Redirect(port) => write!(f, "-j REDIRECT --to-ports {port}"),
            Target::Zone(zone) => write!(f, "-j CT --zone {zone}"),
            Target::SetMark(mark) => write!(f, "-j MARK --set-xmark {mark:#x}/0xffffffff"),
            Target::SaveMark => {
                f.write_str("-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Target::RestoreMark => {
                f.write_str("-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Target::Tproxy { port, mark } => {
                let any = match self.0.family {
                    Some(crate::family::Family::V6) => "::",
                    _ => "0.0.0.0",
                };
                write!(f, "-j TPROXY --on-port {port} --on-ip {any} --tproxy-mark {mark:#x}/0xffffffff")
            }
        }
    }
}

/// A network of all addresses is not printed back.
fn addresses(f: &mut fmt::Formatter<'_>, flag: &str, addresses: Option<&Addresses>) -> fmt::Result {
    match addresses.filter(|addresses| addresses.network.prefix_len() > 0) {
        Some(Addresses { within, network }) => {
            write!(f, "{}{flag} {} ", if *within { "" } else { "! " }, Network(*network))
        }
        None => Ok(()),
    }
}

/// Nor is an interface `+`.
fn interface(f: &mut fmt::Formatter<'_>, flag: &str, interface: Option<&Interface>) -> fmt::Result {
    match interface.filter(|interface| !interface.is_any()) {
        Some(interface) => write!(f, "{flag} {interface} "),
        None => Ok(()),
    }
}

fn write(f: &mut fmt::Formatter<'_>, condition: &Match, protocol: &str) -> fmt::Result {
    match condition {
        Match::Destination(ports) if ports.is_all() => write!(f, "-m {protocol} "),
        Match::Destination(ports) => write!(f, "-m {protocol} --dport {ports} "),
        Match::NotDestination(ports) => write!(f, "-m {protocol} ! --dport {ports} "),
        Match::NotDestinations(ports) => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            write!(f, "-m multiport ! --dports {} ", ports.join(","))
        }
        Match::Source(ports) => write!(f, "-m {protocol} --sport {ports} "),
        Match::User(ids) => write!(f, "-m owner --uid-owner {ids} "),
        Match::NotUser(ids) => write!(f, "-m owner ! --uid-owner {ids} "),
        Match::Group(ids) => write!(f, "-m owner --gid-owner {ids} "),
        Match::NotGroup(ids) => write!(f, "-m owner ! --gid-owner {ids} "),
        Match::State(State::Invalid) => f.write_str("-m conntrack --ctstate INVALID "),
        Match::State(State::Known) => f.write_str("-m conntrack --ctstate RELATED,ESTABLISHED "),
        Match::Mark(mark) => write!(f, "-m mark --mark {mark:#x} "),
        Match::NotMark(mark) => write!(f, "-m mark ! --mark {mark:#x} "),
        Match::ConnectionMark(mark) => write!(f, "-m connmark --mark {mark:#x} "),
    }
}

/// A network as the C library prints it: IPv6 addresses that hold an IPv4 one
/// end in its dotted form.
struct Network(IpNet);

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let IpNet::V6(network) = self.0 {
            let address = network.addr();
            // `::/96` with more than 16 bits in use.
            if address.segments()[..6] == [0; 6] && address.segments()[6] != 0 {
                let low = u32::from_be_bytes(address.octets()[12..].try_into().unwrap_or_default());
                return write!(f, "::{}/{}", std::net::Ipv4Addr::from(low), network.prefix_len());
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::owner::Ids;
    use crate::config::port::Ports;

    #[test]
    fn prints_as_iptables_save_does() {
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let rule = Rule::jump("ISTIO_IN_REDIRECT")
            .not_to(network("127.0.0.1/32"))
            .output(&Interface::loopback())
            .protocol(Protocol::Tcp)
            .when(Match::NotDestination(Ports::one(15008)))
            .when(Match::User(Ids::one(1337)));
        assert_eq!(
            print(&rule),
            "! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT"
        );
        for (text, printed) in [
            ("0.0.0.0/0", "-j RETURN"),
            ("::1.2.3.4/128", "-d ::1.2.3.4/128 -j RETURN"),
            ("::6/128", "-d ::6/128 -j RETURN"),
            ("::ffff:1.2.3.4/128", "-d ::ffff:1.2.3.4/128 -j RETURN"),
            ("64:ff9b::102:304/128", "-d 64:ff9b::102:304/128 -j RETURN"),
        ] {
            assert_eq!(print(&Rule::new(Target::Return).to(network(text))), printed);
        }
    }

    #[test]
    fn prints_marks_in_hexadecimal() {
        let tcp = |target| Rule::new(target).protocol(Protocol::Tcp);
        let tproxy = tcp(Target::Tproxy { port: 15006, mark: 1337 });
        assert_eq!(
            print(&tproxy.clone().not_to("::1/128".parse().unwrap())),
            "! -d ::1/128 -p tcp -j TPROXY --on-port 15006 --on-ip :: --tproxy-mark 0x539/0xffffffff"
        );
        assert!(print(&tproxy).contains("--on-ip 0.0.0.0"));
        assert_eq!(
            print(&tcp(Target::SaveMark).when(Match::Mark(1337))),
            "-p tcp -m mark --mark 0x539 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff"
        );
    }
}
