//! Flags of `why`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::proxy_config::ADMIN_PORT;

/// Shown at the end of the help.
pub const EXAMPLES: &str = "Examples: istioctl why web-0.shop --to http://reviews:9080/reviews/1 --header 'end-user: jason'\n          \
    istioctl why web-0.shop --to tcp://db.shop:3306 -o json\n          \
    istioctl why reviews-v1.shop --to http://:9080/ --from-ip 10.0.0.9\n          \
    istioctl why --file web.json --file reviews.json --to http://reviews:9080/\n\n\
    Exit code: 0 when the request arrives, or is answered as somebody configured it; 2 when it is refused, always or at \
    times; 3 when it cannot be told; 1 for errors.";

/// Flags of `why`.
#[derive(Args, Clone, Debug)]
pub struct Why {
    /// Who asks: `[TYPE/]NAME[.NAMESPACE]`; with --from-ip who is asked.
    #[arg(value_name = "POD", required_unless_present = "file")]
    pub pod: Option<String>,
    /// What is asked for: `http://HOST:PORT/PATH`; also https (the client's own TLS), grpc, http2, tcp.
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// Method; GET, or POST for grpc.
    #[arg(short = 'X', long, value_name = "NAME")]
    pub method: Option<String>,
    /// A header of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The request comes to the pod, from a client without a sidecar at this address.
    #[arg(long, value_name = "IP")]
    pub from_ip: Option<IpAddr>,
    /// Address of the host, where the proxy does not know it.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Config dumps instead of a mesh: first of the client, then of others on the way; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "pod")]
    pub file: Vec<PathBuf>,
    /// text, or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    pub output: String,
    /// Port of Envoy's admin pages.
    #[arg(long, default_value_t = ADMIN_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
}
