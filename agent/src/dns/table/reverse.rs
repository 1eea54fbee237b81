//! Names by address; made when first asked for, which most pods never do.

use std::cmp::Reverse as Descending;
use std::collections::HashMap;
use std::net::IpAddr;

use proto::istio::networking::nds::v1::NameTable;
use proto::istio::networking::nds::v1::name_table::NameInfo;

use super::{KUBERNETES, addresses};

/// Which name of an address counts: the one with the fewest addresses (a pod's
/// own before that of its service), then those of Kubernetes, then the
/// shortest, then the first.
type Rank<'a> = (usize, Descending<bool>, usize, &'a str);

/// Names by address.
#[derive(Debug)]
pub(super) struct Reverse(HashMap<IpAddr, Box<str>>);

impl Reverse {
    pub(super) fn new(names: &NameTable) -> Self {
        let mut best: HashMap<IpAddr, Rank<'_>> = HashMap::new();
        for (name, info) in names.table.iter().filter(|(name, _)| !name.contains('*')) {
            let rank = rank(name, info);
            for ip in addresses(info) {
                best.entry(ip).and_modify(|known| *known = (*known).min(rank)).or_insert(rank);
            }
        }
        Self(best.into_iter().map(|(ip, (.., name))| (ip, name.into())).collect())
    }

    pub(super) fn get(&self, ip: IpAddr) -> Option<&str> {
        self.0.get(&ip).map(AsRef::as_ref)
    }
}

fn rank<'a>(name: &'a str, info: &NameInfo) -> Rank<'a> {
    (info.ips.len(), Descending(info.registry == KUBERNETES), name.len(), name)
}
