//! Credentials of gateways: are they there, and can they be used?

use std::collections::HashMap;

use pki::certificate::Certificate;
use proto::istio::networking::v1alpha3::Gateway;

use super::Report;
use super::mesh::label_field;
use crate::kube::Secret;
use crate::labels::{pairs, selector};
use crate::{Body, Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut namespaces: HashMap<String, Option<&str>> = HashMap::new();
    for (one, gateway) in world.all::<Gateway>(Kind::Gateway) {
        let own = selector(pairs(&gateway.selector));
        let namespace = *namespaces.entry(own.clone()).or_insert_with(|| {
            let mut pods = world.selected_pods(None, pairs(&gateway.selector));
            pods.next().map(|(pod, _)| &*pod.namespace)
        });
        let Some(namespace) = namespace else {
            let field = label_field("spec.selector", &own);
            report.add_at(Code::ReferencedResourceNotFound, one, &field, &["selector", &own]);
            continue;
        };
        for (index, server) in gateway.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            let first = (!tls.credential_name.is_empty())
                .then(|| (&tls.credential_name, format!("spec.servers[{index}].tls.credentialName")));
            let more = tls.credential_names.iter().enumerate();
            let more =
                more.map(|(at, name)| (name, format!("spec.servers[{index}].tls.credentialNames[{at}]")));
            for (name, field) in first.into_iter().chain(more) {
                let Some(secret_name) = secret_name(name) else { continue };
                let (home, local) = secret_name.split_once('/').unwrap_or((namespace, secret_name));
                let secret = world.find(Kind::Secret, home, local).map(|found| &found.body);
                let Some(Body::Secret(secret)) = secret else {
                    let values = ["credentialName", &**name];
                    report.add_at(Code::ReferencedResourceNotFound, one, &field, &values);
                    continue;
                };
                if !is_usable(secret, world) {
                    let values = [&*one.name, namespace];
                    report.add_at(Code::InvalidGatewayCredential, one, &field, &values);
                }
            }
        }
    }
}

/// The Secret that a credential names; `None` when it comes from elsewhere.
fn secret_name(credential: &str) -> Option<&str> {
    match credential.split_once("://") {
        None => Some(credential),
        Some(("kubernetes" | "kubernetes-gateway", name)) => Some(name),
        Some(_) => None,
    }
}

fn is_usable(secret: &Secret, world: &World) -> bool {
    let Ok(pair) = secret.pair() else { return false };
    let chain = String::from_utf8_lossy(&pair.chain);
    let Ok(chain) = Certificate::all_from_pem(&chain) else { return false };
    chain.first().is_some_and(|own| own.not_before <= world.now && world.now <= own.not_after)
}
