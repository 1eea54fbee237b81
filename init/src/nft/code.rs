//! Expressions as netlink attributes, both ways.

use netlink_packet_core::NLA_F_NESTED;

use super::expr::{Comparison, Ct, Expr, Field, Header, Meta, Set, Verdict, family_number, family_of};
use super::ruleset::Rule;
use super::wire::{Attributes, Writer};
use crate::config::owner::Ids;

// Attributes of a list, of an expression and of data in one.
const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// The register of verdicts, and the one for all else.
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
// Verdicts; all but the first two are negative numbers.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = -3_i32 as u32;
const GOTO: u32 = -4_i32 as u32;
const RETURN: u32 = -5_i32 as u32;
/// Flag of a lookup that looks for absence.
const ABSENT: u32 = 1;
/// Flag of a redirection that has a port.
const HAS_PORT: u32 = 2;
const NOT_EQUAL: u32 = 1;
const HOST_TO_NETWORK: u32 = 1;

/// A set that a rule of the same batch looks into.
#[derive(Clone, Debug)]
pub(super) struct SetRef {
    /// Its name, or the pattern of one.
    pub(super) name: String,
    /// Its number in the batch.
    pub(super) id: u32,
}

/// Writes a rule's expressions. Each lookup takes the next of `sets`.
pub(super) fn encode(rule: &Rule, mut sets: impl Iterator<Item = SetRef>, writer: &mut Writer) {
    for expr in rule {
        writer.nest(LIST_ELEMENT, |writer| {
            writer.text(NAME, name(expr));
            writer.nest(DATA, |writer| attributes(expr, &mut sets, writer));
        });
    }
}

/// The kernel's name of an expression.
pub(super) fn name(expr: &Expr) -> &str {
    match expr {
        Expr::Meta(_) | Expr::SetMeta(_) => "meta",
        Expr::Payload(_) => "payload",
        Expr::Mask(_) => "bitwise",
        Expr::HostToNetwork => "byteorder",
        Expr::Compare(..) => "cmp",
        Expr::Outside(..) => "range",
        Expr::NotIn(_) => "lookup",
        Expr::Ct(_) | Expr::SetCt(_) => "ct",
        Expr::Load(_) | Expr::Verdict(_) => "immediate",
        Expr::Counter => "counter",
        Expr::Redirect => "redir",
        Expr::Tproxy(_) => "tproxy",
        Expr::Unknown(name) => name,
    }
}

fn attributes(expr: &Expr, sets: &mut impl Iterator<Item = SetRef>, writer: &mut Writer) {
    let data = |writer: &mut Writer, kind, value: &[u8]| {
        writer.nest(kind, |writer| writer.attribute(VALUE, value));
    };
    let numbers = |writer: &mut Writer, pairs: &[(u16, u32)]| {
        for &(kind, value) in pairs {
            writer.number(kind, value);
        }
    };
    match expr {
        Expr::Meta(meta) => numbers(writer, &[(2, meta.number()), (1, REGISTER)]),
        Expr::SetMeta(meta) => numbers(writer, &[(2, meta.number()), (3, REGISTER)]),
        Expr::Payload(Field { header, offset, length }) => {
            let base = match header {
                Header::Network => 1,
                Header::Transport => 2,
            };
            numbers(writer, &[(1, REGISTER), (2, base), (3, *offset), (4, *length)]);
        }
        Expr::Mask(mask) => {
            let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
            numbers(writer, &[(1, REGISTER), (2, REGISTER), (3, length)]);
            data(writer, 4, mask);
            data(writer, 5, &vec![0; mask.len()]);
        }
        Expr::HostToNetwork => {
            numbers(writer, &[(1, REGISTER), (2, REGISTER), (3, HOST_TO_NETWORK), (4, 4), (5, 4)]);
        }
        Expr::Compare(comparison, value) => {
            numbers(writer, &[(1, REGISTER), (2, comparison.number())]);
            data(writer, 3, value);
        }
        Expr::Outside(first, last) => {
            numbers(writer, &[(1, REGISTER), (2, NOT_EQUAL)]);
            data(writer, 3, first);
            data(writer, 4, last);
        }
        Expr::NotIn(_) => {
            if let Some(set) = sets.next() {
                writer.text(1, &set.name);
                numbers(writer, &[(2, REGISTER), (4, set.id), (5, ABSENT)]);
            }
        }
        Expr::Ct(ct) => numbers(writer, &[(2, ct.number()), (1, REGISTER)]),
        Expr::SetCt(ct) => numbers(writer, &[(2, ct.number()), (4, REGISTER)]),
        Expr::Load(value) => {
            writer.number(1, REGISTER);
            data(writer, 2, value);
        }
        Expr::Counter => {
            writer.attribute(1, &[0; 8]);
            writer.attribute(2, &[0; 8]);
        }
        Expr::Redirect => numbers(writer, &[(1, REGISTER), (3, HAS_PORT)]),
        Expr::Tproxy(family) => {
            let family = family.map_or(0, family_number);
            numbers(writer, &[(1, family.into()), (3, REGISTER)]);
        }
        Expr::Verdict(verdict) => {
            writer.number(1, VERDICT_REGISTER);
            writer.nest(2, |writer| writer.nest(VERDICT, |writer| encode_verdict(verdict, writer)));
        }
        Expr::Unknown(_) => {}
    }
}

