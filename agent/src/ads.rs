//! Envoy's xDS stream, carried to istiod as it is, but for the few types of
//! resources that are meant for the agent.
//!
//! [`proxy`] opens both ends of a stream, [`requests`] and [`responses`] are
//! its two directions, [`splice`] finds the messages in them. Nothing is
//! decoded but what the agent itself takes.

pub mod dial;
pub mod extension;
pub mod health;
pub mod own;
pub mod proxy;
pub mod requests;
pub mod responses;
pub mod shared;
pub mod splice;
pub mod stream;
mod taken;
pub mod wasm;

use std::error::Error;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use proto::istio::networking::nds::v1::NameTable;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::ads::End;
use health::Health;

/// Whether Envoy's xDS stream reaches istiod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// There has been no stream with istiod yet.
    #[default]
    NeverConnected,
    /// istiod answers.
    Connected,
    /// istiod was lost and has not answered since.
    Lost {
        /// When it was lost.
        since: Instant,
    },
}

/// What the agent itself takes from the stream and puts into it. What is
/// `None` is not asked for.
#[derive(Debug, Default)]
pub struct Ends {
    /// Where the names for the DNS proxy go.
    pub names: Option<watch::Sender<Option<Arc<NameTable>>>>,
    /// Where the roots of other trust domains go, PEM each.
    pub roots: Option<watch::Sender<Arc<Vec<String>>>>,
    /// Health that istiod is to know.
    pub health: Option<watch::Receiver<Option<Health>>>,
    /// Where the state of Envoy's stream goes.
    pub link: Option<watch::Sender<Link>>,
    /// What makes extensions ready for Envoy.
    pub extensions: Option<wasm::Fetcher>,
}

/// A gRPC status as headers or trailers.
fn status(code: &'static str, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers
}

/// The end of a gRPC stream that may be tried again.
fn unavailable(message: &'static str) -> HeaderMap {
    status("14", message)
}

/// Why a gRPC stream ended.
fn reason(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    format!("status {} {}", text("grpc-status"), text("grpc-message")).trim_end().to_owned()
}

/// An error with its causes, which alone say what happened.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    // rustls adds where its manual explains it.
    text.split(": https://").next().unwrap_or_default().to_owned()
}

impl End {
    /// How a stream with those trailers has ended: `OK`, `CANCELLED` and
    /// `DEADLINE_EXCEEDED` are nobody's fault.
    fn of_status(trailers: &HeaderMap) -> Self {
        match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
            Some(b"0" | b"1" | b"4") => Self::Cancelled,
            _ => Self::Error,
        }
    }

    /// How a stream has ended whose connection did: `NO_ERROR` says that the
    /// server goes away in order.
    fn of_error(error: &hyper::Error) -> Self {
        if chain(error).contains("not a result of an error") { Self::Cancelled } else { Self::Error }
    }
}
