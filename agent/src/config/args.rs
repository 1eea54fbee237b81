//! The command line. Flags that are not known are ignored with their value, as
//! templates written for other versions carry them.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};
use runtime::log::{Callers, Levels, Options, Targets};

use super::env;

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
    /// Levels by scope: SCOPE:LEVEL,... with a scope of ads, all, ca, cache, citadelclient, default, dns, gcecred, grpc, healthcheck, monitoring, probes, sds, security, spiffe, validation, wasm, xdsproxy and a level of debug, info, warn, error, fatal, none.
    #[arg(long = "log_output_level", global = true, default_value = "default:info")]
    pub levels: String,
    /// Scopes whose lines say which line of the source they come from: SCOPE,... or all.
    #[arg(long = "log_caller", global = true, default_value = "")]
    pub callers: String,
    /// Where the log goes: stdout, stderr, or a file; may be given several times.
    #[arg(long = "log_target", global = true, default_value = "stdout")]
    pub targets: Vec<String>,
    /// Levels of stack traces: accepted without effect.
    #[arg(long = "log_stacktrace_level", global = true, default_value = "default:none")]
    pub stack_traces: String,
    /// Verbosity of the Kubernetes client: accepted without effect, there is none.
    #[arg(long = "vklog", global = true, default_value = "0")]
    pub vklog: String,
}

impl Log {
    /// The options of the log.
    ///
    /// # Errors
    /// When a level is none, or a file cannot be written to.
    pub fn options(&self) -> Result<Options, String> {
        let read = |flag: &str, text: &str| {
            text.parse::<Levels>().map_err(|error| format!("--{flag} {text:?}: {error}"))
        };
        let levels = read("log_output_level", &self.levels)?;
        read("log_stacktrace_level", &self.stack_traces)?;
        let targets = Targets::open(&self.targets).map_err(|error| error.to_string())?;
        Ok(Options { levels, as_json: self.as_json, callers: Callers::read(&self.callers), targets })
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
    /// Print a script that completes command lines.
    Completion(Completion),
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
    /// Port for token exchange; only 0, for none, is accepted.
    #[arg(long = "stsPort", default_value = "0")]
    pub sts_port: String,
    /// Kind of token exchange; only none is accepted.
    #[arg(long = "tokenManagerPlugin", default_value = "")]
    pub token_manager_plugin: String,
    /// Template of the bootstrap; only the one of Istio's images is accepted,
    /// and it stands for the agent's own. Use ISTIO_BOOTSTRAP_OVERRIDE.
    #[arg(long = "templateFile", default_value = "")]
    pub template_file: String,
    /// File for Envoy's log of outliers.
    #[arg(long = "outlierLogPath", default_value = "")]
    pub outlier_log_path: String,
    /// Serve profiles; there are none, so it has no effect.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub profiling: bool,
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
    /// Time between two tries, in milliseconds; 50 when it is not given.
    #[arg(long = "periodMillis")]
    pub period_millis: Option<u64>,
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
    /// Body; what follows is ignored.
    pub body: Vec<String>,
    /// Port on this machine.
    #[arg(long = "debug-port", default_value_t = names::port::ENVOY_ADMIN)]
    pub debug_port: u16,
}

/// Flags of `version`.
#[derive(Clone, Debug, clap::Args)]
pub struct Version {
    /// Only the number.
    #[arg(short = 's', long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub short: bool,
    /// Form: json or yaml.
    #[arg(short = 'o', long, default_value = "", hide_default_value = true)]
    pub output: String,
}

/// Flags of `completion`.
#[derive(Clone, Debug, clap::Args)]
pub struct Completion {
    /// The shell.
    pub shell: clap_complete::Shell,
}

impl Args {
    /// Reads a command line, program name first.
    ///
    /// # Errors
    /// What is wrong, or the help text.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let line = known(&line.into_iter().collect::<Vec<_>>());
        let mut command = Self::command();
        // The table is long: it is made for readers only.
        if line.iter().any(|word| word == "--help" || word == "-h") {
            command = command.mut_subcommand("proxy", |proxy| proxy.after_help(env::help::help()));
        }
        Self::from_arg_matches(&command.try_get_matches_from(line)?)
    }
}

/// Drops flags that the command does not know. An unknown flag without `=`
/// takes the next word with it unless that is a flag.
fn known(line: &[OsString]) -> Vec<OsString> {
    let mut root = Args::command();
    root.build();
    let is_command =
        |word: &&OsString| word.to_str().is_some_and(|word| root.find_subcommand(word).is_some());
    let command = line.iter().skip(1).find(is_command).and_then(|word| root.find_subcommand(word));
    let mut flags = vec!["--help".to_owned(), "-h".to_owned(), "--".to_owned()];
    for arg in command.into_iter().chain([&root]).flat_map(clap::Command::get_arguments) {
        flags.extend(arg.get_long().map(|name| format!("--{name}")));
        flags.extend(arg.get_short().map(|name| format!("-{name}")));
    }
    let mut kept = Vec::with_capacity(line.len());
    let mut words = line.iter().peekable();
    kept.extend(words.next());
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--" {
            // What follows is no flag.
            kept.push(word);
            kept.extend(words);
            break;
        }
        let name = text.split('=').next().unwrap_or_default();
        // A short flag may have its value right behind it.
        let short = name.get(..2).filter(|_| !name.starts_with("--")).unwrap_or(name);
        let is_flag = name.len() > 1 && name.starts_with('-');
        if !is_flag || flags.iter().any(|flag| flag == name || flag == short) {
            kept.push(word);
        } else if !text.contains('=') {
            words.next_if(|next| !next.to_string_lossy().starts_with('-'));
        }
    }
    kept.into_iter().cloned().collect()
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
    fn flags_of_other_commands_are_unknown_ones() {
        let args =
            read("istio-agent wait --domain x --timeoutSeconds 3 --url=http://h/ --proxyLogLevel=debug")
                .unwrap();
        let Command::Wait(wait) = args.command else { panic!() };
        assert_eq!((wait.timeout_seconds, wait.url.as_str(), wait.period_millis), (3, "http://h/", None));
        let args = read("istio-agent request --debug-port 15020 POST drain a b").unwrap();
        let Command::Request(request) = args.command else { panic!() };
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.debug_port),
            ("POST", "drain", 15020)
        );
        for line in ["version -s -ojson", "version --short=true -o json", "version -s --output=json"] {
            let Command::Version(version) = read(&format!("istio-agent {line}")).unwrap().command else {
                panic!()
            };
            assert_eq!((version.short, version.output.as_str()), (true, "json"), "{line}");
        }
    }

    #[test]
    fn logs_go_where_they_are_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let args = read(&format!(
            "istio-agent wait --log_target stdout --log_target={} --log_caller=all --log_stacktrace_level=all:error --vklog 3",
            file.display()
        ));
        let options = args.unwrap().log.options().unwrap();
        assert_eq!(options.callers, Callers::read("all"));
        assert!(file.exists());
        let args = read("istio-agent wait --log_target /nowhere/log").unwrap();
        assert!(args.log.options().unwrap_err().starts_with("--log_target /nowhere/log: "));
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(read("istio-agent proxy --concurrency many").is_err());
        assert!(read("istio-agent dance").is_err());
        let args = read("istio-agent version --log_output_level=default:loud").unwrap();
        assert!(args.log.options().unwrap_err().contains("--log_output_level"));
    }
}
