//! Flags of `proxy-config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::switch::Switch as _;

/// Port of Envoy's admin pages.
pub const ADMIN_PORT: u16 = 15000;

/// Flags of `proxy-config`.
#[derive(Args, Debug)]
pub struct ProxyConfig {
    /// Port of Envoy's admin pages.
    #[arg(long, global = true, default_value_t = ADMIN_PORT, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
    /// Of what.
    #[command(subcommand)]
    pub kind: Kind,
}

/// What of a proxy is shown.
#[derive(Debug, Subcommand)]
pub enum Kind {
    /// Everything.
    #[command(visible_alias = "a", after_help = "Example: istioctl proxy-config all --file config_dump.json")]
    All(All),
    /// How the proxy was started.
    #[command(
        visible_alias = "b",
        after_help = "Example: istioctl proxy-config bootstrap web-0.shop -o short"
    )]
    Bootstrap(Bootstrap),
    /// Where requests can go.
    #[command(
        visible_aliases = ["clusters", "c"],
        after_help = "Example: istioctl proxy-config clusters deployment/web.shop --port 9080 --direction outbound"
    )]
    Cluster(Cluster),
    /// Filters that are discovered by themselves.
    #[command(visible_alias = "ec", after_help = "Example: istioctl proxy-config ecds web-0.shop -o yaml")]
    Ecds(Plain),
    /// Endpoints as istiod has sent them, with localities.
    #[command(hide = true, after_help = "Example: istioctl proxy-config eds web-0.shop --port 9080")]
    Eds(Endpoint),
    /// Endpoints as they are used, with their health.
    #[command(
        visible_aliases = ["endpoints", "ep"],
        after_help = "Example: istioctl proxy-config endpoints web-0.shop --status healthy\n\
                      Of a file: curl localhost:15000/clusters?format=json > clusters.json, then --file clusters.json"
    )]
    Endpoint(Endpoint),
    /// Which connections are taken, and what is done with them.
    #[command(
        visible_aliases = ["listeners", "l"],
        after_help = "Example: istioctl proxy-config listeners web-0.shop --type HTTP --port 9080 -o json"
    )]
    Listener(Listener),
    /// Show and change what the proxy logs.
    #[command(
        visible_alias = "o",
        after_help = "Example: istioctl proxy-config log deployment/web.shop --level http:debug,rbac:debug"
    )]
    Log(Log),
    /// Whether two proxies have a root in common.
    #[command(
        visible_alias = "rc",
        after_help = "Example: istioctl proxy-config rootca-compare web-0.shop db-0.shop"
    )]
    RootcaCompare(RootcaCompare),
    /// Which requests go where.
    #[command(
        visible_aliases = ["routes", "r"],
        after_help = "Example: istioctl proxy-config routes web-0.shop --name 9080"
    )]
    Route(Route),
    /// Certificates and roots.
    #[command(visible_aliases = ["secrets", "s"], after_help = "Example: istioctl proxy-config secret web-0.shop")]
    Secret(Plain),
}

/// Which proxy is meant.
#[derive(Args, Debug)]
pub struct Target {
    /// `POD[.NAMESPACE]`, or `deployment/NAME[.NAMESPACE]`, `svc/NAME[.NAMESPACE]`, ...
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub proxy: Option<String>,
    /// What Envoy's admin page answered, instead of asking a proxy; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// How it is shown.
#[derive(Args, Debug)]
pub struct Output {
    /// short, json or yaml.
    #[arg(short, long, default_value = "short", value_name = "FORMAT")]
    pub output: String,
}

/// Flags of what has no filters.
#[derive(Args, Debug)]
pub struct Plain {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// How.
    #[command(flatten)]
    pub output: Output,
}

/// Flags of `bootstrap`.
#[derive(Args, Debug)]
pub struct Bootstrap {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// json, yaml, or short for the versions only.
    #[arg(short, long, default_value = "json", value_name = "FORMAT")]
    pub output: String,
}

/// Which clusters.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterFilter {
    /// Only with this text in their name, as the host.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "HOST")]
    pub fqdn: String,
    /// Only with this text in their name, as the direction: inbound, outbound.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "DIRECTION")]
    pub direction: String,
    /// Only with this text in their name, as the subset.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub subset: String,
}

/// Flags of `cluster`.
#[derive(Args, Debug)]
pub struct Cluster {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// How.
    #[command(flatten)]
    pub output: Output,
    /// Which.
    #[command(flatten)]
    pub filter: ClusterFilter,
    /// Only of this port.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "PORT")]
    pub port: u32,
}

