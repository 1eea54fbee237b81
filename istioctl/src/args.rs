//! The command line: one file for each command that has more than a few flags.

pub mod admin;
pub mod analyze;
pub mod authz;
pub mod bug_report;
pub mod dashboard;
pub mod describe;
pub mod examples;
pub mod graph;
pub mod injection;
pub mod kube_inject;
pub mod metrics;
pub mod precheck;
pub mod proxy_config;
pub mod remote;
mod switch;
pub mod tag;
pub mod validate;
pub mod wait;
pub mod why;
pub mod workload;
pub mod xds;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Asks and checks an Istio mesh.
#[derive(Debug, Parser)]
#[command(
    name = "istioctl",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Example: istioctl proxy-status"
)]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Change a control plane while it runs.
    #[command(visible_alias = "istiod", after_help = "Example: istioctl admin log --level ads:debug")]
    Admin(admin::Admin),
    /// Say what is wrong with the objects of a mesh when they are looked at together.
    #[command(after_help = analyze::EXAMPLES)]
    Analyze(Box<analyze::Analyze>),
    /// Write an archive of what is needed to look for a fault from elsewhere, without what is secret.
    #[command(after_help = bug_report::EXAMPLES)]
    BugReport(Box<bug_report::BugReport>),
    /// Print what a shell needs to complete this command line.
    #[command(after_help = "Example: istioctl completion bash > /etc/bash_completion.d/istioctl")]
    Completion {
        /// bash, zsh, fish or powershell.
        shell: clap_complete::Shell,
    },
    /// Print a Secret by which a control plane in another cluster reads this one. istiod of this
    /// project reads its own cluster only: it is for Istio's.
    #[command(after_help = remote::EXAMPLES)]
    CreateRemoteSecret(remote::CreateRemoteSecret),
    /// Lead a local port to a page inside of the mesh, and open it.
    #[command(visible_aliases = ["dash", "d"], after_help = "Example: istioctl dashboard envoy web-0.shop")]
    Dashboard(dashboard::Dashboard),
    /// What is new and may still change.
    #[command(
        visible_aliases = ["x", "exp"],
        after_help = "Example: istioctl x internal-debug --list"
    )]
    Experimental {
        /// What to do.
        #[command(subcommand)]
        command: Experimental,
    },
    /// Draw the workloads of the mesh, how they are secured and the traffic between them.
    #[command(after_help = graph::EXAMPLES)]
    Graph(graph::Graph),
    /// Put sidecars into the workloads of a file.
    #[command(
        after_help = "Example: istioctl kube-inject -f app.yaml --valuesFile values.yaml | kubectl apply -f -"
    )]
    KubeInject(kube_inject::KubeInject),
    /// Show what the Envoy of a pod has.
    #[command(visible_alias = "pc", after_help = "Example: istioctl proxy-config listeners web-0.shop")]
    ProxyConfig(proxy_config::ProxyConfig),
    /// Show what each proxy was sent and has accepted, or how it differs from what istiod would send.
    #[command(
        visible_alias = "ps",
        after_help = "Examples: istioctl proxy-status --by-type\n          istioctl proxy-status web-0.shop\n          \
                      istioctl proxy-status --xds-address istiod.example.org:15012 --cert-dir ~/.istio-certs"
    )]
    ProxyStatus(xds::ProxyStatus),
    /// List the clusters that each istiod reads. That of this project reads its own only.
    #[command(after_help = "Example: istioctl remote-clusters")]
    RemoteClusters(remote::RemoteClusters),
    /// Let names stand for revisions of the control plane.
    #[command(after_help = "Example: istioctl tag list")]
    Tag(tag::Tag),
    /// Check files of Kubernetes and Istio objects.
    #[command(visible_alias = "v", after_help = "Example: istioctl validate -f samples/bookinfo")]
    Validate(validate::Validate),
    /// Print the versions of this program, of control planes and of proxies.
    #[command(after_help = "Example: istioctl version --remote=false -o json")]
    Version(xds::Version),
    /// Say what a request meets on its way, and what would refuse it.
    #[command(after_help = why::EXAMPLES)]
    Why(why::Why),
}

