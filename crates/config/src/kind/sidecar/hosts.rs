//! Hosts of an egress listener: `NAMESPACE/HOST`.

use std::collections::{BTreeMap, BTreeSet};

use crate::validate::{Checker, is_dns_label};

pub(super) fn check(at: &str, hosts: &[String], checker: &mut Checker) {
    if hosts.is_empty() {
        checker.error(at, "is missing: name at least one host, such as \"./*\"");
    }
    let double = double(hosts, None);
    let mut known: BTreeMap<&str, bool> = BTreeMap::new();
    for (index, text) in hosts.iter().enumerate() {
        let field = format!("{at}[{index}]");
        let Some((namespace, host)) = text.split_once('/') else {
            let message = format!(
                "{text:?} has no namespace: expected NAMESPACE/HOST, such as \"./*\" or \"*/{text}\""
            );
            checker.error(field, message);
            continue;
        };
        self::host(&field, namespace, host, checker);
        // What is taken out may be among what is named.
        if namespace.starts_with('~') {
            continue;
        }
        if double.contains(&index) {
            checker.warn(&field, format!("{text:?} is double: another host of the list has it already"));
        }
        *known.entry(namespace).or_default() |= host == "*";
    }
    if known.get("*").is_some_and(|has_all| *has_all) && known.len() > 1 {
        checker.warn(at, "has \"*/*\", which stands for all hosts: the others have no effect");
    }
}

/// Indexes of hosts that another one before has already; `.` stands for `own`,
/// if that is known.
pub(in crate::kind) fn double(hosts: &[String], own: Option<&str>) -> BTreeSet<usize> {
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut double = BTreeSet::new();
    for (index, text) in hosts.iter().enumerate() {
        let Some((namespace, host)) = text.split_once('/').filter(|(of, _)| !of.starts_with('~')) else {
            continue;
        };
        let namespace = own.filter(|_| namespace == ".").unwrap_or(namespace);
        let before = known.entry(namespace).or_default();
        if before.contains(host) || before.contains("*") || (host == "*" && !before.is_empty()) {
            double.insert(index);
        }
        before.insert(host);
    }
    double
}

fn host(field: &str, namespace: &str, host: &str, checker: &mut Checker) {
    let name = namespace.strip_prefix('~').unwrap_or(namespace);
    let is_all = name == "*" || (name.is_empty() && namespace == "~");
    if !is_all && name != "." && !is_dns_label(name) {
        let message = format!(
            "{namespace:?} is not a namespace: expected a name, \".\" (the own one), \"*\" (all), or \"~\" before one of these to take the host out"
        );
        checker.error(field, message);
    }
    if host == "*" {
        return;
    }
    if host.starts_with('*') && !host.starts_with("*.") {
        let message = format!("{host:?} has a part of a label after \"*\": expected *.example.com");
        return checker.error(field, message);
    }
    if host.contains('.') {
        return checker.host(field, host);
    }
    // The original refuses all short names; here a namespace tells which service is meant.
    if is_all {
        let message = format!(
            "{host:?} is a short name in no namespace: name one, or write {host}.NAMESPACE.svc.cluster.local"
        );
        checker.error(field, message);
    } else if is_dns_label(host) {
        let namespace = if name == "." { "NAMESPACE" } else { name };
        let message = format!(
            "{host:?} is a short name, taken as the service {host}.{namespace}.svc.cluster.local; Istio refuses it: write it in full"
        );
        checker.warn(field, message);
    } else {
        checker.host(field, host);
    }
}