fn encode_verdict(verdict: &Verdict, writer: &mut Writer) {
    let (code, chain) = match verdict {
        Verdict::Accept => (ACCEPT, None),
        Verdict::Drop => (DROP, None),
        Verdict::Return => (RETURN, None),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
    };
    writer.number(VERDICT_CODE, code);
    if let Some(chain) = chain {
        writer.text(VERDICT_CHAIN, chain);
    }
}

/// Reads a rule's expressions; `set` gives the content of a set.
pub(super) fn decode(list: Attributes<'_>, set: impl Fn(&str) -> Option<Set>) -> Rule {
    let elements = list.iter().filter(|(kind, _)| *kind == LIST_ELEMENT);
    let exprs = elements.map(|(_, element)| {
        let element = Attributes(element);
        let name = element.text(NAME).unwrap_or_default();
        let data = element.nested(DATA).unwrap_or(Attributes(&[]));
        decode_one(&name, data, &set).unwrap_or_else(|| Expr::Unknown(extension(&name, data).unwrap_or(name)))
    });
    exprs.collect()
}

/// What an extension of iptables is: `match NAME` or `target NAME`, and of
/// `MARK` also which mark it sets.
fn extension(kind: &str, data: Attributes<'_>) -> Option<String> {
    if !matches!(kind, "match" | "target") {
        return None;
    }
    let name = data.text(1)?;
    let mark = data.get(3).and_then(|info| info.first_chunk()).map(|mark| u32::from_ne_bytes(*mark));
    match (name.as_str(), mark) {
        ("MARK", Some(mark)) => Some(format!("{kind} {name} {mark:#x}")),
        _ => Some(format!("{kind} {name}")),
    }
}

