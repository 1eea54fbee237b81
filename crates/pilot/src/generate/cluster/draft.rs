//! A cluster in the making.

use proto::Any;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use proto::envoy::config::core::v3::{Http1ProtocolOptions, Http2ProtocolOptions};
use proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use proto::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

use super::{dns, of_type};
use crate::protocol::Protocol;

/// Key of the HTTP options of a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster with its HTTP options, which are packed at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) cluster: Cluster,
    pub(super) options: Option<HttpProtocolOptions>,
}

impl Draft {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, options: None }
    }

    /// The HTTP options, which are there from now on.
    pub(super) fn options(&mut self) -> &mut HttpProtocolOptions {
        self.options.get_or_insert_default()
    }

    /// Whether connections go where the client meant them to go.
    pub(super) fn is_original(&self) -> bool {
        self.cluster.cluster_discovery_type == of_type(DiscoveryType::OriginalDst)
    }

    /// Whether Envoy asks DNS for the name in each request.
    pub(super) fn is_dynamic(&self) -> bool {
        matches!(self.cluster.cluster_discovery_type, Some(ClusterDiscoveryType::ClusterType(_)))
    }

    /// The options of HTTP/2, if that is what all connections speak.
    pub(super) fn http2(&mut self) -> Option<&mut Http2ProtocolOptions> {
        match &mut self.options.as_mut()?.upstream_protocol_options {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(options)),
            })) => Some(options),
            _ => None,
        }
    }

    /// HTTP/2 from the start, unless the protocol has been chosen already.
    pub(super) fn set_http2(&mut self) {
        let options = self.options();
        if options.upstream_protocol_options.is_none() {
            options.upstream_protocol_options =
                Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                    protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                        Http2ProtocolOptions::default(),
                    )),
                }));
        }
    }

    /// The protocol that the client used.
    pub(super) fn set_downstream(&mut self) {
        let options = self.options();
        let http1 = match options.upstream_protocol_options.take() {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::HttpProtocolOptions(http1)),
            })) => http1,
            _ => Http1ProtocolOptions::default(),
        };
        options.upstream_protocol_options = Some(use_downstream(http1));
    }

    /// What a port of that protocol speaks. Gateways do not take over the
    /// client's protocol: it is that of the world outside.
    pub(super) fn set_protocol(&mut self, protocol: Protocol, http1: &Http1ProtocolOptions, is_router: bool) {
        if protocol.is_http2() {
            return self.set_http2();
        }
        let is_auto = protocol == Protocol::Auto;
        if (protocol.is_http() || is_auto) && *http1 != Http1ProtocolOptions::default() {
            self.options().upstream_protocol_options = Some(explicit(http1.clone()));
        }
        if is_auto && !is_router {
            self.set_downstream();
        }
    }

    /// The finished cluster.
    pub(super) fn finish(mut self) -> Cluster {
        // Envoy asks for and checks the names of a cluster that resolves them by itself,
        // but not where there are options that do not say so: those it refuses.
        let is_unchecked = self.options.as_ref().is_some_and(|options| {
            let names = options.upstream_http_protocol_options.as_ref();
            !names.is_some_and(|names| names.auto_sni && names.auto_san_validation)
        });
        if self.is_dynamic() && is_unchecked {
            dns::allow_insecure(&mut self);
        }
        if let Some(mut options) = self.options {
            // Envoy refuses options that do not say which protocol to use.
            options
                .upstream_protocol_options
                .get_or_insert_with(|| explicit(Http1ProtocolOptions::default()));
            self.cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.into(), Any::pack(&options));
        }
        self.cluster
    }
}

fn explicit(http1: Http1ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::HttpProtocolOptions(http1)),
    })
}

/// The protocol that the client used.
pub(super) fn use_downstream(http1: Http1ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(http1),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..UseDownstreamHttpConfig::default()
    })
}
