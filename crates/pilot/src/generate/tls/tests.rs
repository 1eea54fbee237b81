use std::sync::Arc;

use mesh::MeshConfig;
use proto::envoy::config::core::v3::Node;
use proto::envoy::config::core::v3::transport_socket::ConfigType;
use proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use proto::envoy::r#type::matcher::v3::StringMatcher;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::server;
use crate::proxy::Proxy;
use crate::scope::{Scope, View};
use crate::snapshot::Snapshot;
use crate::{Features, Settings};

/// Beginnings of the names that clients may have.
fn known(mesh: &str, features: Features) -> Vec<String> {
    let mesh = MeshConfig::from_yaml(mesh).unwrap();
    let settings = Settings { features, ..Settings::new(Arc::new(mesh), "Kubernetes") };
    let snapshot = Snapshot::build(&crate::testing::store(""), &settings);
    let id = "sidecar~10.1.1.1~p.x~x.svc.cluster.local".into();
    let proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
    let view = View::new(&snapshot, &proxy);
    let socket = server(Scope::new(&snapshot, &proxy, &view));
    let Some(ConfigType::TypedConfig(config)) = socket.config_type else { panic!() };
    let context: DownstreamTlsContext = config.unpack().unwrap();
    let common = context.common_tls_context.unwrap();
    let Some(ValidationContextType::CombinedValidationContext(combined)) = common.validation_context_type
    else {
        panic!()
    };
    #[allow(deprecated)]
    let names = combined.default_validation_context.unwrap().match_subject_alt_names;
    let begins = |matcher: StringMatcher| match matcher.match_pattern {
        Some(MatchPattern::Prefix(prefix)) => prefix,
        other => panic!("{other:?}"),
    };
    names.into_iter().map(begins).collect()
}

#[test]
fn clients_are_of_the_mesh_its_aliases_and_those_whose_roots_are_given() {
    let usual = Features::default();
    assert_eq!(known("", usual.clone()), ["spiffe://cluster.local/"]);
    let mesh = "{trustDomain: one, trustDomainAliases: [two, one], \
                caCertificates: [{pem: x, trustDomains: [three, two]}, {pem: 'y', trustDomains: ['']}, {pem: z}]}";
    assert_eq!(known(mesh, usual), ["spiffe://one/", "spiffe://two/", "spiffe://three/"]);
}

#[test]
fn clients_of_any_trust_domain_are_let_in_when_istiod_is_told_so() {
    let features = Features { skip_trust_domain: true, ..Features::default() };
    assert!(known("{trustDomain: one, trustDomainAliases: [two]}", features).is_empty());
}
