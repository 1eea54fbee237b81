//! Rules of `WorkloadEntry`, and of the endpoints that a ServiceEntry lists.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proto::istio::networking::v1alpha3::WorkloadEntry;

use crate::kube;
use crate::validate::{Checker, is_dns_label};

/// How an address of a Unix socket begins.
const UNIX: &str = "unix://";

/// What an endpoint of a ServiceEntry may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Anything: no ServiceEntry is known.
    Any,
    /// An IP address or a socket.
    Static,
    /// An IP address or a host name.
    Dns,
}

/// Fields of the status that the mesh does not use.
pub(super) const UNUSED: &[&str] =
    &["lastProbeTime", "lastTransitionTime", "message", "observedGeneration", "reason", "validationMessages"];

pub(super) fn check(entry: &kube::WorkloadEntry, checker: &mut Checker) {
    checker.within("spec", |checker| spec(entry, checker));
}

fn spec(entry: &WorkloadEntry, checker: &mut Checker) {
    endpoint("", entry, Form::Any, None, checker);
}

/// Rules of one workload; `at` is where it stands, with a dot at its end. The
/// names of `ports` are those of the service, if it is known.
pub(super) fn endpoint(
    at: &str,
    entry: &WorkloadEntry,
    form: Form,
    ports: Option<&BTreeSet<&str>>,
    checker: &mut Checker,
) {
    address(at, entry, form, ports, checker);
    for (name, port) in &entry.ports {
        let at = format!("{at}ports.{name}");
        if !is_dns_label(&name.to_ascii_lowercase()) {
            checker.error(
                &at,
                format!("{name:?} is not the name of a port: expected letters, digits and hyphens"),
            );
        } else if ports.is_some_and(|ports| !ports.contains(name.as_str())) {
            checker.error(&at, format!("the service has no port {name:?}: use the name of one of its ports"));
        }
        checker.port(&at, *port);
    }
    for (key, value) in &entry.labels {
        checker.label(&format!("{at}labels.{key}"), key, value);
    }
    if entry.locality.split('/').count() > 3 {
        let message = format!("{:?} has more than three parts: expected REGION/ZONE/SUBZONE", entry.locality);
        checker.warn(format!("{at}locality"), message);
    }
}

fn address(
    at: &str,
    entry: &WorkloadEntry,
    form: Form,
    ports: Option<&BTreeSet<&str>>,
    checker: &mut Checker,
) {
    let field = format!("{at}address");
    let text = &entry.address;
    if text.is_empty() {
        if entry.network.is_empty() || form == Form::Dns {
            checker.error(field, "is missing: give an IP address, a host name or unix:///PATH");
        } else {
            checker.warn(field, "is missing: the workload is reached by the gateways of its network only");
        }
    } else if let Some(path) = text.strip_prefix(UNIX) {
        if form == Form::Dns {
            return checker.error(field, format!("{text:?} is a socket, which is for resolution STATIC"));
        }
        if !path.starts_with(['/', '@']) || path.ends_with('/') {
            let message = format!("{text:?}: the path of a socket must be absolute, and no directory");
            checker.error(field, message);
        }
        if !entry.ports.is_empty() {
            checker.error(format!("{at}ports"), "a Unix socket has no ports");
        }
        if ports.is_some_and(|ports| ports.len() != 1) {
            checker.error(
                format!("{at}address"),
                "a Unix socket is for a service with one port: give each port a ServiceEntry of its own",
            );
        }
    } else if text.parse::<IpAddr>().is_err() {
        if form == Form::Static {
            let message = format!("{text:?} is not an IP address: write one, or use resolution DNS");
            return checker.error(field, message);
        }
        checker.host(&field, text);
        if text.starts_with('*') {
            checker.error(field, format!("{text:?} is no single host"));
        }
    }
}