/// Commands that may still change.
#[derive(Debug, Subcommand)]
pub enum Experimental {
    /// Look at the policies of proxies.
    #[command(after_help = authz::EXAMPLES)]
    Authz {
        /// What to do.
        #[command(subcommand)]
        command: authz::Authz,
    },
    /// Say whether a pod is injected, or would be, and why.
    #[command(after_help = injection::EXAMPLES)]
    CheckInject(injection::CheckInject),
    /// Describe a pod or Service and the configuration that it is under.
    #[command(visible_alias = "des", after_help = describe::EXAMPLES)]
    Describe {
        /// What.
        #[command(subcommand)]
        command: describe::Describe,
    },
    /// Show the metrics of proxies.
    #[command(visible_alias = "es", after_help = "Example: istioctl x envoy-stats web-0.shop -o prom-merged")]
    EnvoyStats(proxy_config::EnvoyStats),
    /// Say who injects which pods.
    #[command(after_help = "Example: istioctl x injector list")]
    Injector {
        /// What to do.
        #[command(subcommand)]
        command: injection::Injector,
    },
    /// Show a debug page of istiod.
    #[command(after_help = "Example: istioctl x internal-debug 'config_dump?proxyID=web-0.shop'")]
    InternalDebug(xds::InternalDebug),
    /// Show rates and latencies of workloads, as Prometheus has them.
    #[command(visible_alias = "m", after_help = metrics::EXAMPLES)]
    Metrics(metrics::Metrics),
    /// Say whether Istio can be installed or upgraded.
    #[command(after_help = precheck::EXAMPLES)]
    Precheck(precheck::Precheck),
    /// Wait until the proxies have an object as it is now.
    #[command(after_help = wait::EXAMPLES)]
    Wait(wait::Wait),
    /// Prepare workloads that are outside of Kubernetes, and groups of them.
    #[command(after_help = "Example: istioctl x workload group create --name web --namespace shop")]
    Workload {
        /// What to do.
        #[command(subcommand)]
        command: workload::Workload,
    },
}

/// Flags of all commands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Kubernetes configuration file.
    #[arg(short = 'c', long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of that file.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubernetes namespace.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Namespace of the control plane.
    #[arg(
        short,
        long = "istioNamespace",
        global = true,
        default_value = "istio-system",
        value_name = "NAME"
    )]
    pub istio_namespace: String,
    /// User to impersonate.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Group to impersonate; may be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_group: Vec<String>,
    /// UID to impersonate.
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub as_uid: Option<String>,
    /// Longest wait for an answer of Kubernetes.
    #[arg(
        long = "kubeclient-timeout",
        global = true,
        default_value = "15s",
        value_name = "TIME",
        value_parser = duration
    )]
    pub kubeclient_timeout: std::time::Duration,
    /// From 6 on, what is asked of Kubernetes and Envoy is told on standard error.
    #[arg(long, global = true, default_value_t = 0, value_name = "LEVEL")]
    pub vklog: u8,
    /// File that names the pods of a mesh without Kubernetes.
    #[arg(long, global = true, env = "ISTIOCTL_MESH", value_name = "FILE")]
    pub mesh: Option<PathBuf>,
}

/// The longest time that Go knows, nanoseconds in 63 bits.
const LONGEST: std::time::Duration = std::time::Duration::from_nanos(i64::MAX as u64);

/// A time as Go writes it: `1m30s`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("{text:?} is no time; write for example 15s or 1m30s");
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit_end = rest[end..]
            .find(|letter: char| letter == '.' || letter.is_ascii_digit())
            .map_or(rest.len(), |more| end + more);
        total += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = &rest[unit_end..];
    }
    let told = std::time::Duration::try_from_secs_f64(total).map_err(|_| wrong())?;
    // As long as in Go; the clock goes further.
    if told > LONGEST {
        return Err(format!("{text:?} is too long: at most 2562047h"));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_written_as_in_go() {
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert_eq!(duration("2562047h").unwrap(), Duration::from_secs(2_562_047 * 3600));
        for wrong in ["", "15", "1x", "s", "1e400s", "2562048h", "99999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_flag_of_a_command_hides_one_of_all_commands() {
        fn walk(command: &clap::Command, path: &str, own: &[String]) {
            for one in command.get_subcommands() {
                let path = format!("{path} {}", one.get_name());
                for arg in one.get_arguments().filter(|arg| !arg.is_global_set()) {
                    assert!(!own.iter().any(|id| id == arg.get_id().as_str()), "{path}: {}", arg.get_id());
                }
                walk(one, &path, own);
            }
        }
        let all = Cli::command();
        let own: Vec<String> = all
            .get_arguments()
            .filter(|arg| arg.is_global_set())
            .map(|arg| arg.get_id().to_string())
            .collect();
        assert!(own.len() >= 10, "{own:?}");
        walk(&all, "istioctl", &own);
    }

    #[test]
    fn every_command_has_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            for one in command.get_subcommands() {
                let path = format!("{path} {}", one.get_name());
                let help = one.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("istioctl "), "{path} has no example");
                walk(one, &path);
            }
        }
        walk(&Cli::command(), "istioctl");
    }
}
