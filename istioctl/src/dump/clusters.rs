//! What Envoy's admin page `/clusters?format=json` says: endpoints as they are
//! used right now, with their health.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use super::view::{Address, Locality};
use crate::json::{Text, Value};

/// The clusters of a proxy, each still as text.
///
/// # Errors
/// When it is no JSON of that page. A dump of something else has none.
pub fn parse(text: &str) -> Result<Vec<&RawValue>, Error> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow, alias = "clusterStatuses", default)]
        cluster_statuses: Vec<&'a RawValue>,
    }
    let page: Page<'_> = serde_json::from_str(text).map_err(Error::Json)?;
    Ok(page.cluster_statuses)
}

/// All of a cluster.
///
/// # Errors
/// Never for what [`parse`] has cut out.
pub fn value(raw: &RawValue) -> Result<Value<'_>, Error> {
    serde_json::from_str(raw.get()).map_err(Error::Json)
}

/// A cluster and its endpoints: `envoy.admin.v3.ClusterStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Its endpoints.
    #[serde(borrow, alias = "hostStatuses")]
    pub host_statuses: Vec<Host<'a>>,
}

impl<'a> Status<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// When it is of another form.
    pub fn read(raw: &'a RawValue) -> Result<Self, Error> {
        serde_json::from_str(raw.get()).map_err(|source| Error::Part { what: "a cluster's state", source })
    }
}

/// An endpoint: `envoy.admin.v3.HostStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Host<'a> {
    /// How it is reached.
    #[serde(borrow)]
    pub address: Address<'a>,
    /// How it is.
    #[serde(borrow, alias = "healthStatus")]
    pub health_status: Health<'a>,
    /// 0 is used first.
    pub priority: u32,
    /// Its share of the requests; 1 without it.
    pub weight: Option<u32>,
    /// Where it is.
    #[serde(borrow)]
    pub locality: Locality<'a>,
    /// Name of its host, if it has one.
    #[serde(borrow)]
    pub hostname: Text<'a>,
}

/// How an endpoint is: `envoy.admin.v3.HostHealthStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Health<'a> {
    /// What istiod says.
    #[serde(borrow, alias = "edsHealthStatus")]
    pub eds_health_status: Text<'a>,
    /// Whether it was ejected because requests failed.
    #[serde(alias = "failedOutlierCheck")]
    pub failed_outlier_check: bool,
    /// Whether its health check failed.
    #[serde(alias = "failedActiveHealthCheck")]
    pub failed_active_health_check: bool,
    /// Whether its first health check is not over.
    #[serde(alias = "pendingActiveHc")]
    pub pending_active_hc: bool,
}

impl Host<'_> {
    /// IP address, path of a socket, or listener.
    #[must_use]
    pub fn place(&self) -> String {
        let Address { socket_address, pipe, envoy_internal_address, .. } = &self.address;
        if let Some(socket) = socket_address {
            return socket.address.to_string();
        }
        if let Some(pipe) = pipe {
            return format!("unix://{}", pipe.path);
        }
        let internal = envoy_internal_address.as_ref();
        match internal.and_then(|internal| Some((internal.server_listener_name.as_ref()?, internal))) {
            Some((listener, internal)) => format!("envoy://{listener}/{}", internal.endpoint_id),
            None => "unknown".into(),
        }
    }

    /// Its port; 0 if it has none.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.address.socket_address.as_ref().map_or(0, |socket| socket.port_value)
    }

    /// `UNKNOWN` if istiod says nothing.
    #[must_use]
    pub fn health(&self) -> &str {
        let health = &self.health_status.eds_health_status;
        if health.is_empty() { "UNKNOWN" } else { health }
    }
}
