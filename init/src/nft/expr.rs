//! The kernel's expressions, as far as rules of ours need them. All of them
//! work on one register, the first.

use crate::config::owner::Ids;
use crate::family::Family;

/// One expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads a fact about the packet.
    Meta(Meta),
    /// Sets a fact about the packet.
    SetMeta(Meta),
    /// Loads bytes of the packet.
    Payload(Field),
    /// Keeps only these bits.
    Mask(Vec<u8>),
    /// Turns 32 bits from the machine's byte order into the network's, in which
    /// numbers can be compared by size.
    HostToNetwork,
    /// Goes on only if the comparison holds.
    Compare(Comparison, Vec<u8>),
    /// Goes on only if the value is outside of a range.
    Outside(Vec<u8>, Vec<u8>),
    /// Goes on only if the value is in none of a set's ranges.
    NotIn(Set),
    /// Loads a fact about the packet's connection.
    Ct(Ct),
    /// Sets a fact about the packet's connection.
    SetCt(Ct),
    /// Loads a constant.
    Load(Vec<u8>),
    /// Counts.
    Counter,
    /// Delivers to the local port that was loaded.
    Redirect,
    /// Gives the packet to the socket of the local port that was loaded.
    Tproxy(Option<Family>),
    /// Ends the rule.
    Verdict(Verdict),
    /// Something that rules of ours never have, and what it is.
    Unknown(String),
}

/// A fact about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Its mark.
    Mark,
    /// Name of the interface it came in by.
    Input,
    /// Name of the interface it leaves by.
    Output,
    /// User of the socket it is sent by.
    User,
    /// Group of that socket.
    Group,
    /// Its family.
    Family,
    /// Its transport protocol.
    Protocol,
}

/// A fact about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    /// State of the packet in it.
    State,
    /// Its mark.
    Mark,
    /// Its zone.
    Zone,
}

/// Bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// What the offset counts from.
    pub header: Header,
    /// Number of bytes before.
    pub offset: u32,
    /// Number of bytes.
    pub length: u32,
}

/// A header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// IPv4 or IPv6.
    Network,
    /// TCP or UDP.
    Transport,
}

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    Unequal,
    /// Lower, or equal.
    AtMost,
    /// Higher, or equal.
    AtLeast,
}

/// A set without a name, which lives and dies with its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// Ports, sorted.
    Ports(Vec<u16>),
    /// User or group ids, sorted, no two ranges of which meet.
    Ids(Vec<Ids>),
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this table.
    Accept,
    /// It is dropped.
    Drop,
    /// It leaves this chain.
    Return,
    /// It goes through another chain and comes back.
    Jump(String),
    /// It goes through another chain and does not come back.
    Goto(String),
}

impl Field {
    /// The port at one end of a connection.
    pub const fn port(is_source: bool) -> Self {
        Self { header: Header::Transport, offset: if is_source { 0 } else { 2 }, length: 2 }
    }

    /// The first bytes of an address at one end.
    pub const fn address(family: Family, is_source: bool, length: u32) -> Self {
        let offset = match (family, is_source) {
            (Family::V4, true) => 12,
            (Family::V4, false) => 16,
            (Family::V6, true) => 8,
            (Family::V6, false) => 24,
        };
        Self { header: Header::Network, offset, length }
    }
}

impl Meta {
    /// The kernel's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Mark => 3,
            Self::Input => 6,
            Self::Output => 7,
            Self::User => 10,
            Self::Group => 11,
            Self::Family => 15,
            Self::Protocol => 16,
        }
    }

    /// The fact of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        let all =
            [Self::Mark, Self::Input, Self::Output, Self::User, Self::Group, Self::Family, Self::Protocol];
        all.into_iter().find(|meta| meta.number() == number)
    }
}

impl Ct {
    /// The kernel's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::State => 0,
            Self::Mark => 3,
            Self::Zone => 17,
        }
    }

    /// The fact of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::State, Self::Mark, Self::Zone].into_iter().find(|ct| ct.number() == number)
    }
}

impl Comparison {
    /// The kernel's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Equal => 0,
            Self::Unequal => 1,
            Self::AtMost => 3,
            Self::AtLeast => 5,
        }
    }

    /// The comparison of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        let all = [Self::Equal, Self::Unequal, Self::AtMost, Self::AtLeast];
        all.into_iter().find(|comparison| comparison.number() == number)
    }

    /// Whether the values are the same.
    pub const fn equality(within: bool) -> Self {
        if within { Self::Equal } else { Self::Unequal }
    }
}

/// The kernel's number of a family.
pub const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// The family of a number.
pub fn family_of(number: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|&family| family_number(family) == number)
}
