//! Flags of commands that ask istiod.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::switch::Switch as _;

/// Which istiod is asked, and how.
#[derive(Args, Clone, Debug)]
pub struct Xds {
    /// Ask this istiod, not those of the mesh.
    #[arg(long, value_name = "HOST:PORT")]
    pub xds_address: Option<String>,
    /// Labels of the control planes' pods.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "LABELS")]
    pub xds_label: String,
    /// Port of istiod's pods.
    #[arg(long, default_value_t = 15012, value_name = "PORT")]
    pub xds_port: u16,
    /// Name that istiod's certificate must have.
    #[arg(long, value_name = "HOST")]
    pub authority: Option<String>,
    /// Do not verify istiod's certificate: anybody could answer.
    #[arg(long)]
    pub insecure: bool,
    /// Without TLS, to istiod's port 15010.
    #[arg(long)]
    pub plaintext: bool,
    /// Directory of cert-chain.pem, key.pem and root-cert.pem, instead of a token.
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Longest wait for an answer.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = super::duration)]
    pub timeout: Duration,
    /// Revision of the control plane.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub revision: String,
}

/// Flags of `proxy-status`.
#[derive(Args, Debug)]
pub struct ProxyStatus {
    /// Compare what istiod would send this proxy with what its Envoy has: `[TYPE/]NAME[.NAMESPACE]`.
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub proxy: Option<String>,
    /// The same as to name a proxy, which it needs.
    #[arg(long, requires = "proxy")]
    pub diff: bool,
    /// What the proxy's Envoy has, from a file; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "proxy")]
    pub file: Option<PathBuf>,
    /// Port of Envoy's admin pages.
    #[arg(long, default_value_t = super::proxy_config::ADMIN_PORT, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
    /// table, json or yaml.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: String,
    /// 1 for a column of each type, with times.
    #[arg(short, long, default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
    /// A column of each type: CDS, LDS, EDS, RDS, ECDS.
    #[arg(long, conflicts_with = "verbosity")]
    pub by_type: bool,
    /// Read `/debug/syncz` at istiod's monitoring address, without authentication.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["xds_address", "proxy"])]
    pub debug_address: Option<String>,
    /// Of whom it is asked.
    #[command(flatten)]
    pub xds: Xds,
}

/// Flags of `experimental internal-debug`.
#[derive(Args, Debug)]
pub struct InternalDebug {
    /// `PAGE[?QUERY]`, for example syncz or `edsz?proxyID=web-0.shop`.
    #[arg(value_name = "PAGE")]
    pub page: Option<String>,
    /// Tell which pages there are.
    #[arg(short = 'L', long)]
    pub list: bool,
    /// Ask every istiod.
    #[arg(long)]
    pub all: bool,
    /// Of whom it is asked.
    #[command(flatten)]
    pub xds: Xds,
}

/// Flags of `version`.
#[derive(Args, Debug)]
pub struct Version {
    /// Only the numbers.
    #[arg(short, long, default_value_t = true, switch())]
    pub short: bool,
    /// yaml or json.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "FORMAT")]
    pub output: String,
    /// Also of control planes and proxies.
    #[arg(long, default_value_t = true, switch())]
    pub remote: bool,
    /// Of whom it is asked.
    #[command(flatten)]
    pub xds: Xds,
}
