//! How the connections of a cluster are secured.

use std::collections::BTreeSet;

use names::SpiffeId;
use proto::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use proto::envoy::config::core::v3::{ProxyProtocolConfig, TransportSocket};
use proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::traffic_policy::ProxyProtocol;
use proto::istio::networking::v1alpha3::{ClientTlsSettings, TrafficPolicy};

use super::draft::Draft;
use super::{dns, policy};
use crate::generate::message::{structure, text, transport_socket};
use crate::generate::tls;
use crate::generate::tls::client::{Origin, Source};
use crate::proxy::ProxyKind;
use crate::scope::Scope;
use crate::snapshot::destination_rule::Rule;
use crate::snapshot::{MtlsMode, Port, Registry, Resolution, Service};

/// Who the servers may be: the accounts of all workloads of the service,
/// whichever port they serve, and the names that a ServiceEntry gives, in every
/// trust domain of the mesh.
pub(in crate::generate) fn identities(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let mesh = &scope.snapshot.mesh;
    let mut accounts = BTreeSet::new();
    for endpoint in service.endpoints.iter() {
        accounts.insert((endpoint.namespace.as_str(), endpoint.service_account.as_str()));
    }
    let of_account = |(namespace, account): &(&str, &str)| {
        let id = format!("spiffe://{}/ns/{namespace}/sa/{account}", mesh.trust_domain());
        if account.is_empty() { None } else { id.parse::<SpiffeId>().ok() }
    };
    let mut all: BTreeSet<String> = service.subject_alt_names.iter().cloned().collect();
    let given: Vec<SpiffeId> = all.iter().filter_map(|name| name.parse().ok()).collect();
    for id in accounts.iter().filter_map(of_account).chain(given) {
        all.insert(id.to_string());
        for alias in &mesh.trust_domain_aliases {
            all.insert(format!("spiffe://{alias}/ns/{}/sa/{}", id.namespace, id.service_account));
        }
    }
    all.into_iter().collect()
}

/// What decides on the security of one cluster.
#[derive(Clone, Copy)]
pub(super) struct Security<'a> {
    pub(super) scope: Scope<'a>,
    /// `None` for servers that no service names.
    pub(super) service: Option<&'a Service>,
    pub(super) rule: Option<&'a Rule>,
    /// Who the servers may be.
    pub(super) identities: &'a [String],
    /// Settings of the rule, if it has any.
    pub(super) settings: Option<&'a ClientTlsSettings>,
    /// Name that servers of the mesh are asked for.
    pub(super) sni: &'a str,
    /// Whether mutual TLS of the mesh is used where nothing is said.
    pub(super) is_auto: bool,
}

/// Whether servers of a service can be expected to take mutual TLS of the mesh.
/// `policy` is that of the rule or the subset the cluster is for.
pub(super) fn is_auto(
    scope: Scope<'_>,
    service: &Service,
    port: &Port,
    policy: Option<&TrafficPolicy>,
) -> bool {
    if service.is_external || !scope.snapshot.mesh.has_auto_mtls() {
        return false;
    }
    // Where the client chooses the server all of them must take it.
    if service.resolution == Resolution::Passthrough || policy::is_passthrough(policy) {
        let mut endpoints = service.endpoints_of(port).peekable();
        if endpoints.peek().is_none() || !endpoints.all(|endpoint| endpoint.has_sidecar) {
            return false;
        }
    }
    scope.snapshot.authn.namespace_mode(&service.namespace) != MtlsMode::Disable
}

impl<'a> Security<'a> {
    /// Secures the cluster.
    pub(super) fn apply(self, draft: &mut Draft) {
        let says = |key| self.scope.proxy.says(key);
        let own = (!says("TLS_CLIENT_CERT_CHAIN").is_empty()).then(|| {
            Source::Files(says("TLS_CLIENT_CERT_CHAIN"), says("TLS_CLIENT_KEY"), says("TLS_CLIENT_ROOT_CERT"))
        });
        let Some(settings) = self.settings else {
            if self.is_auto {
                match own {
                    Some(source) => {
                        let origin = Origin {
                            sni: self.sni,
                            names: self.identities,
                            source,
                            is_mutual: true,
                            ..Origin::default()
                        };
                        self.originate(draft, origin);
                    }
                    None => self.mesh(draft, self.sni, self.identities, true),
                }
            }
            return;
        };
        let origin = Origin {
            sni: &settings.sni,
            names: &settings.subject_alt_names,
            trusts_all: settings.insecure_skip_verify.as_ref().is_some_and(|skip| skip.value),
            ..Origin::default()
        };
        match (settings.mode(), own) {
            (TlsMode::Disable, _) => {}
            // Certificates of the proxy's own stand for those of the mesh.
            (TlsMode::Mutual | TlsMode::IstioMutual, Some(source))
                if self.service.is_some_and(|service| !service.is_external) =>
            {
                self.originate(draft, Origin { source, is_mutual: true, ..origin });
            }
            (TlsMode::IstioMutual, _) => {
                let sni = if settings.sni.is_empty() { self.sni } else { &settings.sni };
                let names = if settings.subject_alt_names.is_empty() {
                    self.identities
                } else {
                    &settings.subject_alt_names
                };
                self.mesh(draft, sni, names, false);
            }
            (mode @ (TlsMode::Simple | TlsMode::Mutual), _) => {
                let source = match settings.credential_name.as_str() {
                    "" => Source::Files(
                        &settings.client_certificate,
                        &settings.private_key,
                        &settings.ca_certificates,
                    ),
                    name => Source::Credential(name),
                };
                let is_mutual = mode == TlsMode::Mutual;
                let origin = Origin { source, is_mutual, revoked: &settings.ca_crl, ..origin };
                self.originate(draft, origin);
            }
        }
    }

