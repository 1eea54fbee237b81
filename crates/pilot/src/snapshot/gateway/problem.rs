//! Warnings for servers of Gateways that are not served, and for credentials
//! that are not there, as far as the pods of gateways are known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Problem, Severity, Store};
use proto::istio::networking::v1alpha3 as api;

use super::merge::{Bound, Conflict, Merged};
use super::{Gateway, Server};
use crate::snapshot::Snapshot;
use crate::snapshot::secret::Reference;

/// What is wrong with Gateways in view of others, of pods and of Secrets.
pub(in crate::snapshot) fn problems(store: &Store, snapshot: &Snapshot) -> Vec<Problem> {
    let mut found: BTreeSet<(&str, usize, &str, String)> = BTreeSet::new();
    for (namespace, gateways) in proxies(snapshot) {
        let merged = Merged::new(gateways.iter().copied(), |port| port);
        for dropped in &merged.dropped {
            let Bound { gateway, server } = dropped.bound;
            let (field, message) = conflict(&dropped.why);
            found.insert((&gateway.id, server.index, field, message));
        }
        for gateway in &gateways {
            for server in &gateway.servers {
                for (field, name) in credentials(server) {
                    if let Some(message) = missing(snapshot, namespace, field, name) {
                        found.insert((&gateway.id, server.index, field, message));
                    }
                }
            }
        }
    }
    let problem = |(id, index, field, message): (&str, usize, &str, String)| {
        let (namespace, name) = id.split_once('/')?;
        let (object, _) = store.get::<api::Gateway>(namespace, name)?;
        Some(Problem {
            severity: Severity::Warning,
            object: Some(object.key.clone()),
            position: object.position.clone(),
            field: format!("spec.servers[{index}].{field}"),
            message,
        })
    };
    found.into_iter().filter_map(problem).collect()
}

/// A Gateway with its place in the order of age.
/// Whether a server of any Gateway names a ConfigMap, so that it counts what is in there.
pub(in crate::snapshot) fn names_config_maps(snapshot: &Snapshot) -> bool {
    let mut servers = snapshot.gateways.iter().flat_map(|gateway| &gateway.servers);
    servers.any(|server| credentials(server).any(|(_, name)| name.starts_with("configmap://")))
}

type Aged<'a> = (usize, &'a Arc<Gateway>);

/// Namespaces of pods with the Gateways that select them, each combination once.
/// A Gateway without a selector is not told of: it selects every proxy.
fn proxies(snapshot: &Snapshot) -> Vec<(&str, Vec<&Arc<Gateway>>)> {
    // By one of the labels that each asks for, so that few are compared with a pod.
    let mut by_label: BTreeMap<(&String, &String), Vec<Aged<'_>>> = BTreeMap::new();
    for (age, gateway) in snapshot.gateways.iter().enumerate() {
        if let Some(label) = gateway.selector.first_key_value() {
            by_label.entry(label).or_default().push((age, gateway));
        }
    }
    let mut found: BTreeMap<(&str, Vec<usize>), Vec<&Arc<Gateway>>> = BTreeMap::new();
    let pods = if by_label.is_empty() { None } else { Some(snapshot.pods.values()) };
    for meta in pods.into_iter().flatten().map(|pod| &pod.meta) {
        let candidates = meta.labels.iter().filter_map(|label| by_label.get(&label)).flatten();
        let mut selecting: Vec<Aged<'_>> = candidates
            .copied()
            .filter(|(_, gateway)| config::matches(&gateway.selector, &meta.labels))
            .collect();
        if selecting.is_empty() {
            continue;
        }
        selecting.sort_unstable_by_key(|(age, _)| *age);
        let (ages, gateways): (Vec<usize>, Vec<&Arc<Gateway>>) = selecting.into_iter().unzip();
        found.entry((&meta.namespace, ages)).or_insert(gateways);
    }
    found.into_iter().map(|((namespace, _), gateways)| (namespace, gateways)).collect()
}

fn conflict(why: &Conflict) -> (&'static str, String) {
    match why {
        Conflict::Host(host) => {
            let message =
                format!("an older server has the host {host:?} at the same port: this server is not served");
            ("hosts", message)
        }
        Conflict::Port(port, protocol) => {
            let message =
                format!("an older server speaks {protocol:?} at port {port}: this server is not served");
            ("port", message)
        }
        Conflict::Routes(name) => {
            let message =
                format!("an older server has the same port and name ({name}): this server is not served");
            ("port.name", message)
        }
    }
}

