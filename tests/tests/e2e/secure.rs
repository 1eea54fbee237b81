//! Who may talk to whom: tables of cases, and attacks.
//!
//! One mesh: a server and a client in `default`, a client in `other`, a pod
//! without a proxy, and a gateway.

#[path = "secure/certificates.rs"]
mod certificates;
#[path = "secure/keys.rs"]
mod keys;
#[path = "secure/outside.rs"]
mod outside;
#[path = "secure/raw.rs"]
mod raw;
#[path = "secure/servers.rs"]
mod servers;
#[path = "secure/table.rs"]
mod table;
#[path = "secure/tls.rs"]
mod tls;
#[path = "secure/tokens.rs"]
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;

use istio_tests::mesh::{self, Mesh, Options};
use istio_tests::program::Programs;

use super::Case;
use certificates::Ca;
use table::{Spot, run};

pub(crate) const CASES: &[Case] = &[
    ("mutual_tls_is_as_authentication_and_destination_rules_say", |mesh| run(mesh, REACHABILITY)),
    ("ports_of_no_service_obey_authentication_too", |mesh| run(mesh, PASS_THROUGH)),
    ("sources_and_operations_are_told_apart", |mesh| run(mesh, AUTHORIZATION)),
    ("paths_are_compared_as_the_mesh_writes_them", |mesh| run(mesh, PATHS)),
    ("tokens_are_taken_from_where_rules_say_and_handed_on", |mesh| run(mesh, TOKENS)),
    ("a_gateway_routes_by_claims", |mesh| run(mesh, CLAIMS)),
    ("policies_hold_at_gateways", |mesh| run(mesh, GATEWAYS)),
    ("names_of_servers_are_those_of_their_identities", tls::naming),
    ("peers_of_other_trust_domains_are_refused_unless_they_are_aliases", tls::domains),
    ("a_sidecar_begins_tls", tls::from_sidecar),
    ("a_gateway_begins_tls_with_a_secret", tls::from_gateway),
    ("certificates_in_files_are_shown_and_renewed", tls::files),
    ("certificates_that_are_revoked_are_refused", tls::revoked),
    ("a_proxy_has_certificates_of_its_own_in_files", tls::mounted),
    ("keys_of_an_issuer_that_is_slow_or_away_are_fetched_by_istiod", keys::by_istiod),
    ("keys_of_an_issuer_that_is_slow_or_away_are_fetched_by_envoy", keys::by_envoy),
    ("a_network_is_entered_by_a_gateway_that_has_a_host_name", |mesh| run(mesh, NETWORKS)),
    ("servers_outside_decide_by_http_and_by_grpc", outside::decides),
    ("what_is_smuggled_is_denied", raw::smuggled),
    ("requests_that_are_none_are_refused", raw::broken),
];

const REACHABILITY: &str = include_str!("../../data/cases/secure/reachability.yaml");
const PASS_THROUGH: &str = include_str!("../../data/cases/secure/pass-through.yaml");
const AUTHORIZATION: &str = include_str!("../../data/cases/secure/authorization.yaml");
const PATHS: &str = include_str!("../../data/cases/secure/paths.yaml");
const TOKENS: &str = include_str!("../../data/cases/secure/tokens.yaml");
const CLAIMS: &str = include_str!("../../data/cases/secure/claims.yaml");
const GATEWAYS: &str = include_str!("../../data/cases/secure/gateways.yaml");
const NETWORKS: &str = include_str!("../../data/cases/secure/networks.yaml");
const OBJECTS: &str = include_str!("../../data/cases/secure/mesh.yaml");

/// Settings of the mesh in all cases.
const SETTINGS: &str = "
trustDomainAliases: [some-other, friends]
extensionProviders:
- name: http
  envoyExtAuthzHttp:
    service: default/decider.default.svc.cluster.local
    port: 9100
    includeRequestHeadersInCheck: [x-ext-authz]
    headersToUpstreamOnAllow: [x-decided]
    headersToDownstreamOnDeny: [x-why]
- name: grpc
  envoyExtAuthzGrpc: {service: default/decider.default.svc.cluster.local, port: 9101}
- name: open
  envoyExtAuthzGrpc: {service: default/decider.default.svc.cluster.local, port: 9102, failOpen: true}
- name: other-status
  envoyExtAuthzHttp: {service: default/decider.default.svc.cluster.local, port: 9103, statusOnError: '503'}
";