fn decode_one(name: &str, data: Attributes<'_>, set: impl Fn(&str) -> Option<Set>) -> Option<Expr> {
    let number = |kind| data.number(kind);
    let ours = |kind| number(kind) == Some(REGISTER);
    let value = |kind| data.nested(kind)?.get(VALUE).map(<[u8]>::to_vec);
    let has = |kind| data.get(kind).is_some();
    let when = |condition: bool, expr| condition.then_some(expr);
    match name {
        "meta" if has(3) => when(ours(3), Expr::SetMeta(Meta::from_number(number(2)?)?)),
        "meta" => when(ours(1), Expr::Meta(Meta::from_number(number(2)?)?)),
        "payload" => {
            let header = match number(2)? {
                1 => Header::Network,
                2 => Header::Transport,
                _ => return None,
            };
            let field = Field { header, offset: number(3)?, length: number(4)? };
            when(ours(1) && !has(5), Expr::Payload(field))
        }
        "bitwise" => {
            let is_mask = ours(1) && ours(2) && number(6).unwrap_or(0) == 0;
            let keeps = value(5)?.iter().all(|&byte| byte == 0);
            when(is_mask && keeps, Expr::Mask(value(4)?))
        }
        "byteorder" => {
            let is_it = number(3) == Some(HOST_TO_NETWORK) && number(4) == Some(4) && number(5) == Some(4);
            when(ours(1) && ours(2) && is_it, Expr::HostToNetwork)
        }
        "cmp" => when(ours(1), Expr::Compare(Comparison::from_number(number(2)?)?, value(3)?)),
        "range" => when(ours(1) && number(2) == Some(NOT_EQUAL), Expr::Outside(value(3)?, value(4)?)),
        "lookup" => {
            let is_absence = number(5) == Some(ABSENT) && !has(3);
            when(ours(2) && is_absence, Expr::NotIn(set(&data.text(1)?)?))
        }
        "ct" if has(3) => None,
        "ct" if has(4) => when(ours(4), Expr::SetCt(Ct::from_number(number(2)?)?)),
        "ct" => when(ours(1), Expr::Ct(Ct::from_number(number(2)?)?)),
        "immediate" if number(1) == Some(VERDICT_REGISTER) => {
            decode_verdict(data.nested(2)?.nested(VERDICT)?).map(Expr::Verdict)
        }
        "immediate" => when(ours(1), Expr::Load(value(2)?)),
        "counter" => Some(Expr::Counter),
        // The kernel repeats the port as the upper end of a range.
        "redir" => {
            let is_one = !has(2) || ours(2);
            when(ours(1) && is_one && number(3).unwrap_or(HAS_PORT) == HAS_PORT, Expr::Redirect)
        }
        "tproxy" => {
            let family = u8::try_from(number(1)?).ok()?;
            let family = if family == 0 { None } else { Some(family_of(family)?) };
            when(ours(3) && !has(2), Expr::Tproxy(family))
        }
        _ => None,
    }
}

fn decode_verdict(data: Attributes<'_>) -> Option<Verdict> {
    match data.number(VERDICT_CODE)? {
        ACCEPT => Some(Verdict::Accept),
        DROP => Some(Verdict::Drop),
        RETURN => Some(Verdict::Return),
        JUMP => data.text(VERDICT_CHAIN).map(Verdict::Jump),
        GOTO => data.text(VERDICT_CHAIN).map(Verdict::Goto),
        _ => None,
    }
}

/// What the kernel and `nft` have to know of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetKind {
    /// Number by which `nft` knows how to print its members.
    pub(super) key: u32,
    /// Bytes of a member.
    pub(super) length: u32,
    /// Whether its members are ends of ranges.
    pub(super) is_interval: bool,
}

impl SetKind {
    const PORTS: Self = Self { key: 13, length: 2, is_interval: false };
    const GROUPS: Self = Self { key: 25, length: 4, is_interval: true };

    /// The kind of a set.
    pub(super) fn of(set: &Set) -> Self {
        match set {
            Set::Ports(_) => Self::PORTS,
            Set::Ids(_) => Self::GROUPS,
        }
    }

    /// Whether a set of the kernel's is such a one.
    pub(super) fn known(key_length: u32, is_interval: bool) -> Option<Self> {
        let kinds = [Self::PORTS, Self::GROUPS];
        kinds.into_iter().find(|kind| kind.length == key_length && kind.is_interval == is_interval)
    }
}

// Attributes of a member.
const KEY: u16 = 1;
const FLAGS: u16 = 3;
/// Flag of a member that is the first after a range.
const RANGE_END: u32 = 1;

/// Writes the members of a set.
pub(super) fn encode_members(set: &Set, writer: &mut Writer) {
    let mut member = |key: &[u8], flags| {
        writer.nest(LIST_ELEMENT, |writer| {
            writer.nest(KEY, |writer| writer.attribute(VALUE, key));
            if flags != 0 {
                writer.number(FLAGS, flags);
            }
        });
    };
    match set {
        Set::Ports(ports) => ports.iter().for_each(|port| member(&port.to_be_bytes(), 0)),
        Set::Ids(ranges) => {
            for ids in ranges {
                member(&ids.first().to_be_bytes(), 0);
                // No id is the highest number, so there is always a next one.
                member(&ids.last().saturating_add(1).to_be_bytes(), RANGE_END);
            }
        }
    }
}

