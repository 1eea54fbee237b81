//! The command line. Flags that are not known are ignored with their value, as
//! templates written for other versions carry them.

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use runtime::log::{Levels, Options};

/// The agent beside every proxy of the mesh.
#[derive(Debug, Parser)]
#[command(name = "istio-agent", disable_version_flag = true)]
pub struct Args {
    /// How to log.
    #[command(flatten)]
    pub log: Log,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags for logs.
#[derive(Clone, Debug, clap::Args)]
pub struct Log {
    /// Log one JSON object a line.
    #[arg(long = "log_as_json", global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub as_json: bool,
    /// Levels by scope: SCOPE:LEVEL,...
    #[arg(long = "log_output_level", global = true, default_value = "default:info")]
    pub levels: String,
}

impl Log {
    /// The options of the log.
    ///
    /// # Errors
    /// When a level is none.
    pub fn options(&self) -> Result<Options, String> {
        let levels: Levels =
            self.levels.parse().map_err(|error| format!("--log_output_level {:?}: {error}", self.levels))?;
        Ok(Options { levels, as_json: self.as_json })
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent and its Envoy.
    Proxy(Proxy),
    /// Wait until Envoy is ready.
    Wait(Wait),
    /// Send a request to Envoy's admin interface or to the agent.
    Request(Request),
    /// Redirect the pod's traffic, as istio-init does: `istio-iptables --help`.
    #[command(name = "istio-iptables", disable_help_flag = true)]
    IstioIptables,
    /// Print the version.
    Version(Version),
}

/// Whether a command line is istio-init's: its flags are not the agent's.
#[must_use]
pub fn is_for_init(line: &[OsString]) -> bool {
    let word = line.iter().skip(1).find(|word| !word.to_string_lossy().starts_with('-'));
    word.is_some_and(|word| word == "istio-iptables")
}

/// Flags of `proxy`.
#[derive(Clone, Debug, clap::Args)]
pub struct Proxy {
    /// Kind of proxy: sidecar or router.
    #[arg(default_value = "sidecar")]
    pub role: String,
    /// DNS domain of the workload; POD_NAMESPACE.svc.cluster.local when empty.
    #[arg(long, default_value = "")]
    pub domain: String,
    /// File with the mesh configuration.
    #[arg(long = "meshConfig", default_value = names::path::MESH_CONFIG)]
    pub mesh_config: String,
    /// Service cluster of the proxy.
    #[arg(long = "serviceCluster", default_value = "istio-proxy")]
    pub service_cluster: String,
    /// Envoy's log level; may name components: info,misc:error.
    #[arg(long = "proxyLogLevel", default_value = "warning")]
    pub proxy_log_level: String,
    /// Envoy's log levels by component (use --proxyLogLevel).
    #[arg(long = "proxyComponentLogLevel", default_value = "")]
    pub proxy_component_log_level: String,
    /// Envoy's worker threads; 0 takes them from the configuration.
    #[arg(long, default_value_t = 0)]
    pub concurrency: u32,
    /// Not supported yet: port for token exchange.
    #[arg(long = "stsPort", default_value = "0", hide = true)]
    pub sts_port: String,
    /// Not supported yet: kind of token exchange.
    #[arg(long = "tokenManagerPlugin", default_value = "", hide = true)]
    pub token_manager_plugin: String,
    /// Not supported yet: template of the bootstrap.
    #[arg(long = "templateFile", default_value = "", hide = true)]
    pub template_file: String,
    /// Not supported yet: file for Envoy's log of outliers.
    #[arg(long = "outlierLogPath", default_value = "", hide = true)]
    pub outlier_log_path: String,
}

/// Flags of `wait`.
#[derive(Clone, Debug, clap::Args)]
pub struct Wait {
    /// Longest wait, in seconds.
    #[arg(long = "timeoutSeconds", default_value_t = 60)]
    pub timeout_seconds: u64,
    /// Longest wait for one answer, in milliseconds.
    #[arg(long = "requestTimeoutMillis", default_value_t = 500)]
    pub request_timeout_millis: u64,
    /// Time between two tries, in milliseconds.
    #[arg(long = "periodMillis", default_value_t = 500)]
    pub period_millis: u64,
    /// What to ask.
    #[arg(long, default_value = "http://localhost:15021/healthz/ready")]
    pub url: String,
}

/// Flags of `request`.
#[derive(Clone, Debug, clap::Args)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Path with its query.
    pub path: String,
    /// Body.
    #[arg(default_value = "")]
    pub body: String,
    /// Port on this machine.
    #[arg(long = "debug-port", default_value_t = names::port::ENVOY_ADMIN)]
    pub debug_port: u16,
}

/// Flags of `version`.
#[derive(Clone, Debug, clap::Args)]
pub struct Version {
    /// Only the number.
    #[arg(short = 's', long)]
    pub short: bool,
}

impl Args {
    /// Reads a command line, program name first.
    ///
    /// # Errors
    /// What is wrong, or the help text.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(known(line.into_iter().collect()))
    }
}

