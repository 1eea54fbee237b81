//! The environment of the program: every variable it reads stands here.

use super::Error;
use crate::args::{Args, boolean, duration};

/// Variables that have no flag.
#[derive(Clone, Debug)]
pub struct Only {
    /// `ISTIO_OUTBOUND_OWNER_GROUPS`: groups whose traffic is captured.
    pub owner_groups: String,
    /// `ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE`: groups whose traffic is not.
    pub owner_groups_exclude: String,
    /// `ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR`.
    pub loopback_cidr: String,
    /// `ENVOY_USER`: name of the proxy's user.
    pub envoy_user: String,
    /// `DRY_RUN_FILE_PATH`: where a dry run writes to as well.
    pub dry_run_file: Option<String>,
}

/// Fills what the command line left open from the environment. Values that
/// cannot be read count as unset and are told about, as the original ignores
/// them.
pub fn complete(args: Args, get: impl Fn(&str) -> Option<String>) -> (Args, Only, Vec<Error>) {
    let mut ignored = Vec::new();
    let mut switch = |given: Option<bool>, names: &[&'static str]| {
        // Of several names the last one wins.
        given.or_else(|| {
            names.iter().rev().find_map(|name| {
                let value = get(name)?;
                let read = boolean(&value);
                if read.is_none() {
                    let why = "neither true nor false".to_owned();
                    ignored.push(Error::Ignored { name, value, why });
                }
                read
            })
        })
    };
    let text = |given: Option<String>, name: &str| given.or_else(|| get(name));
    let mut args = Args {
        dry_run: switch(args.dry_run, &["DRY_RUN"]),
        skip_rule_apply: switch(args.skip_rule_apply, &["SKIP_RULE_APPLY"]),
        redirect_dns: switch(args.redirect_dns, &["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"]),
        capture_all_dns: switch(args.capture_all_dns, &["CAPTURE_ALL_DNS"]),
        drop_invalid: switch(args.drop_invalid, &["DROP_INVALID", "INVALID_DROP"]),
        dual_stack: switch(args.dual_stack, &["DUAL_STACK", "ISTIO_DUAL_STACK"]),
        reconcile: switch(args.reconcile, &["RECONCILE"]),
        force_apply: switch(args.force_apply, &["FORCE_APPLY"]),
        cleanup_only: switch(args.cleanup_only, &["CLEANUP_ONLY"]),
        run_validation: switch(args.run_validation, &["RUN_VALIDATION"]),
        native_nftables: switch(args.native_nftables, &["NATIVE_NFTABLES"]),
        cni_mode: switch(args.cni_mode, &["CNI_MODE"]),
        ..args
    };
    for (value, name) in [
        (&mut args.inbound_capture_port, "INBOUND_CAPTURE_PORT"),
        (&mut args.inbound_tunnel_port, "INBOUND_TUNNEL_PORT"),
        (&mut args.proxy_uid, "PROXY_UID"),
        (&mut args.proxy_gid, "PROXY_GID"),
        (&mut args.istio_inbound_interception_mode, "ISTIO_INBOUND_INTERCEPTION_MODE"),
        (&mut args.istio_inbound_ports, "ISTIO_INBOUND_PORTS"),
        (&mut args.istio_local_exclude_ports, "ISTIO_LOCAL_EXCLUDE_PORTS"),
        (&mut args.istio_exclude_interfaces, "ISTIO_EXCLUDE_INTERFACES"),
        (&mut args.istio_service_cidr, "ISTIO_SERVICE_CIDR"),
        (&mut args.istio_service_exclude_cidr, "ISTIO_SERVICE_EXCLUDE_CIDR"),
        (&mut args.istio_outbound_ports, "ISTIO_OUTBOUND_PORTS"),
        (&mut args.istio_local_outbound_ports_exclude, "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"),
        (&mut args.kube_virt_interfaces, "KUBE_VIRT_INTERFACES"),
        (&mut args.istio_inbound_tproxy_mark, "ISTIO_INBOUND_TPROXY_MARK"),
        (&mut args.istio_inbound_tproxy_route_table, "ISTIO_INBOUND_TPROXY_ROUTE_TABLE"),
        (&mut args.network_namespace, "NETWORK_NAMESPACE"),
        (&mut args.force_iptables_binary, "FORCE_IPTABLES_BINARY"),
    ] {
        *value = text(value.take(), name);
    }
    if args.iptables_probe_port.is_none() {
        let read = |text: &str| text.parse().map_err(|_| "no port from 0 to 65535".to_owned());
        args.iptables_probe_port = parsed("IPTABLES_PROBE_PORT", &get, read, &mut ignored);
    }
    if args.probe_timeout.is_none() {
        args.probe_timeout = parsed("PROBE_TIMEOUT", &get, duration, &mut ignored);
    }
    let or = |name: &str, default: &str| get(name).unwrap_or_else(|| default.to_owned());
    let only = Only {
        owner_groups: or("ISTIO_OUTBOUND_OWNER_GROUPS", "*"),
        owner_groups_exclude: or("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", ""),
        loopback_cidr: or("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/32"),
        envoy_user: or("ENVOY_USER", "istio-proxy"),
        dry_run_file: get("DRY_RUN_FILE_PATH").filter(|path| !path.is_empty()),
    };
    (args, only, ignored)
}

/// Reads a variable that has a shape; a wrong one counts as unset.
fn parsed<T>(
    name: &'static str,
    get: impl Fn(&str) -> Option<String>,
    read: impl Fn(&str) -> Result<T, String>,
    ignored: &mut Vec<Error>,
) -> Option<T> {
    let value = get(name)?;
    match read(&value) {
        Ok(read) => Some(read),
        Err(why) => {
            ignored.push(Error::Ignored { name, value, why });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(args: Args, env: &[(&str, &str)]) -> (Args, Only, Vec<Error>) {
        complete(args, |name| env.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned()))
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let args = Args { proxy_uid: Some("7".into()), dual_stack: Some(false), ..Args::default() };
        let (args, ..) = with(args, &[("PROXY_UID", "8"), ("PROXY_GID", "9"), ("DUAL_STACK", "true")]);
        assert_eq!((args.proxy_uid.as_deref(), args.proxy_gid.as_deref()), (Some("7"), Some("9")));
        assert_eq!(args.dual_stack, Some(false));
    }

    #[test]
    fn an_empty_variable_is_set() {
        let (args, only, _) =
            with(Args::default(), &[("INBOUND_CAPTURE_PORT", ""), ("ISTIO_OUTBOUND_OWNER_GROUPS", "")]);
        assert_eq!(args.inbound_capture_port.as_deref(), Some(""));
        assert_eq!(only.owner_groups, "");
    }

    #[test]
    fn of_two_names_the_later_wins_and_what_is_no_boolean_is_told() {
        let (args, _, ignored) = with(
            Args::default(),
            &[
                ("REDIRECT_DNS", "true"),
                ("ISTIO_META_DNS_CAPTURE", "false"),
                ("DUAL_STACK", "si"),
                ("PROBE_TIMEOUT", "abc"),
            ],
        );
        assert_eq!((args.redirect_dns, args.dual_stack, args.probe_timeout), (Some(false), None, None));
        assert!(ignored[0].to_string().contains("DUAL_STACK=si"), "{}", ignored[0]);
        assert!(ignored[1].to_string().contains("PROBE_TIMEOUT=abc"), "{}", ignored[1]);
    }
}
