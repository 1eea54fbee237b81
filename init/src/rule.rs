//! One rule, printed exactly as `iptables-save` prints it back, so that wanted
//! and live rules are compared as text.

use std::fmt;

use ipnet::IpNet;

use crate::config::Interface;
use crate::config::owner::Ids;
use crate::config::port::Ports;

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Leave this chain.
    Return,
    /// Go on in another chain.
    Jump(&'static str),
    /// Deliver to a local port.
    Redirect(u16),
    /// Track in a zone of its own.
    Zone(u16),
    /// Drop.
    Drop,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Destination ports of the rule's protocol.
    Destination(Ports),
    /// Any but these destination ports.
    NotDestination(Ports),
    /// None of these destination ports.
    NotDestinations(Vec<u16>),
    /// Source ports.
    Source(Ports),
    /// Sent by these users.
    User(Ids),
    /// Not sent by these users.
    NotUser(Ids),
    /// Sent by these groups.
    Group(Ids),
    /// Not sent by these groups.
    NotGroup(Ids),
    /// Connection tracking calls it invalid.
    Invalid,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    source: Option<IpNet>,
    destination: Option<(bool, IpNet)>,
    input: Option<Interface>,
    output: Option<Interface>,
    protocol: Option<Protocol>,
    matches: Vec<Match>,
    target: Target,
}

impl Rule {
    /// A rule for every packet.
    pub fn new(target: Target) -> Self {
        let (source, destination, input, output, protocol) = (None, None, None, None, None);
        Self { source, destination, input, output, protocol, matches: Vec::new(), target }
    }

    /// Only from these addresses.
    #[must_use]
    pub fn from(mut self, network: IpNet) -> Self {
        self.source = Some(network);
        self
    }

    /// Only to these addresses.
    #[must_use]
    pub fn to(mut self, network: IpNet) -> Self {
        self.destination = Some((true, network));
        self
    }

    /// Only to other addresses.
    #[must_use]
    pub fn not_to(mut self, network: IpNet) -> Self {
        self.destination = Some((false, network));
        self
    }

    /// Only what came in there.
    #[must_use]
    pub fn input(mut self, interface: &Interface) -> Self {
        self.input = Some(interface.clone());
        self
    }

    /// Only what leaves there.
    #[must_use]
    pub fn output(mut self, interface: &Interface) -> Self {
        self.output = Some(interface.clone());
        self
    }

    /// Only this protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// One more condition.
    #[must_use]
    pub fn when(mut self, condition: Match) -> Self {
        self.matches.push(condition);
        self
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, input, output, protocol, matches, target } = self;
        // A network of all addresses and an interface `+` are not printed back.
        if let Some(network) = source.filter(|network| network.prefix_len() > 0) {
            write!(f, "-s {} ", Network(network))?;
        }
        if let Some((is, network)) = destination.filter(|(_, network)| network.prefix_len() > 0) {
            write!(f, "{}-d {} ", not(is), Network(network))?;
        }
        if let Some(interface) = input.as_ref().filter(|interface| !interface.is_any()) {
            write!(f, "-i {interface} ")?;
        }
        if let Some(interface) = output.as_ref().filter(|interface| !interface.is_any()) {
            write!(f, "-o {interface} ")?;
        }
        if let Some(protocol) = protocol {
            write!(f, "-p {} ", protocol.name())?;
        }
        for condition in matches {
            condition.write(f, protocol.map_or("tcp", Protocol::name))?;
        }
        match target {
            Target::Return => f.write_str("-j RETURN"),
            Target::Drop => f.write_str("-j DROP"),
            Target::Jump(chain) => write!(f, "-j {chain}"),
            Target::Redirect(port) => write!(f, "-j REDIRECT --to-ports {port}"),
            Target::Zone(zone) => write!(f, "-j CT --zone {zone}"),
        }
    }
}

impl Match {
    fn write(&self, f: &mut fmt::Formatter<'_>, protocol: &str) -> fmt::Result {
        match self {
            Self::Destination(ports) if ports.is_all() => write!(f, "-m {protocol} "),
            Self::Destination(ports) => write!(f, "-m {protocol} --dport {ports} "),
            Self::NotDestination(ports) => write!(f, "-m {protocol} ! --dport {ports} "),
            Self::NotDestinations(ports) => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                write!(f, "-m multiport ! --dports {} ", ports.join(","))
            }
            Self::Source(ports) => write!(f, "-m {protocol} --sport {ports} "),
            Self::User(ids) => write!(f, "-m owner --uid-owner {ids} "),
            Self::NotUser(ids) => write!(f, "-m owner ! --uid-owner {ids} "),
            Self::Group(ids) => write!(f, "-m owner --gid-owner {ids} "),
            Self::NotGroup(ids) => write!(f, "-m owner ! --gid-owner {ids} "),
            Self::Invalid => f.write_str("-m conntrack --ctstate INVALID "),
        }
    }
}

fn not(is: bool) -> &'static str {
    if is { "" } else { "! " }
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

    #[test]
    fn prints_as_iptables_save_does() {
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let rule = Rule::new(Target::Jump("ISTIO_IN_REDIRECT"))
            .not_to(network("127.0.0.1/32"))
            .output(&Interface::loopback())
            .protocol(Protocol::Tcp)
            .when(Match::NotDestination(Ports::one(15008)))
            .when(Match::User(Ids::one(1337)));
        assert_eq!(
            rule.to_string(),
            "! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT"
        );
        for (text, printed) in [
            ("0.0.0.0/0", "-j RETURN"),
            ("::1.2.3.4/128", "-d ::1.2.3.4/128 -j RETURN"),
            ("::6/128", "-d ::6/128 -j RETURN"),
            ("::ffff:1.2.3.4/128", "-d ::ffff:1.2.3.4/128 -j RETURN"),
            ("64:ff9b::102:304/128", "-d 64:ff9b::102:304/128 -j RETURN"),
        ] {
            assert_eq!(Rule::new(Target::Return).to(network(text)).to_string(), printed);
        }
    }
}
