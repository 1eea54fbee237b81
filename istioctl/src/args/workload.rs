//! Flags of `experimental workload`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::switch::Switch as _;

/// Example below the help of `workload group create`.
const CREATE: &str = "Example: istioctl x workload group create --name web --namespace shop --labels app=web,tier=front \
--ports http=8080 --serviceAccount web > group.yaml";
/// Examples below the help of `workload entry configure`.
const CONFIGURE: &str = "Examples:
  # From a file
  istioctl x workload entry configure -f group.yaml -o config
  # From the cluster
  istioctl x workload entry configure --name web --namespace shop -o config";

/// What of workloads.
#[derive(Debug, Subcommand)]
pub enum Workload {
    /// Prepare workloads that are outside of Kubernetes.
    #[command(after_help = "Example: istioctl x workload entry configure -f group.yaml -o config")]
    Entry {
        /// What to do.
        #[command(subcommand)]
        command: Entry,
    },
    /// Write groups of such workloads.
    #[command(after_help = "Example: istioctl x workload group create --name web --namespace shop")]
    Group {
        /// What to do.
        #[command(subcommand)]
        command: Group,
    },
}

/// What is done for a workload.
#[derive(Debug, Subcommand)]
pub enum Entry {
    /// Write the files with which a workload on a plain host joins the mesh: settings,
    /// roots, a token and the address of istiod.
    #[command(after_help = CONFIGURE)]
    Configure(Box<Configure>),
}

/// What is done with groups.
#[derive(Debug, Subcommand)]
pub enum Group {
    /// Print a WorkloadGroup: what workloads that register themselves are like.
    #[command(after_help = CREATE)]
    Create(Create),
}

/// Flags of `experimental workload group create`.
#[derive(Args, Debug)]
pub struct Create {
    /// Name of the group.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub name: String,
    /// Labels of its workloads, NAME=VALUE separated by commas.
    #[arg(short = 'l', long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Their annotations, in the same form.
    #[arg(short = 'a', long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub annotations: Vec<String>,
    /// Their ports, NAME=PORT separated by commas.
    #[arg(short = 'p', long, value_delimiter = ',', value_name = "NAME=PORT")]
    pub ports: Vec<String>,
    /// Their service account.
    #[arg(short = 's', long = "serviceAccount", default_value = "default", value_name = "NAME")]
    pub service_account: String,
    /// Network in which they reach each other.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub network: String,
    /// Where they are: REGION/ZONE/SUBZONE.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PLACE")]
    pub locality: String,
    /// Their share of the requests.
    #[arg(short = 'w', long, default_value_t = 0, hide_default_value = true, value_name = "NUMBER")]
    pub weight: u32,
}

/// Flags of `experimental workload entry configure`.
#[derive(Args, Debug)]
pub struct Configure {
    /// File of the WorkloadGroup; without it, that of --name and --namespace.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Name of the group in the cluster.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub name: String,
    /// Directory of the files that are written.
    #[arg(short = 'o', long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Name of the cluster; that of the injector's settings without it.
    #[arg(long = "clusterID", value_name = "NAME")]
    pub cluster_id: Option<String>,
    /// How long the token is good for, in seconds.
    #[arg(long = "tokenDuration", default_value_t = 3600, value_name = "SECONDS",
        value_parser = clap::value_parser!(i64).range(1..))]
    pub token_duration: i64,
    /// Service of the gateway by which workloads reach istiod, NAME[.NAMESPACE].
    #[arg(long = "ingressService", default_value = "istio-eastwestgateway", value_name = "SERVICE")]
    pub ingress_service: String,
    /// Address of that gateway.
    #[arg(long = "ingressIP", default_value = "", hide_default_value = true, value_name = "IP")]
    pub ingress_ip: String,
    /// The workload registers itself with istiod.
    #[arg(long, default_value_t = false, switch())]
    pub autoregister: bool,
    /// Names are resolved by its agent.
    #[arg(long, default_value_t = true, switch())]
    pub capture_dns: bool,
    /// Address of the workload in its own network.
    #[arg(long = "internalIP", default_value = "", hide_default_value = true, value_name = "IP")]
    pub internal_ip: String,
    /// Address of the workload from elsewhere.
    #[arg(long = "externalIP", default_value = "", hide_default_value = true, value_name = "IP")]
    pub external_ip: String,
    /// Revision of the control plane.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub revision: String,
}
