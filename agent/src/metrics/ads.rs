//! Counters of xDS streams.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order.
    Cancelled,
    /// By a fault.
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    r#type: &'static str,
}

/// How streams end, and what is not passed on.
#[derive(Debug)]
pub struct Ads {
    istiod: Family<Labels, Counter>,
    envoy: Family<Labels, Counter>,
    dropped: Counter,
}

impl Ads {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (istiod, envoy, dropped) = (Family::default(), Family::default(), Counter::default());
        registry.register(
            "istiod_connection_terminations",
            "xDS streams that istiod ended",
            Clone::clone(&istiod),
        );
        registry.register(
            "envoy_connection_terminations",
            "xDS streams that Envoy ended",
            Clone::clone(&envoy),
        );
        registry.register(
            "xds_proxy_responses_dropped",
            "Responses of istiod of a type that Envoy does not know",
            dropped.clone(),
        );
        Self { istiod, envoy, dropped }
    }

    /// istiod ended a stream.
    pub fn istiod_ended(&self, end: End) {
        self.istiod.get_or_create(&Labels { r#type: label(end) }).inc();
    }

    /// Envoy ended a stream.
    pub fn envoy_ended(&self, end: End) {
        self.envoy.get_or_create(&Labels { r#type: label(end) }).inc();
    }

    /// A response is not passed on.
    pub fn dropped(&self) {
        self.dropped.inc();
    }
}

fn label(end: End) -> &'static str {
    match end {
        End::Cancelled => "cancelled",
        End::Error => "error",
    }
}
