//! Flags of `create-remote-secret` and `remote-clusters`.

use clap::Args;

use super::switch::Switch as _;
use super::xds::Xds;

/// Examples below the help of `create-remote-secret`.
pub const EXAMPLES: &str = "Examples:
  # Let the cluster of c1.yaml read that of c0.yaml
  istioctl --kubeconfig=c0.yaml create-remote-secret --name c0 | kubectl --kubeconfig=c1.yaml apply -f -
  # No more
  istioctl --kubeconfig=c0.yaml create-remote-secret --name c0 | kubectl --kubeconfig=c1.yaml delete -f -
  # With a plugin for authentication, in place of a token
  istioctl --kubeconfig=c0.yaml create-remote-secret --name c0 --auth-type=plugin --auth-plugin-name=gcp";

/// Flags of `create-remote-secret`.
#[derive(Args, Debug)]
pub struct CreateRemoteSecret {
    /// Name of this cluster; the UID of its namespace kube-system without one.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub name: String,
    /// For whom the credentials are: remote (a control plane in another cluster, which only reads)
    /// or config (one that has its configuration here).
    #[arg(long = "type", default_value = "remote", value_name = "TYPE")]
    pub kind: String,
    /// Whose credentials; istio-reader-service-account for remote, istiod for config.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub service_account: String,
    /// Make the service account if it is not there, with the right to read.
    #[arg(long, default_value_t = true, switch())]
    pub create_service_account: bool,
    /// Secret of the service account with the token, when there are several.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub secret_name: String,
    /// Address of the API server for who is elsewhere; that of the kubeconfig without it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "URL")]
    pub server: String,
    /// Name that the API server's certificate must have.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "HOST")]
    pub tls_server_name: String,
    /// bearer-token or plugin.
    #[arg(long, default_value = "bearer-token", value_name = "TYPE")]
    pub auth_type: String,
    /// Name of the plugin.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub auth_plugin_name: String,
    /// Settings of the plugin, NAME=VALUE separated by commas; may be repeated.
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub auth_plugin_config: Vec<String>,
}

/// Flags of `remote-clusters`.
#[derive(Args, Debug)]
pub struct RemoteClusters {
    /// Of whom it is asked.
    #[command(flatten)]
    pub xds: Xds,
}