/// A line for each filter chain and route, or for each resource.
#[derive(Args, Clone, Copy, Debug)]
pub struct Verbose {
    /// Show each match, not only a line for each resource.
    #[arg(long, default_value_t = true, switch())]
    pub verbose: bool,
}

/// Flags of `listener`.
#[derive(Args, Debug)]
pub struct Listener {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// How.
    #[command(flatten)]
    pub output: Output,
    /// Only with this address.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "IP")]
    pub address: String,
    /// Only with this port.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "PORT")]
    pub port: u32,
    /// Only HTTP, TCP, HTTP+TCP or UNKNOWN.
    #[arg(long = "type", default_value = "", hide_default_value = true, value_name = "TYPE")]
    pub kind: String,
    /// How much.
    #[command(flatten)]
    pub verbose: Verbose,
}

/// Flags of `route`.
#[derive(Args, Debug)]
pub struct Route {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// How.
    #[command(flatten)]
    pub output: Output,
    /// Only of this name.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub name: String,
    /// How much.
    #[command(flatten)]
    pub verbose: Verbose,
}

/// Flags of `endpoint`.
#[derive(Args, Debug)]
pub struct Endpoint {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// How.
    #[command(flatten)]
    pub output: Output,
    /// Which.
    #[command(flatten)]
    pub filter: EndpointFilter,
}

/// Which endpoints.
#[derive(Args, Clone, Debug, Default)]
pub struct EndpointFilter {
    /// Only with this address.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "IP")]
    pub address: String,
    /// Only with this port.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "PORT")]
    pub port: u32,
    /// Only of this cluster.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub cluster: String,
    /// Only of this health: healthy, unhealthy, draining, ...
    #[arg(long, default_value = "", hide_default_value = true, value_name = "STATUS")]
    pub status: String,
}

/// Flags of `all`.
#[derive(Args, Debug)]
pub struct All {
    /// Of whom.
    #[command(flatten)]
    pub target: Target,
    /// How.
    #[command(flatten)]
    pub output: Output,
    /// Say what each table is.
    #[arg(long)]
    pub with_headers: bool,
    /// Which clusters.
    #[command(flatten)]
    pub cluster: ClusterFilter,
    /// Only clusters, listeners and endpoints of this port.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "PORT")]
    pub port: u32,
    /// Only listeners and endpoints with this address.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "IP")]
    pub address: String,
    /// Only listeners of this type.
    #[arg(long = "type", default_value = "", hide_default_value = true, value_name = "TYPE")]
    pub kind: String,
    /// Only routes of this name.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub name: String,
    /// How much.
    #[command(flatten)]
    pub verbose: Verbose,
}

/// Flags of `log`.
#[derive(Args, Debug)]
pub struct Log {
    /// `POD[.NAMESPACE]`, or `deployment/NAME[.NAMESPACE]`, ...
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub proxy: Option<String>,
    /// All pods with these labels.
    #[arg(short = 'l', long, default_value = "", hide_default_value = true, value_name = "LABELS")]
    pub selector: String,
    /// `[LOGGER:]LEVEL,...`: trace, debug, info, warning, error, critical or off.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "LEVELS")]
    pub level: String,
    /// Back to what the proxy was started with, else warning.
    #[arg(short, long)]
    pub reset: bool,
    /// Not applicable.
    #[arg(short, long, default_value = "short", hide = true, value_name = "FORMAT")]
    pub output: String,
}

/// Flags of `rootca-compare`.
#[derive(Args, Debug)]
pub struct RootcaCompare {
    /// The two proxies.
    #[arg(value_name = "[pod/]NAME[.NAMESPACE]")]
    pub proxies: Vec<String>,
}

/// Flags of `experimental envoy-stats`.
#[derive(Args, Debug)]
pub struct EnvoyStats {
    /// `POD[.NAMESPACE]`, or `deployment/NAME[.NAMESPACE]`, ...
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub proxy: Option<String>,
    /// All pods with these labels.
    #[arg(short = 'l', long, default_value = "", hide_default_value = true, value_name = "LABELS")]
    pub selector: String,
    /// Of what: server or clusters.
    #[arg(short = 't', long = "type", default_value = "server", value_name = "TYPE")]
    pub kind: String,
    /// short, json, yaml, prom, or prom-merged for the application's, too.
    #[arg(short, long, default_value = "short", value_name = "FORMAT")]
    pub output: String,
    /// Port of Envoy's admin pages.
    #[arg(long, default_value_t = ADMIN_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
}