/// Reads the members of a set.
pub(super) fn decode_members<'a>(
    kind: SetKind,
    members: impl Iterator<Item = Attributes<'a>>,
) -> Option<Set> {
    let members = members.map(|member| {
        let key = member.nested(KEY)?.get(VALUE)?;
        let allowed = |kind: u16| [KEY, FLAGS].contains(&(kind & !NLA_F_NESTED));
        let is_plain = member.iter().all(|(kind, _)| allowed(kind));
        is_plain.then(|| (key, member.number(FLAGS).unwrap_or(0) == RANGE_END))
    });
    let members = members.collect::<Option<Vec<_>>>()?;
    if !kind.is_interval {
        let ports = members.iter().map(|(key, _)| Some(u16::from_be_bytes((*key).try_into().ok()?)));
        let mut ports = ports.collect::<Option<Vec<u16>>>()?;
        ports.sort_unstable();
        return Some(Set::Ports(ports));
    }
    let ends =
        members.iter().map(|(key, is_end)| Some((u32::from_be_bytes((*key).try_into().ok()?), !is_end)));
    // The end of a range and the start of the next never meet: see `Set::Ids`.
    let mut ends = ends.collect::<Option<Vec<(u32, bool)>>>()?;
    ends.sort_unstable();
    let ranges = ends.chunks(2).map(|pair| match *pair {
        [(first, true), (end, false)] => Some(Ids::range(first, end.checked_sub(1)?)),
        _ => None,
    });
    ranges.collect::<Option<Vec<_>>>().map(Set::Ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;

    fn round(rule: &Rule, set: Option<&Set>) -> Rule {
        let mut writer = Writer::default();
        let sets = std::iter::repeat_n(SetRef { name: "__set0".to_owned(), id: 1 }, 9);
        encode(rule, sets, &mut writer);
        decode(Attributes(writer.bytes()), |_| set.cloned())
    }

    #[test]
    fn every_expression_comes_back() {
        let set = Set::Ports(vec![53, 15008]);
        let rule = vec![
            Expr::Meta(Meta::User),
            Expr::SetMeta(Meta::Mark),
            Expr::Payload(Field::port(false)),
            Expr::Payload(Field::address(Family::V6, true, 4)),
            Expr::Mask(vec![0xff, 0x80, 0, 0]),
            Expr::HostToNetwork,
            Expr::Compare(Comparison::AtLeast, vec![1, 2]),
            Expr::Outside(vec![1], vec![2]),
            Expr::NotIn(set.clone()),
            Expr::Ct(Ct::State),
            Expr::SetCt(Ct::Zone),
            Expr::Load(vec![5, 6]),
            Expr::Counter,
            Expr::Redirect,
            Expr::Tproxy(Some(Family::V6)),
            Expr::Tproxy(None),
            Expr::Verdict(Verdict::Accept),
            Expr::Verdict(Verdict::Drop),
            Expr::Verdict(Verdict::Return),
            Expr::Verdict(Verdict::Jump("istio-redirect".into())),
            Expr::Verdict(Verdict::Goto("x".into())),
        ];
        assert_eq!(round(&rule, Some(&set)), rule);
        assert_eq!(round(&vec![Expr::NotIn(set)], None), [Expr::Unknown("lookup".into())]);
    }

    #[test]
    fn members_of_sets_come_back() {
        for set in [
            Set::Ports(vec![53, 15008]),
            Set::Ids(vec![Ids::one(0), Ids::range(5, 9), Ids::range(11, u32::MAX - 1)]),
        ] {
            let mut writer = Writer::default();
            encode_members(&set, &mut writer);
            let members = Attributes(writer.bytes());
            let members = members.iter().map(|(_, member)| Attributes(member));
            assert_eq!(decode_members(SetKind::of(&set), members), Some(set));
        }
    }
}
