//! Counts of gRPC's calls and messages in Envoy's own statistics and in the filter state.
//!
//! Istio's proxies make their metrics of messages from it. Our module counts by itself, and by
//! default Envoy keeps no statistics of this filter. So beside the module the filter stands only
//! where somebody may see what it does: each request costs it half of what the module takes.

use proto::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig;
use proto::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::generate::http::filter;
use crate::scope::Scope;
use crate::snapshot::grpc_stats::NAME;

/// The filter. `has_extensions`: users' own code stands in the chain, which may read
/// what it likes.
pub(in crate::generate) fn http(scope: Scope<'_>, has_extensions: bool) -> Option<HttpFilter> {
    let is_idle = scope.proxy.has_module() && !has_extensions && !is_seen(scope);
    (!is_idle).then(|| {
        let config = FilterConfig {
            emit_filter_state: true,
            per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
            ..FilterConfig::default()
        };
        filter(NAME, &config)
    })
}

/// Whether something that is configured may need the filter.
fn is_seen(scope: Scope<'_>) -> bool {
    let snapshot = scope.snapshot;
    let workload = scope.workload();
    scope.proxy.has_own_statistics()
        || snapshot.mesh_names_grpc_stats
        || snapshot.envoy_filters.names_grpc_stats(workload)
        || snapshot.telemetry.applied(workload).names_grpc_stats
}

#[cfg(test)]
mod tests;
