//! One rule, as a value: a conjunction of conditions and what is done then.
//!
//! How a packet filter writes it is the back ends' affair (`iptables`, `nft`).

use ipnet::IpNet;

use crate::config::Interface;
use crate::config::owner::Ids;
use crate::config::port::Ports;
use crate::family::Family;

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Leave this chain.
    Return,
    /// Let it pass; no further rule of this table is asked.
    Accept,
    /// Drop.
    Drop,
    /// Go on in another chain, named as iptables has it.
    Jump(String),
    /// Deliver to a local port.
    Redirect(u16),
    /// Track in a zone of its own.
    Zone(u16),
    /// Mark the packet; the next rule is asked.
    SetMark(u32),
    /// Give the packet's mark to its connection; the next rule is asked.
    SaveMark,
    /// Give the connection's mark to the packet; the next rule is asked.
    RestoreMark,
    /// Deliver to the socket of a local port, addresses unchanged.
    Tproxy {
        /// The port.
        port: u16,
        /// Mark by which the packet is routed here.
        mark: u32,
    },
}

/// State of a packet in the eyes of connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Belongs to no connection that is known.
    Invalid,
    /// Belongs to, or is caused by, a connection that is known.
    Known,
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
    /// In this state.
    State(State),
    /// The packet has this mark.
    Mark(u32),
    /// It has another mark, or none.
    NotMark(u32),
    /// Its connection has this mark.
    ConnectionMark(u32),
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Addresses on one side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Whether they are those of the network, or all others.
    pub within: bool,
    /// The network.
    pub network: IpNet,
}

/// One rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The only family it is for; that of its addresses if it has any.
    pub family: Option<Family>,
    /// Source addresses.
    pub source: Option<Addresses>,
    /// Destination addresses.
    pub destination: Option<Addresses>,
    /// Interface that a packet came in by.
    pub input: Option<Interface>,
    /// Interface that a packet leaves by.
    pub output: Option<Interface>,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Further conditions, all of which must hold.
    pub matches: Vec<Match>,
    /// What is done.
    pub target: Target,
}

impl Rule {
    /// A rule for every packet.
    pub fn new(target: Target) -> Self {
        let (family, source, destination, input, output, protocol) = (None, None, None, None, None, None);
        Self { family, source, destination, input, output, protocol, matches: Vec::new(), target }
    }

    /// A rule for every packet that goes on in another chain.
    pub fn jump(chain: &str) -> Self {
        Self::new(Target::Jump(chain.to_owned()))
    }

    /// Only packets of this family.
    #[must_use]
    pub fn only(mut self, family: Family) -> Self {
        self.family = Some(family);
        self
    }

    /// Only from these addresses.
    #[must_use]
    pub fn from(mut self, network: IpNet) -> Self {
        self.source = Some(Addresses { within: true, network });
        self.only(Family::of(&network))
    }

    /// Only to these addresses.
    #[must_use]
    pub fn to(mut self, network: IpNet) -> Self {
        self.destination = Some(Addresses { within: true, network });
        self.only(Family::of(&network))
    }

    /// Only to other addresses.
    #[must_use]
    pub fn not_to(mut self, network: IpNet) -> Self {
        self.destination = Some(Addresses { within: false, network });
        self.only(Family::of(&network))
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

    /// Whether the next rule is asked after it, in the end.
    pub fn goes_on(&self) -> bool {
        match self.target {
            Target::Return | Target::Accept | Target::Drop | Target::Redirect(_) | Target::Tproxy { .. } => {
                false
            }
            Target::Jump(_)
            | Target::Zone(_)
            | Target::SetMark(_)
            | Target::SaveMark
            | Target::RestoreMark => true,
        }
    }

    /// Whether it is for packets of this family.
    pub fn is_for(&self, family: Family) -> bool {
        self.family.is_none_or(|only| only == family)
    }
}

impl Protocol {
    /// Its name, as every packet filter writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
