//! One certificate for several gateways of the same proxies: clients that keep
//! a connection of HTTP/2 for both hosts get a 404 for one of them.

use std::collections::{BTreeMap, HashMap};

use proto::istio::networking::v1alpha3::{Gateway, ServerTlsSettings};

use super::Report;
use crate::message::list;
use crate::{Code, Kind, Resource, World};

#[derive(PartialEq, Eq, Hash)]
enum Certificate<'a> {
    Credential(&'a str),
    Files(&'a str, &'a str),
}

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let gateways: Vec<(&'a Resource, Gateway)> = world.all(Kind::Gateway).collect();
    let mut users: HashMap<Certificate<'_>, Vec<(&'a Resource, &Gateway)>> = HashMap::new();
    for (one, gateway) in &gateways {
        for server in &gateway.servers {
            if let Some(certificate) = server.tls.as_ref().and_then(certificate) {
                users.entry(certificate).or_default().push((*one, gateway));
            }
        }
    }
    for all in users.values().filter(|all| all.len() > 1) {
        for (one, gateway) in all {
            for (other, their) in all {
                let is_same = one.namespace == other.namespace && one.name == other.name;
                if !is_same && is_subset(&gateway.selector, &their.selector) {
                    let names = list(&[one.full_name(), other.full_name()]);
                    report.add_at(Code::GatewayDuplicateCertificate, one, "metadata.name", &[&names]);
                }
            }
        }
    }
}

fn certificate(tls: &ServerTlsSettings) -> Option<Certificate<'_>> {
    let files = (&*tls.server_certificate, &*tls.private_key);
    match (&*tls.credential_name, files) {
        ("", ("", _) | (_, "")) => None,
        ("", (certificate, key)) => Some(Certificate::Files(certificate, key)),
        (name, _) => Some(Certificate::Credential(name)),
    }
}

/// Whether every proxy of the second selector is one of the first.
fn is_subset(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> bool {
    config::matches(first, second)
}
