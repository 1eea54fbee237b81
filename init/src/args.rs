//! The command line, as `pilot-agent istio-iptables` takes it.
//!
//! The parser follows the original's: the last of a repeated flag wins, a
//! switch takes an optional `=VALUE`, words that are no flags are ignored.

use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{ArgAction, Parser};

/// Redirects a pod's traffic into its Envoy sidecar.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "istio-init",
    version,
    args_override_self = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP
)]
pub struct Args {
    /// Port of Envoy that outbound TCP connections are redirected to [default: 15001].
    #[arg(short = 'p', long, value_name = "PORT", allow_hyphen_values = true)]
    pub envoy_port: Option<String>,
    /// Port of Envoy that inbound TCP connections are redirected to [default: 15006].
    #[arg(short = 'z', long, value_name = "PORT", allow_hyphen_values = true)]
    pub inbound_capture_port: Option<String>,
    /// Port of HBONE tunnels, which is never redirected [default: 15008].
    #[arg(short = 'e', long, value_name = "PORT", allow_hyphen_values = true)]
    pub inbound_tunnel_port: Option<String>,
    /// Users (ids or names) whose traffic is the proxy's and is never redirected
    /// [default: the user named by ENVOY_USER, else 1337].
    #[arg(short = 'u', long, value_name = "USERS", allow_hyphen_values = true)]
    pub proxy_uid: Option<String>,
    /// Groups whose traffic is the proxy's [default: the value of --proxy-uid].
    #[arg(short = 'g', long, value_name = "GROUPS", allow_hyphen_values = true)]
    pub proxy_gid: Option<String>,
    /// How inbound connections are captured: TPROXY keeps the client's address;
    /// REDIRECT or anything else does not.
    #[arg(short = 'm', long, value_name = "MODE", allow_hyphen_values = true)]
    pub istio_inbound_interception_mode: Option<String>,
    /// Inbound ports to redirect: a list of ports and ranges (80,8000-8010), `*` for all, empty for none.
    #[arg(short = 'b', long, value_name = "PORTS", allow_hyphen_values = true)]
    pub istio_inbound_ports: Option<String>,
    /// Inbound ports that are not redirected when all others are (`-b '*'`).
    #[arg(short = 'd', long, value_name = "PORTS", allow_hyphen_values = true)]
    pub istio_local_exclude_ports: Option<String>,
    /// Interfaces whose traffic is left alone.
    #[arg(short = 'c', long, value_name = "INTERFACES", allow_hyphen_values = true)]
    pub istio_exclude_interfaces: Option<String>,
    /// Destinations to redirect: a list of CIDRs, `*` for all, empty for none.
    #[arg(short = 'i', long, value_name = "CIDRS", allow_hyphen_values = true)]
    pub istio_service_cidr: Option<String>,
    /// Destinations that are not redirected: a list of CIDRs.
    #[arg(short = 'x', long, value_name = "CIDRS", allow_hyphen_values = true)]
    pub istio_service_exclude_cidr: Option<String>,
    /// Destination ports that are always redirected, whatever the address.
    #[arg(short = 'q', long, value_name = "PORTS", allow_hyphen_values = true)]
    pub istio_outbound_ports: Option<String>,
    /// Destination ports that are never redirected (TCP and UDP).
    #[arg(short = 'o', long, value_name = "PORTS", allow_hyphen_values = true)]
    pub istio_local_outbound_ports_exclude: Option<String>,
    /// Interfaces of virtual machines whose traffic counts as outbound.
    #[arg(short = 'k', long, value_name = "INTERFACES", allow_hyphen_values = true)]
    pub kube_virt_interfaces: Option<String>,
    /// Mark of packets that TPROXY captures [default: 1337].
    #[arg(short = 't', long, value_name = "MARK", allow_hyphen_values = true)]
    pub istio_inbound_tproxy_mark: Option<String>,
    /// Route table for packets that TPROXY captures [default: 133].
    #[arg(short = 'r', long, value_name = "TABLE", allow_hyphen_values = true)]
    pub istio_inbound_tproxy_route_table: Option<String>,
    /// Print what would be applied; change nothing.
    #[arg(short = 'n', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub dry_run: Option<bool>,
    /// Apply no rules.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub skip_rule_apply: Option<bool>,
    /// Redirect DNS requests to the agent's DNS proxy at 15053.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub redirect_dns: Option<bool>,
    /// With --redirect-dns: to any server, not only those of /etc/resolv.conf.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub capture_all_dns: Option<bool>,
    /// Drop inbound packets that connection tracking calls invalid.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub drop_invalid: Option<bool>,
    /// Redirect both IPv4 and IPv6 when the pod has addresses of both.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub dual_stack: Option<bool>,
    /// Accepted: rules of an earlier run are always replaced in place.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub reconcile: Option<bool>,
    /// Write the rules also when they are in force already.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub force_apply: Option<bool>,
    /// Remove everything that an earlier run put in place, whatever its flags.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub cleanup_only: Option<bool>,
    /// Probe the redirection, of each family and both directions; exit status 126 when it fails.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub run_validation: Option<bool>,
    /// Write native nftables rules, without the iptables programs.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub native_nftables: Option<bool>,
    /// Run on behalf of a CNI plugin: the lock of legacy iptables is the pod's.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub cni_mode: Option<bool>,
    /// Network namespace to work in, for example /proc/4711/ns/net.
    #[arg(long, value_name = "PATH", allow_hyphen_values = true)]
    pub network_namespace: Option<String>,
    /// Port that the probe of --run-validation dials [default: 15002].
    #[arg(long, value_name = "PORT")]
    pub iptables_probe_port: Option<u16>,
    /// How long the probe of --run-validation may take [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    pub probe_timeout: Option<Duration>,
    /// Packet filter to use: nft or legacy [default: the one that holds rules, else nft].
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub force_iptables_binary: Option<String>,
    /// Levels of the log by scope, for example default:debug.
    #[arg(long = "log_output_level", value_name = "LEVELS", default_value = "")]
    pub log_output_level: String,
    /// Log one JSON object a line.
    #[arg(long = "log_as_json", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub log_as_json: Option<bool>,
    /// Where the log goes: only `stdout`; other values are told and have no effect.
    #[arg(long = "log_target", value_name = "TARGET", hide = true)]
    pub log_target: Vec<String>,
    /// Accepted without effect, as are the next two: the log names no places of the program.
    #[arg(long = "log_caller", value_name = "SCOPES", hide = true)]
    pub log_caller: Option<String>,
    /// As above.
    #[arg(long = "log_stacktrace_level", value_name = "LEVELS", hide = true)]
    pub log_stacktrace_level: Option<String>,
    /// As above.
    #[arg(long = "vklog", value_name = "LEVEL", hide = true)]
    pub vklog: Option<String>,
    /// Words that are no flags, such as the `istio-iptables` of injected pods.
    #[arg(hide = true, action = ArgAction::Append)]
    pub ignored: Vec<String>,
}