/// The places that are asked.
const PLACES: &[Spot] = &[
    Spot { name: "server", host: "server.default", ..SERVER },
    Spot { name: "headless", host: "headless.default", service: SERVER.pod, ..SERVER },
    Spot { name: "bare", host: "bare.default", service: Ipv4Addr::new(10, 96, 3, 2), pod: BARE, ..SERVER },
    Spot {
        name: "moving",
        host: "moving.default",
        service: Ipv4Addr::new(10, 96, 3, 3),
        pod: BARE,
        ..SERVER
    },
    Spot { name: "a", host: "a.default", service: A, pod: A, ..SERVER },
    Spot {
        name: "mounted",
        host: "mounted.default",
        service: Ipv4Addr::new(10, 96, 3, 5),
        pod: MOUNTED,
        bytes: &[],
        ..SERVER
    },
    Spot { name: "far", host: "far.example", service: Ipv4Addr::new(10, 96, 3, 41), ..OUTER },
    Spot { name: "probe", host: "server", service: SERVER.pod, port: names::port::AGENT_STATUS, ..SERVER },
    Spot { name: "edge", host: "edge.edge", service: EDGE, pod: EDGE, port: 8080, bytes: &[] },
    Spot { name: "company", host: "company", service: Ipv4Addr::new(10, 4, 4, 4), ..OUTER },
    Spot { name: "named", host: "named.example", service: Ipv4Addr::new(10, 96, 3, 40), ..OUTER },
    Spot { name: "friend", host: "friend.default", service: Ipv4Addr::new(10, 96, 3, 31), ..OUTER },
    Spot { name: "stranger", host: "stranger.default", service: Ipv4Addr::new(10, 96, 3, 32), ..OUTER },
    Spot { name: "rooted", host: "rooted.default", service: Ipv4Addr::new(10, 96, 3, 33), ..OUTER },
    Spot { name: "foreign", host: "foreign.default", service: Ipv4Addr::new(10, 96, 3, 34), ..OUTER },
    Spot { name: "impostor", host: "impostor.default", service: Ipv4Addr::new(10, 96, 3, 35), ..OUTER },
];

const SERVER: Spot = Spot {
    name: "server",
    host: "server.default",
    service: Ipv4Addr::new(10, 96, 3, 1),
    pod: Ipv4Addr::new(10, 77, 0, 20),
    port: 9080,
    bytes: &[9000, 9443],
};
/// Servers of the test itself, in the network of the pod without a proxy.
const OUTER: Spot = Spot {
    name: "outer",
    host: "outer.default",
    service: Ipv4Addr::new(10, 96, 3, 30),
    pod: BARE,
    port: 80,
    bytes: &[],
};
const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 21);
/// The pod without a proxy.
const BARE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 23);
/// The pod whose proxy has certificates of its own.
const MOUNTED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 24);
const EDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 30);

/// Name of the mesh.
const NAME: &str = "istio-e2e-secure";

/// Variables of an agent whose proxy has certificates of its own, as client and as server.
fn mounted() -> Vec<(String, String)> {
    let files = [
        ("TLS_CLIENT_CERT_CHAIN", "tls.crt"),
        ("TLS_CLIENT_KEY", "tls.key"),
        ("TLS_CLIENT_ROOT_CERT", "roots.crt"),
        ("TLS_SERVER_CERT_CHAIN", "tls.crt"),
        ("TLS_SERVER_KEY", "tls.key"),
        ("TLS_SERVER_ROOT_CERT", "first.crt"),
    ];
    let named =
        files.map(|(name, file)| (format!("ISTIO_META_{name}"), format!("/var/lib/{NAME}/mounted/{file}")));
    named.into_iter().chain([("FILE_MOUNTED_CERTS".into(), "true".into())]).collect()
}

/// The mesh of all cases. Its authority is the test's own, which can so make
/// certificates of other trust domains; a second root is trusted as well.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    let programs = Programs::find()?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("mesh.yaml"), OBJECTS)?;
    let env = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let probes = r#"{"/app-health/app/readyz": {"httpGet": {"path": "/ready", "port": 9080}}}"#;
    let options = Options {
        name: NAME.parse()?,
        objects: folder.path().to_owned(),
        agent_env: BTreeMap::from([
            ("server".into(), env(&[("ISTIO_KUBE_APP_PROBERS", probes)])),
            // Endpoints of its network are near; for all others a gateway stands for them.
            ("edge".into(), env(&[("ISTIO_META_NETWORK", "far")])),
            ("mounted".into(), mounted()),
        ]),
    };
    let (first, second) = (Ca::new("first")?, Ca::new("second")?);
    let roots = format!("{}{}", first.roots, second.roots);
    let own = second.issue("spiffe://cluster.local/ns/default/sa/mounted")?;
    let own_key = own.key.to_pkcs8_pem();
    let files = [
        (mesh::SETTINGS, SETTINGS),
        ("etc/cacerts/ca-cert.pem", first.roots.as_str()),
        ("etc/cacerts/ca-key.pem", first.key.as_str()),
        ("etc/cacerts/cert-chain.pem", ""),
        ("etc/cacerts/root-cert.pem", roots.as_str()),
        ("second/ca-cert.pem", second.roots.as_str()),
        ("second/ca-key.pem", second.key.as_str()),
        ("mounted/tls.crt", own.chain.as_str()),
        ("mounted/tls.key", own_key.as_str()),
        ("mounted/roots.crt", roots.as_str()),
        ("mounted/first.crt", first.roots.as_str()),
    ];
    Mesh::start_with_files(&programs, &options, &files, &mut |_| {})
}
