//! Envoy's messages for a filter of a dynamic module
//! (`envoy/extensions/filters/{http,network}/dynamic_modules/v3`), as far as they are used.

use proto::Any;

/// Name of the module: Envoy looks for `libNAME.so`.
const MODULE: &str = "istio_telemetry";
/// First part of the names of its statistics, as those of Istio's own proxies; what asks for
/// statistics by name (`sidecar.istio.io/statsHistogramBuckets`) names it. Prometheus does not see it.
const NAMESPACE: &str = "istiocustom";
/// Name of the filter inside the module.
const FILTER: &str = "istio.stats";

/// `envoy.extensions.dynamic_modules.v3.DynamicModuleConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DynamicModuleConfig {
    #[prost(string, tag = "1")]
    name: String,
    /// Threads of a module may run on when no filter needs it.
    #[prost(bool, tag = "3")]
    do_not_close: bool,
    #[prost(string, tag = "5")]
    metrics_namespace: String,
}

/// `envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DynamicModuleFilter {
    #[prost(message, optional, tag = "1")]
    dynamic_module_config: Option<DynamicModuleConfig>,
    #[prost(string, tag = "2")]
    filter_name: String,
    #[prost(message, optional, tag = "3")]
    filter_config: Option<Any>,
}

impl prost::Name for DynamicModuleFilter {
    const PACKAGE: &'static str = "envoy.extensions.filters.http.dynamic_modules.v3";
    const NAME: &'static str = "DynamicModuleFilter";
}

/// `envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DynamicModuleNetworkFilter {
    #[prost(message, optional, tag = "1")]
    dynamic_module_config: Option<DynamicModuleConfig>,
    #[prost(string, tag = "2")]
    filter_name: String,
    #[prost(message, optional, tag = "3")]
    filter_config: Option<Any>,
}

impl prost::Name for DynamicModuleNetworkFilter {
    const PACKAGE: &'static str = "envoy.extensions.filters.network.dynamic_modules.v3";
    const NAME: &'static str = "DynamicModuleNetworkFilter";
}

fn module() -> Option<DynamicModuleConfig> {
    Some(DynamicModuleConfig { name: MODULE.into(), do_not_close: true, metrics_namespace: NAMESPACE.into() })
}

/// The filter for requests.
pub(super) fn http(config: Any) -> DynamicModuleFilter {
    DynamicModuleFilter {
        dynamic_module_config: module(),
        filter_name: FILTER.into(),
        filter_config: Some(config),
    }
}

/// The filter for connections.
pub(super) fn network(config: Any) -> DynamicModuleNetworkFilter {
    DynamicModuleNetworkFilter {
        dynamic_module_config: module(),
        filter_name: FILTER.into(),
        filter_config: Some(config),
    }
}