const AFTER_HELP: &str = "\
Each flag has an environment variable of the same name in capitals with `_` for `-` (but for \
--envoy-port): the command line wins over the environment. Environment only: \
ISTIO_OUTBOUND_OWNER_GROUPS, ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE, ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR, \
ENVOY_USER, DRY_RUN_FILE_PATH.

Exit status: 0 done, 1 refused or failed, 126 the probe failed, 255 the command line is wrong.

Example: istio-init -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -x '' -b '*' -d 15090,15021,15020";

/// Reads a truth value as Go's `strconv.ParseBool` does.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn switch() -> impl TypedValueParser<Value = bool> {
    clap::builder::StringValueParser::new()
        .try_map(|text| boolean(&text).ok_or_else(|| format!("`{text}` is neither true nor false")))
}

/// Reads a Go duration: numbers, each with a unit. A negative one is none.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || format!("`{text}` is no duration; write a number with its unit, such as 5s");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(wrong)?;
        seconds += number.parse::<f64>().map_err(|_| wrong())? * factor;
        rest = &after[unit.len()..];
    }
    if negative {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn read(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("istio-init").chain(words.iter().copied()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn reads_what_an_injected_pod_passes() {
        let line =
            ["istio-iptables", "-p", "15001", "-z=15006", "-u1337", "-x", "", "-b", "*", "--dual-stack"];
        let args = read(&line).unwrap();
        assert_eq!(args.envoy_port.as_deref(), Some("15001"));
        assert_eq!(args.inbound_capture_port.as_deref(), Some("15006"));
        assert_eq!(args.proxy_uid.as_deref(), Some("1337"));
        assert_eq!(args.istio_service_exclude_cidr.as_deref(), Some(""));
        assert_eq!(args.dual_stack, Some(true));
    }

    #[test]
    fn the_last_of_a_repeated_flag_wins() {
        let args = read(&["-p", "1", "--dry-run", "-p", "2", "-n=F"]).unwrap();
        assert_eq!(args.envoy_port.as_deref(), Some("2"));
        assert_eq!(args.dry_run, Some(false));
    }

    #[test]
    fn takes_the_log_flags_of_the_original() {
        let line = "--log_output_level=default:debug --log_target stderr --log_caller default \
                    --log_stacktrace_level default:none --vklog 4 --log_as_json";
        let args = read(&line.split_ascii_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!((args.log_target, args.log_as_json), (vec!["stderr".to_owned()], Some(true)));
    }

    #[test]
    fn says_what_cannot_be_read() {
        for (words, told) in [
            (&["--dual-stack=maybe"][..], "maybe"),
            (&["--probe-timeout", "5"], "5s"),
            (&["--iptables-probe-port", "70000"], "70000"),
            (&["--no-such-flag"], "--no-such-flag"),
        ] {
            let error = read(words).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (good, millis) in
            [("5s", 5000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0", 0), ("200ms", 200), ("-1s", 0)]
        {
            assert_eq!(duration(good).unwrap().as_millis(), millis, "{good}");
        }
        for bad in ["", "5", "s", "5x", "5s3"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