/// Drops flags that no command knows. An unknown flag without `=` takes the
/// next word with it unless that is a flag.
fn known(line: Vec<OsString>) -> Vec<OsString> {
    let command = Args::command();
    let mut flags = vec!["--help".to_owned(), "-h".to_owned(), "--".to_owned()];
    for args in command.get_subcommands().map(clap::Command::get_arguments).chain([command.get_arguments()]) {
        for arg in args {
            flags.extend(arg.get_long().map(|name| format!("--{name}")));
            flags.extend(arg.get_short().map(|name| format!("-{name}")));
        }
    }
    let mut kept = Vec::with_capacity(line.len());
    let mut words = line.into_iter().peekable();
    kept.extend(words.next());
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let name = text.split('=').next().unwrap_or_default();
        let is_flag = name.len() > 1 && name.starts_with('-');
        if !is_flag || flags.iter().any(|flag| flag == name) {
            kept.push(word);
        } else if !text.contains('=') {
            words.next_if(|next| !next.to_string_lossy().starts_with('-'));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, clap::Error> {
        Args::read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn reads_the_line_of_an_injected_container() {
        let args = read(
            "istio-agent proxy sidecar --domain default.svc.cluster.local --proxyLogLevel=warning \
             --proxyComponentLogLevel=misc:error --log_output_level=default:info --stsPort 0 --unknown=1 --concurrency 2",
        )
        .unwrap();
        let Command::Proxy(proxy) = args.command else { panic!() };
        assert_eq!(proxy.role, "sidecar");
        assert_eq!(proxy.domain, "default.svc.cluster.local");
        assert_eq!(proxy.proxy_component_log_level, "misc:error");
        assert_eq!(proxy.concurrency, 2);
        assert_eq!(args.log.levels, "default:info");
    }

    #[test]
    fn the_line_of_an_init_container_is_istio_inits() {
        let is = |line: &str| is_for_init(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(is("istio-agent istio-iptables -p 15001"));
        assert!(is("istio-agent --log_as_json istio-iptables -u 1337"));
        assert!(!is("istio-agent proxy istio-iptables"));
        assert!(!is("istio-agent --help"));
    }

    #[test]
    fn the_role_is_a_sidecar_unless_told() {
        let args = read("istio-agent proxy --nobody-knows --log_as_json").unwrap();
        assert!(args.log.as_json);
        let Command::Proxy(proxy) = args.command else { panic!() };
        assert_eq!(proxy.role, "sidecar");
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(read("istio-agent proxy --concurrency many").is_err());
        assert!(read("istio-agent dance").is_err());
        let args = read("istio-agent version --log_output_level=default:loud").unwrap();
        assert!(args.log.options().unwrap_err().contains("--log_output_level"));
    }
}