/// The field that may name a Secret with nothing but roots.
const ROOTS: &str = "tls.caCertCredentialName";

/// The credentials that a server names, each with its field.
fn credentials(server: &Server) -> impl Iterator<Item = (&'static str, &str)> {
    let tls = server.tls.as_ref().filter(|_| !server.is_passthrough());
    tls.into_iter().flat_map(|tls| {
        let one = ("tls.credentialName", &tls.credential_name);
        let several = tls.credential_names.iter().map(|name| ("tls.credentialNames", name));
        let roots = (ROOTS, &tls.ca_cert_credential_name);
        std::iter::once(one)
            .chain(several)
            .chain(std::iter::once(roots))
            .map(|(field, name)| (field, name.as_str()))
    })
}

/// Why proxies of a namespace do not get a credential; `None` when they do, or
/// when it is no Secret.
fn missing(snapshot: &Snapshot, namespace: &str, field: &str, credential: &str) -> Option<String> {
    if credential.is_empty() {
        return None;
    }
    let name = match credential.split_once("://") {
        None => format!("kubernetes://{credential}"),
        Some(("kubernetes" | "kubernetes-gateway" | "configmap", _)) => credential.to_owned(),
        Some(_) => return None,
    };
    let reference = match Reference::parse(&name) {
        Ok(reference) => reference,
        Err(error) => return Some(error.to_string()),
    };
    let of = reference.namespace.unwrap_or(namespace);
    if reference.is_public {
        let error = snapshot.secrets.public(of, reference.name).err()?;
        return Some(format!("{error}: clients of this server cannot connect"));
    }
    if of != namespace {
        return Some(format!(
            "the Secret is in {of}, and a gateway in {namespace}: it gets Secrets of its own namespace only"
        ));
    }
    match snapshot.secrets.find(of, reference.name, || field == ROOTS) {
        Ok(_) => None,
        Err(error) => Some(format!("{error}: clients of this server cannot connect")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::{Store, yaml};

    use crate::{Settings, Snapshot};

    #[test]
    fn what_is_not_served_is_told() {
        let gateway = |name: &str, day: u8, servers: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: ns, \
                 creationTimestamp: '2024-01-0{day}T00:00:00Z'}}\nspec: {{selector: {{istio: in}}, servers: [{servers}]}}\n---\n"
            )
        };
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: gw, namespace: edge, labels: {istio: in, a: b}}\n\
                   spec: {}\nstatus: {podIP: 10.0.0.1}\n---\n";
        let tls = |name: &str, host: &str, credential: &str| {
            format!(
                "{{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: [{host}], \
                 tls: {{mode: SIMPLE, credentialName: '{credential}'}}}}"
            )
        };
        let http = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
        let tcp = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}";
        let objects = gateway("old", 1, &format!("{http}, {}", tls("a", "a.com", "builtin://")))
            + &gateway("new", 2, &format!("{tcp}, {}", tls("a", "a.com, b.com", "lost")))
            + &gateway("far", 3, &tls("c", "c.com", "kubernetes-gateway://ns/x"));
        let problems = |objects: &str| -> Vec<String> {
            let mut store = Store::default();
            for object in yaml::read("mesh.yaml", objects).objects {
                store.apply(Arc::new(object));
            }
            let snapshot = Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"));
            snapshot.problems.iter().map(ToString::to_string).collect()
        };
        let all = problems(&(pod.to_owned() + &objects));
        let wanted = [
            ("far", "spec.servers[0].tls.credentialName", "the Secret is in ns, and a gateway in edge"),
            ("new", "spec.servers[0].port", "speaks Http at port 80"),
            ("new", "spec.servers[1].hosts", "an older server has the host \"a.com\""),
            ("new", "spec.servers[1].tls.credentialName", "there is no Secret edge/lost"),
        ];
        assert_eq!(all.len(), wanted.len(), "{all:#?}");
        for ((name, field, message), said) in wanted.into_iter().zip(&all) {
            assert!(said.contains(name) && said.contains(field) && said.contains(message), "{said}");
        }
        assert!(problems(&objects).is_empty(), "without pods there is nobody to serve");
    }
}
