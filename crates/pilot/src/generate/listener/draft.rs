//! Filter chains before they are written, and which of them exclude each other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proto::envoy::config::core::v3::{CidrRange, Metadata, TransportSocket};
use proto::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};

use super::chain::{chain, with_handshake_timeout};

/// A filter chain with what it matches; an empty part matches everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// Server names of TLS, exact or with a leading `*.`.
    pub(super) names: Vec<String>,
    /// Destinations: addresses or ranges.
    pub(super) ranges: Vec<String>,
    /// `raw_buffer` or `tls`.
    pub(super) transport: &'static str,
    /// What inspectors may find inside.
    pub(super) protocols: &'static [&'static str],
    /// Object that it comes from.
    pub(super) metadata: Option<Metadata>,
    /// TLS that ends here.
    pub(super) socket: Option<TransportSocket>,
    /// What happens to a connection.
    pub(super) filters: Vec<Filter>,
}

/// One of the combinations that a chain matches.
type Key = (&'static str, &'static [&'static str], Option<String>, Option<(IpAddr, u8)>);

impl Draft {
    /// Whether it matches every connection.
    pub(super) fn is_general(&self) -> bool {
        self.names.is_empty()
            && self.ranges.is_empty()
            && self.transport.is_empty()
            && self.protocols.is_empty()
    }

    fn key(&self, name: Option<&str>, range: Option<&str>) -> Key {
        let range =
            range.and_then(parse).filter(|(ip, _)| !is_any(*ip)).map(|(ip, bits)| (mask(ip, bits), bits));
        (self.transport, self.protocols, name.map(str::to_owned), range)
    }

    fn keys(&self) -> Vec<Key> {
        let names: Vec<Option<&str>> = options(&self.names);
        let ranges: Vec<Option<&str>> = options(&self.ranges);
        let of_name = |name| ranges.iter().map(move |range| self.key(name, *range));
        names.iter().flat_map(|name| of_name(*name)).collect()
    }

    /// Takes out what other chains match already, since Envoy refuses a listener
    /// with two chains for the same; `None` when nothing is left.
    fn without(mut self, taken: &BTreeSet<Key>) -> Option<Self> {
        let is_taken = |key: &Key| taken.contains(key);
        if !self.keys().iter().any(is_taken) {
            return Some(self);
        }
        if self.names.is_empty() {
            let free = |range: &String| !is_taken(&self.key(None, Some(range)));
            self.ranges = self.ranges.iter().filter(|range| free(range)).cloned().collect();
            return (!self.ranges.is_empty()).then_some(self);
        }
        let ranges = options(&self.ranges);
        let free = |name: &String| ranges.iter().all(|range| !is_taken(&self.key(Some(name), *range)));
        self.names = self.names.iter().filter(|name| free(name)).cloned().collect();
        (!self.names.is_empty()).then_some(self)
    }

    /// Envoy's message, for a listener of services.
    pub(super) fn write(self) -> FilterChain {
        let matcher = if self.is_general() { None } else { Some(self.matcher()) };
        let written = FilterChain {
            metadata: self.metadata,
            transport_socket: self.socket,
            ..chain("", matcher, self.filters)
        };
        with_handshake_timeout(written)
    }

    fn matcher(&self) -> FilterChainMatch {
        let sorted = |list: &[String]| list.iter().cloned().collect::<BTreeSet<String>>();
        FilterChainMatch {
            transport_protocol: self.transport.into(),
            application_protocols: self.protocols.iter().map(|&name| name.into()).collect(),
            server_names: sorted(&self.names).into_iter().collect(),
            prefix_ranges: sorted(&self.ranges).iter().filter_map(|text| range(text)).collect(),
            ..FilterChainMatch::default()
        }
    }
}

fn options(list: &[String]) -> Vec<Option<&str>> {
    if list.is_empty() { vec![None] } else { list.iter().map(|text| Some(text.as_str())).collect() }
}

/// Adds chains to those of a listener; what is there already stays. Whether
/// something of the new ones was left out.
pub(super) fn merge(chains: &mut Vec<Draft>, new: Vec<Draft>) -> bool {
    let mut taken: BTreeSet<Key> = chains.iter().flat_map(Draft::keys).collect();
    let mut is_complete = true;
    for mut draft in new {
        draft.ranges.retain(|text| parse(text).is_some());
        if draft.names.iter().any(|name| name == "*") {
            draft.names.clear();
        }
        let size = draft.names.len() + draft.ranges.len();
        let Some(draft) = draft.without(&taken) else {
            is_complete = false;
            continue;
        };
        is_complete &= size == draft.names.len() + draft.ranges.len();
        taken.extend(draft.keys());
        chains.push(draft);
    }
    !is_complete
}

/// An address, or a range of addresses, with the number of its fixed bits.
fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let all = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some((ip, bits))
}

fn range(text: &str) -> Option<CidrRange> {
    let (ip, bits) = parse(text).filter(|(ip, _)| !is_any(*ip))?;
    Some(CidrRange { address_prefix: ip.to_string(), prefix_len: Some(bits.into()) })
}

/// `0.0.0.0` stands for every destination, whatever its bits.
fn is_any(ip: IpAddr) -> bool {
    ip == IpAddr::from([0, 0, 0, 0])
}

fn mask(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(names: &[&str], ranges: &[&str]) -> Draft {
        let list = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect();
        Draft { names: list(names), ranges: list(ranges), ..Draft::default() }
    }

    #[test]
    fn what_is_matched_already_is_left_out() {
        let mut chains = vec![draft(&["a", "b"], &[])];
        assert!(merge(&mut chains, vec![draft(&["b", "c"], &[]), draft(&["a"], &[])]));
        assert_eq!(chains.len(), 2);
        assert_eq!(chains[1].names, ["c"]);
        assert!(!merge(&mut chains, vec![draft(&[], &[])]));
        assert!(merge(&mut chains, vec![draft(&["*"], &[])]));
    }

    #[test]
    fn ranges_are_the_same_when_their_fixed_bits_are() {
        let mut chains = vec![draft(&[], &["10.1.2.3/8"])];
        assert!(merge(&mut chains, vec![draft(&[], &["10.9.9.9/8"])]));
        assert!(!merge(&mut chains, vec![draft(&[], &["10.9.9.9/16", "10.0.0.1"])]));
        assert!(merge(&mut chains, vec![draft(&[], &["10.0.0.1/32", "11.0.0.0/8"])]));
        assert_eq!(chains[2].ranges, ["11.0.0.0/8"]);
    }

    #[test]
    fn a_general_chain_has_no_match() {
        assert_eq!(draft(&[], &[]).write().filter_chain_match, None);
        let every_address = draft(&[], &["0.0.0.0/0"]).write().filter_chain_match;
        assert_eq!(every_address, Some(FilterChainMatch::default()));
    }

    proptest! {
        #[test]
        fn no_combination_is_matched_twice(
            all in prop::collection::vec(
                (prop::collection::vec("[a-c]", 0..3), prop::collection::vec("10\\.[0-2]\\.0\\.0/(8|16)", 0..3)),
                0..6,
            )
        ) {
            let mut chains = Vec::new();
            for (names, ranges) in all {
                merge(&mut chains, vec![Draft { names, ranges, ..Draft::default() }]);
            }
            let keys: Vec<Key> = chains
                .iter()
                .flat_map(|draft| draft.keys().into_iter().collect::<BTreeSet<Key>>())
                .collect();
            let distinct: BTreeSet<&Key> = keys.iter().collect();
            prop_assert_eq!(distinct.len(), keys.len());
        }

        #[test]
        fn reading_a_range_never_fails_badly(text in ".{0,40}") {
            let _ = parse(&text).map(|(ip, bits)| mask(ip, bits));
        }
    }
}
