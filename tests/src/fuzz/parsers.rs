//! Readers of single values: names, keys, certificates, pieces of Envoy's
//! configuration, frames. What can be written again must be read as the same.

use std::str::FromStr;

use config::validate::Checker;
use config::{jwks as keys, patch as patches, path_template};
use mesh::MeshNetworks;
use names::{ClusterName, Hostname, NodeId, SpiffeId, TypeUrl};
use pki::certificate::{self, Certificate};
use pki::csr::Csr;
use pki::key::PrivateKey;
use pki::{bundle, crl};
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, Patch};
use runtime::address::Network;
use xds::frame::{Event, Fields, Scanner};

/// Key sets of token issuers.
pub fn jwks(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(private) = keys::check(&text) {
        // What is accepted has keys.
        assert!(text.contains("keys"), "{private:?}");
    }
}

/// A value of an EnvoyFilter's patch, behind a byte that says what it is for.
pub fn patch(data: &[u8]) {
    let Some((kind, json)) = data.split_first() else { return };
    let Ok(apply_to) = ApplyTo::try_from(i32::from(kind % 12)) else { return };
    let Ok(value) = serde_json::from_slice(json) else { return };
    let patch = Patch { value: Some(value), ..Patch::default() };
    let Ok(Some(read)) = patches::read(apply_to, &patch) else { return };
    let name = patches::message_name(apply_to).unwrap_or_default();
    let again = patches::canonical(name, &read.encoded);
    assert_eq!(again.as_ref(), Some(&read.encoded), "{name} has several forms");
}

/// Identities, node ids, names of clusters, hosts, types and networks.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    same::<SpiffeId>(&text);
    same::<NodeId>(&text);
    same::<ClusterName>(&text);
    let _ = Network::from_str(&text);
    let host = Hostname::new(&text);
    assert!(host.matches(&host) && host.covers(&host), "{host:?} is not itself");
    let _ = Hostname::resolve(&text, "ns", "cluster.local");
    assert_eq!(TypeUrl::from(&*text).as_str(), text);
}

/// What is read is written so that it is read again.
fn same<T: FromStr + ToString + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string();
        assert!(again.parse().ok().as_ref() == Some(&value), "{text:?} becomes {again:?}");
    }
}

/// Certificates, requests for such, keys, revocations and bundles of roots.
pub fn certificates(data: &[u8]) {
    drop(Certificate::from_der(data));
    let text = String::from_utf8_lossy(data);
    if let Ok(all) = Certificate::all_from_pem(&text) {
        all.iter().for_each(|one| drop(one.spiffe_ids()));
    }
    let blocks = certificate::blocks(&text);
    assert_eq!(certificate::blocks(&certificate::join_pem(&blocks)), blocks);
    drop(certificate::merge_roots(&[&text, &text]));
    drop(Csr::parse(&text));
    drop(PrivateKey::from_pem(&text));
    drop(crl::check(&text));
    drop(bundle::read(&text));
}

/// A stream of frames, which must say the same in whatever pieces it comes.
pub fn frames(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    for fields in [Fields::SOTW_REQUEST, Fields::SOTW_RESPONSE, Fields::DELTA_REQUEST, Fields::DELTA_RESPONSE]
    {
        let whole = scan(fields, stream, stream.len().max(1));
        let pieces = scan(fields, stream, usize::from(*size).max(1));
        assert_eq!(whole, pieces, "pieces of {size} bytes");
    }
}

/// All events, and whether the stream is none of gRPC.
fn scan(fields: Fields, stream: &[u8], size: usize) -> (Vec<Event>, bool) {
    let mut scanner = Scanner::new(fields);
    let mut events = Vec::new();
    for mut piece in stream.chunks(size) {
        loop {
            match scanner.next(piece) {
                Ok((used, event)) => {
                    piece = &piece[used..];
                    match event {
                        Some(event) => events.push(event),
                        None => break,
                    }
                }
                Err(_) => return (events, true),
            }
        }
    }
    (events, false)
}

/// Networks of the mesh, and a layer of a proxy's settings.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(networks) = MeshNetworks::from_yaml(&text) {
        let _ = networks.ranges().count() + networks.gateways().count();
    }
    drop(mesh::proxy_config::apply(&mesh::proxy_config::defaults(), &text));
}

/// Regular expressions, CEL, templates of paths, hosts and labels.
pub fn expressions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut checker = Checker::default();
    checker.regex("regex", &text);
    checker.cel("cel", &text);
    checker.host("host", &text);
    checker.label("label", &text, &text);
    checker.subset("subset", &text);
    let _ = path_template::is_template(&text) && path_template::check(&text).is_ok();
}