    /// Mutual TLS of the mesh; `by_endpoint`: with those endpoints that take it.
    fn mesh(self, draft: &mut Draft, sni: &str, names: &[String], by_endpoint: bool) {
        let socket = tls::client::mesh(sni, names, draft.http2().is_some());
        if draft.is_dynamic() {
            set_automatic(draft, sni, false, false);
        }
        if !by_endpoint || draft.is_original() {
            draft.cluster.transport_socket = Some(socket);
            return;
        }
        draft.cluster.transport_socket_matches = vec![
            TransportSocketMatch {
                name: "tlsMode-istio".into(),
                r#match: Some(structure([("tlsMode", text("istio"))])),
                transport_socket: Some(socket),
            },
            TransportSocketMatch {
                name: "tlsMode-disabled".into(),
                r#match: Some(structure([])),
                transport_socket: Some(tls::plaintext()),
            },
        ];
    }

    /// TLS to any server.
    fn originate(self, draft: &mut Draft, mut origin: Origin<'a>) {
        if let Source::Credential(name) = origin.source {
            let is_public = name.starts_with("configmap://");
            let selects = self.rule.is_some_and(|rule| rule.selector.is_some());
            // Secrets are for gateways, and for those workloads that a rule is
            // made for; all others take the rule as if it had no TLS. What the
            // mesh says of servers that it does not know is meant for everybody.
            let is_of_rule = self.service.is_some();
            if is_of_rule && !is_public && self.scope.proxy.kind == ProxyKind::Sidecar && !selects {
                return;
            }
        }
        origin.is_http2 = draft.http2().is_some();
        set_automatic(draft, origin.sni, origin.trusts_all, !origin.names.is_empty());
        let registry = self.service.map(|service| service.registry);
        if registry == Some(Registry::External) && origin.names.is_empty() {
            origin.names = self.identities;
        }
        match tls::client::origin(self.scope, &origin) {
            Some(socket) => draft.cluster.transport_socket = Some(socket),
            // Never plaintext where TLS was asked for.
            None => super::close(&mut draft.cluster),
        }
    }
}

/// Lets Envoy ask for, and check, the name in each request where the rule
/// gives none.
fn set_automatic(draft: &mut Draft, sni: &str, trusts_all: bool, has_names: bool) {
    let asks = sni.is_empty();
    let checks = !trusts_all && (draft.is_dynamic() || (asks && !has_names));
    if draft.is_dynamic() && !(asks && checks) {
        dns::allow_insecure(draft);
    }
    if asks || checks {
        let options = draft.options().upstream_http_protocol_options.get_or_insert_default();
        options.auto_sni |= asks;
        options.auto_san_validation |= checks;
    }
}

/// Begins each connection with a line that says who the client is.
pub(super) fn wrap(draft: &mut Draft, protocol: &ProxyProtocol) {
    let wrapped = |inner: Option<TransportSocket>| {
        let config = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig {
                // The numbers of both enumerations are the same.
                version: protocol.version,
                ..ProxyProtocolConfig::default()
            }),
            transport_socket: Some(inner.unwrap_or_else(tls::plaintext)),
            ..ProxyProtocolUpstreamTransport::default()
        };
        Some(transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &config))
    };
    let cluster = &mut draft.cluster;
    if cluster.transport_socket_matches.is_empty() {
        cluster.transport_socket = wrapped(cluster.transport_socket.take());
    }
    for matcher in &mut cluster.transport_socket_matches {
        matcher.transport_socket = wrapped(matcher.transport_socket.take());
    }
}
