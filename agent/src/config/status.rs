//! Settings of the status server: what it listens on, what it merges, which
//! probes it passes on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// The status server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its port; 0 picks one.
    pub port: u16,
    /// Envoy's admin port.
    pub admin_port: u16,
    /// Metrics are for this machine only.
    pub metrics_localhost_only: bool,
    /// First address of the pod, which decides the address family.
    pub ip: IpAddr,
    /// There is an Envoy whose readiness counts.
    pub runs_envoy: bool,
    /// The pod is not ready any more when istiod was lost that long ago.
    pub unready_after: Option<Duration>,
    /// Which metrics are joined with the agent's own.
    pub merge: Merge,
    /// Probes of the application; `None` when there are none.
    pub probes: Option<Probes>,
    /// Health of the application that istiod is told of (`readinessProbe`).
    pub health: Option<HealthCheck>,
}

/// Metrics that are joined with the agent's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Envoy's.
    pub envoy: bool,
    /// The application's.
    pub targets: Vec<Target>,
}

/// A source of metrics of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Port on this machine.
    pub port: u16,
    /// Path with its query.
    pub path: String,
}

/// Probes that the kubelet sends to the agent instead of to the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// By the path that the kubelet asks for.
    pub by_path: BTreeMap<String, Probe>,
    /// Where the application is: the pod's address, or `None` for localhost.
    pub destination: Option<IpAddr>,
    /// Connections are kept for the next probe.
    pub keepalive: bool,
    /// HTTP/2 is offered to applications with TLS.
    pub http2: bool,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked of the application.
    pub action: Action,
    /// Longest wait for it; `None` leaves it to the kubelet.
    pub timeout: Option<Duration>,
}

/// What is asked of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// An HTTP request.
    Http {
        /// Over TLS, whatever the certificate.
        is_tls: bool,
        /// Its port.
        port: u16,
        /// Its path, with a slash at the beginning.
        path: String,
    },
    /// A connection.
    Tcp {
        /// Its port.
        port: u16,
    },
    /// The health service of gRPC.
    Grpc {
        /// Its port.
        port: u16,
        /// Name of the service; empty for the server as a whole.
        service: String,
    },
}

/// The application's own readiness probe, for machines outside of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Before the first probe.
    pub initial_delay: Duration,
    /// Longest wait for one.
    pub timeout: Duration,
    /// From one to the next.
    pub period: Duration,
    /// Good ones in a row that make it healthy.
    pub successes: u32,
    /// Bad ones in a row that make it unhealthy.
    pub failures: u32,
    /// What is probed.
    pub check: Check,
}

/// What a readiness probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// An HTTP request.
    Http {
        /// Over TLS, whatever the certificate.
        is_tls: bool,
        /// Host; the machine's own address when `None`.
        host: Option<String>,
        /// Its port.
        port: u16,
        /// Its path, with a slash at the beginning.
        path: String,
        /// Headers of the request.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// A connection.
    Tcp {
        /// Host; the machine's own address when `None`.
        host: Option<String>,
        /// Its port.
        port: u16,
    },
    /// A program, which has to end well.
    Exec(Vec<String>),
    /// The health service of gRPC.
    Grpc {
        /// Its port.
        port: u16,
        /// Name of the service; empty for the server as a whole.
        service: String,
    },
}
