//! The name table of istiod, and the forms in which its names are asked for.
//!
//! The table stays as it came; shorter forms of names are found by making them
//! longer, so that a large table is in memory once.

mod reverse;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use proto::istio::networking::nds::v1::NameTable;
use proto::istio::networking::nds::v1::name_table::NameInfo;

use reverse::Reverse;

/// Registry of names that have shorter forms.
pub(super) const KUBERNETES: &str = "Kubernetes";

/// All names, as one pod sees them.
#[derive(Debug)]
pub(super) struct Table {
    names: Arc<NameTable>,
    /// Namespace of the pod.
    namespace: String,
    /// Domain of the services around it, without the namespace.
    domain: String,
    /// Forms that cannot be told from the name, with the name.
    further: HashMap<Box<str>, Box<str>>,
    reverse: OnceLock<Reverse>,
}

/// A name of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'a> {
    /// Its name in the table.
    pub(super) name: &'a str,
    /// What is known of it.
    pub(super) info: &'a NameInfo,
}

/// How a name was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// What was found.
    pub(super) host: Host<'a>,
    /// The name has the search domain at its end, and was found without it.
    pub(super) is_searched: bool,
}

impl Table {
    /// A table for a pod of that namespace and domain (`NS.svc.cluster.local`).
    pub(super) fn new(names: Arc<NameTable>, namespace: &str, domain: &str) -> Self {
        let domain = without_namespace(namespace, domain);
        let mut further = HashMap::new();
        for (name, info) in &names.table {
            for form in stored_forms(name, info, namespace, domain) {
                further.insert(form.into_boxed_str(), name.as_str().into());
            }
        }
        Self {
            namespace: namespace.to_owned(),
            domain: domain.to_owned(),
            further,
            reverse: OnceLock::new(),
            names,
        }
    }

    /// What a name stands for; `host` is in small letters and has no last dot,
    /// `search` is the first search domain of the pod.
    ///
    /// The name itself comes first, then what it is without the search domain,
    /// then wildcards from the longest on.
    pub(super) fn find(&self, host: &str, search: Option<&str>) -> Option<Found<'_>> {
        self.either(host, search).or_else(|| {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let found @ Some(_) = self.either(&format!("*.{parent}"), search) {
                    return found;
                }
                rest = parent;
            }
            None
        })
    }

    fn either(&self, host: &str, search: Option<&str>) -> Option<Found<'_>> {
        if let Some(host) = self.exact(host) {
            return Some(Found { host, is_searched: false });
        }
        let short = without(host, search?)?;
        // Such a name is complete: nobody looks for it in the domain once more.
        if without(short, search?).is_some() {
            return None;
        }
        self.exact(short).map(|host| Found { host, is_searched: true })
    }

    fn exact(&self, host: &str) -> Option<Host<'_>> {
        let get = |name: &str| {
            let (name, info) = self.names.table.get_key_value(name)?;
            has_address(info).then_some(Host { name, info })
        };
        get(host).or_else(|| get(self.further.get(host)?)).or_else(|| {
            let first = self.domain.split('.').next().filter(|first| !first.is_empty())?;
            let in_namespace = || get(&format!("{host}.{}.{}", self.namespace, self.domain));
            let in_domain = || get(&format!("{host}.{}", self.domain));
            let with_first = || get(&format!("{}.{}", without(host, first)?, self.domain));
            let is_kubernetes = |found: &Host<'_>| is_regular(found.name, found.info, &self.domain);
            with_first()
                .filter(is_kubernetes)
                .or_else(|| in_domain().filter(is_kubernetes))
                .or_else(|| in_namespace().filter(is_kubernetes))
        })
    }

    /// The name of an address, if it has one.
    pub(super) fn name_of(&self, ip: IpAddr) -> Option<&str> {
        self.reverse.get_or_init(|| Reverse::new(&self.names)).get(ip)
    }

    /// The names of pods of a headless service.
    pub(super) fn pods_of(&self, host: Host<'_>) -> impl Iterator<Item = Host<'_>> {
        let suffix = host.name.to_owned();
        self.names
            .table
            .iter()
            .filter(move |(name, info)| {
                without(name, &suffix).is_some_and(|pod| !pod.contains('.') && pod != "*")
                    && has_address(info)
            })
            .map(|(name, info)| Host { name, info })
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.names.table.len()
    }
}

/// The addresses of a host.
pub(super) fn addresses(info: &NameInfo) -> impl Iterator<Item = IpAddr> {
    info.ips.iter().filter_map(|ip| ip.parse().ok())
}

fn has_address(info: &NameInfo) -> bool {
    addresses(info).next().is_some()
}

/// The part of a name before a domain that it ends in.
fn without<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    name.strip_suffix(domain)?.strip_suffix('.').filter(|rest| !rest.is_empty())
}

/// The domain may begin with the pod's namespace, which says nothing of others.
pub(super) fn without_namespace<'a>(namespace: &str, domain: &'a str) -> &'a str {
    match domain.split_once('.') {
        Some((first, rest)) if first == namespace => rest,
        _ => domain,
    }
}

/// Whether a name is `SHORT.NAMESPACE.DOMAIN` in small letters, so that its
/// other forms can be told.
fn is_regular(name: &str, info: &NameInfo, domain: &str) -> bool {
    info.registry == KUBERNETES
        && !info.shortname.is_empty()
        && without(name, domain).and_then(|rest| without(rest, &info.namespace))
            == Some(info.shortname.as_str())
}

/// Further forms of a name: all that there are without the last dot.
///
/// Names of Kubernetes in the pod's own domain have shorter ones; in another
/// domain these would be in the way of the pod's own.
pub(super) fn forms(name: &str, info: &NameInfo, namespace: &str, domain: &str) -> Vec<String> {
    if info.registry != KUBERNETES || domain.is_empty() || !name.ends_with(domain) {
        return Vec::new();
    }
    let mut forms = Vec::new();
    if !info.shortname.is_empty() && !info.namespace.is_empty() {
        let (short, own) = (&info.shortname, &info.namespace);
        let first = domain.split('.').next().unwrap_or_default();
        forms.extend([format!("{short}.{own}"), format!("{short}.{own}.{first}")]);
        if own == namespace {
            forms.push(short.clone());
        }
    }
    forms.extend(info.alt_hosts.iter().cloned());
    forms
}

/// Those of them that must be stored, as they are asked for.
fn stored_forms(name: &str, info: &NameInfo, namespace: &str, domain: &str) -> Vec<String> {
    let asked = |form: &str| form.strip_suffix('.').unwrap_or(form).to_ascii_lowercase();
    let is_kubernetes = info.registry == KUBERNETES;
    // As Istio's agent: such a name is none that Kubernetes gives.
    if is_kubernetes && name.ends_with('.') {
        return Vec::new();
    }
    let mut stored = if is_regular(name, info, domain) {
        info.alt_hosts.clone()
    } else {
        forms(name, info, namespace, domain)
    };
    stored.push(name.to_owned());
    stored.into_iter().map(|form| asked(&form)).filter(|form| form != name).collect()
}

#[cfg(test)]
pub(super) mod tests;
