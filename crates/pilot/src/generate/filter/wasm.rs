//! Extensions that users bring (WasmPlugin, TrafficExtension). Modules come by
//! themselves (ECDS), so that a change of one does not touch listeners.

use proto::Any;
use proto::envoy::config::core::v3::{DataSource, ExtensionConfigSource, data_source};
use proto::envoy::config::listener::v3::{Filter, filter};
use proto::envoy::extensions::filters::http::lua::v3::Lua;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use proto::envoy::extensions::filters::{http, network};
use proto::istio::extensions::v1alpha1::traffic_extension::ExecutionPhase;
use proto::name::type_url;

use super::{Direction, Place};
use crate::generate::message::ads;
use crate::scope::Scope;
use crate::snapshot::wasm::{Code, Extension};

/// Where among the filters an extension stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::generate) enum Phase {
    /// Before tokens are checked.
    Authn,
    /// Before authorization.
    Authz,
    /// Before request metrics.
    Stats,
    /// After all of them.
    Unspecified,
}

/// Filters for requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>, phase: Phase) -> Vec<HttpFilter> {
    let extensions = of(scope, place, phase).filter(|extension| !extension.is_network());
    extensions
        .map(|extension| HttpFilter {
            name: extension.resource(),
            config_type: Some(match &extension.code {
                Code::Lua(script) => http_filter::ConfigType::TypedConfig(Any::pack(&lua(script))),
                Code::Wasm(_) => http_filter::ConfigType::ConfigDiscovery(by_itself([
                    type_url::<http::wasm::v3::Wasm>(),
                    // What the agent puts in the place of a module that cannot be had.
                    type_url::<http::rbac::v3::Rbac>(),
                ])),
            }),
            ..HttpFilter::default()
        })
        .collect()
}

/// Filters for connections.
pub(in crate::generate) fn network(scope: Scope<'_>, place: Place<'_>, phase: Phase) -> Vec<Filter> {
    let extensions = of(scope, place, phase).filter(|extension| extension.is_network());
    extensions
        .map(|extension| Filter {
            name: extension.resource(),
            config_type: Some(filter::ConfigType::ConfigDiscovery(by_itself([
                type_url::<network::wasm::v3::Wasm>(),
                type_url::<network::rbac::v3::Rbac>(),
            ]))),
        })
        .collect()
}

fn of<'a>(scope: Scope<'a>, place: Place<'_>, phase: Phase) -> impl Iterator<Item = &'a Extension> {
    let phase = match phase {
        Phase::Authn => ExecutionPhase::Authn,
        Phase::Authz => ExecutionPhase::Authz,
        Phase::Stats => ExecutionPhase::Stats,
        Phase::Unspecified => ExecutionPhase::Unspecified,
    };
    let extensions = &scope.snapshot.extensions;
    let found = if extensions.is_empty() {
        Vec::new()
    } else {
        let workload = scope.workload();
        extensions.select(workload, phase, place.direction == Direction::Inbound, place.port)
    };
    found.into_iter().map(|extension| &**extension)
}

fn lua(script: &str) -> Lua {
    Lua {
        default_source_code: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(script.into())),
            ..DataSource::default()
        }),
        ..Lua::default()
    }
}

/// The listener waits for it: it may be what keeps requests out.
fn by_itself(type_urls: [String; 2]) -> ExtensionConfigSource {
    ExtensionConfigSource {
        config_source: Some(ads()),
        type_urls: type_urls.into(),
        ..ExtensionConfigSource::default()
    }
}
