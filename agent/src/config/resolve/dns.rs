//! Whether and where the agent answers DNS requests.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use names::{NodeType, port};

use super::super::env::{self, Reader};
use super::Inputs;
use crate::dns::{BeforeTable, Listen, Settings};

/// Port of DNS.
const DNS: u16 = 53;
/// The servers to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The servers to ask when the agent itself is in [`RESOLV_CONF`].
const OWN_RESOLV_CONF: &str = "/var/lib/istio/resolv.conf";
/// Shortest time for an answer of other servers.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// The settings of the DNS proxy, if there is to be one.
pub(super) fn dns(
    inputs: &Inputs<'_>,
    role: NodeType,
    is_root: bool,
    reader: &mut Reader<'_>,
) -> Option<Settings> {
    let is_captured = reader.flag(env::ISTIO_META_DNS_CAPTURE) && role == NodeType::Sidecar;
    let is_on = reader.flag(env::ISTIO_META_ENABLE_DNS_SERVER) || is_captured;
    let is_parallel = reader.flag(env::DNS_FORWARD_PARALLEL);
    let timeout = reader.duration(env::DNS_FORWARD_TIMEOUT);
    if timeout < MIN_TIMEOUT {
        let text = reader.text(env::DNS_FORWARD_TIMEOUT);
        reader.invalid(env::DNS_FORWARD_TIMEOUT, text, "at least 1ms");
    }
    let text = reader.text(env::DNS_PROXY_ADDR);
    let mut listen = parse(text);
    if listen.is_none() {
        reader.invalid(env::DNS_PROXY_ADDR, text, "IP:PORT or localhost:PORT");
    }
    if !is_on {
        return None;
    }
    let is_own_resolver = listen.is_some_and(|listen| port_of(listen) == DNS);
    if is_own_resolver && !is_root {
        let (name, usual) = (env::DNS_PROXY_ADDR.name, env::DNS_PROXY_ADDR.default);
        reader.warning(format!(
            "{name}={text:?}: only root may listen on port 53; {usual} is used, run the agent as root for port 53"
        ));
        listen = parse(usual);
    }
    let is_own_resolver = is_own_resolver && is_root;
    let own = Path::new(OWN_RESOLV_CONF);
    let namespace = reader.text(env::POD_NAMESPACE).to_owned();
    let domain = match inputs.args.domain.as_str() {
        "" => format!("{namespace}.svc.cluster.local"),
        domain => domain.to_owned(),
    };
    Some(Settings {
        listen: listen.unwrap_or(Listen::Localhost(port::AGENT_DNS)),
        namespace,
        domain,
        is_parallel,
        timeout,
        before_table: if is_own_resolver { BeforeTable::Forward } else { BeforeTable::Refuse },
        resolv_conf: PathBuf::from(if is_own_resolver && own.exists() {
            OWN_RESOLV_CONF
        } else {
            RESOLV_CONF
        }),
    })
}

/// An address to listen on; without a host it is every address.
fn parse(text: &str) -> Option<Listen> {
    if let Ok(address) = text.parse() {
        return Some(Listen::Address(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match host {
        "localhost" => Some(Listen::Localhost(port)),
        "" => Some(Listen::Address(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))),
        _ => None,
    }
}

fn port_of(listen: Listen) -> u16 {
    match listen {
        Listen::Localhost(port) => port,
        Listen::Address(address) => address.port(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser as _;

    use super::*;
    use crate::config::args::{Args, Command};

    fn with(
        env: &[(&str, &str)],
        line: &[&str],
        role: NodeType,
        is_root: bool,
    ) -> (Option<Settings>, Vec<String>, Vec<String>) {
        let Command::Proxy(args) = Args::try_parse_from(line).unwrap().command else { panic!() };
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let none = BTreeMap::new();
        let inputs = Inputs {
            args: &args,
            env: &env,
            labels: &none,
            annotations: &none,
            mesh_config: None,
            addresses: &[],
            root: Path::new("."),
            module_dirs: &[],
            log_as_json: false,
        };
        let mut reader = Reader::new(&env, &none);
        let settings = dns(&inputs, role, is_root, &mut reader);
        let warnings = reader.take_warnings();
        (settings, reader.into_errors(), warnings)
    }

    const LINE: &[&str] = &["istio-agent", "proxy"];

    fn settings(env: &[(&str, &str)], role: NodeType, is_root: bool) -> Option<Settings> {
        let (settings, errors, _) = with(env, LINE, role, is_root);
        assert!(errors.is_empty(), "{errors:?}");
        settings
    }

    #[test]
    fn sidecars_capture_and_gateways_serve() {
        let (capture, serve) = (("ISTIO_META_DNS_CAPTURE", "true"), ("ISTIO_META_ENABLE_DNS_SERVER", "true"));
        assert!(settings(&[], NodeType::Sidecar, false).is_none());
        assert!(settings(&[capture], NodeType::Router, false).is_none());
        assert!(settings(&[serve], NodeType::Router, false).is_some());
        let settings = settings(&[capture, ("POD_NAMESPACE", "shop")], NodeType::Sidecar, false).unwrap();
        assert_eq!(
            settings,
            Settings {
                listen: Listen::Localhost(15053),
                namespace: "shop".into(),
                domain: "shop.svc.cluster.local".into(),
                is_parallel: false,
                timeout: Duration::from_secs(5),
                before_table: BeforeTable::Refuse,
                resolv_conf: RESOLV_CONF.into(),
            }
        );
    }

    #[test]
    fn port_53_is_for_root() {
        let env =
            [("ISTIO_META_DNS_CAPTURE", "true"), ("DNS_PROXY_ADDR", "localhost:53"), ("POD_NAMESPACE", "a")];
        let settings = settings(&env, NodeType::Sidecar, true).unwrap();
        assert_eq!((settings.listen, settings.before_table), (Listen::Localhost(53), BeforeTable::Forward));
        let (settings, _, warnings) = with(&env, LINE, NodeType::Sidecar, false);
        let settings = settings.unwrap();
        assert_eq!((settings.listen, settings.before_table), (Listen::Localhost(15053), BeforeTable::Refuse));
        assert!(warnings[0].starts_with("DNS_PROXY_ADDR=\"localhost:53\": only root"), "{warnings:?}");
    }

    #[test]
    fn addresses_are_read_or_refused() {
        assert_eq!(parse("[::1]:5353"), Some(Listen::Address("[::1]:5353".parse().unwrap())));
        assert_eq!(parse(":5353"), Some(Listen::Address("[::]:5353".parse().unwrap())));
        for bad in ["localhost", "dns.example.com:53", "127.0.0.1", "127.0.0.1:70000", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let env = [("DNS_PROXY_ADDR", "here"), ("DNS_FORWARD_TIMEOUT", "0s")];
        let (_, errors, _) = with(&env, LINE, NodeType::Sidecar, false);
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(
            errors.iter().any(|error| error == "DNS_PROXY_ADDR=\"here\": expected IP:PORT or localhost:PORT")
        );
    }

    #[test]
    fn the_domain_of_the_flag_wins() {
        let line = [LINE, &["--domain", "x.svc.example"]].concat();
        let (settings, ..) = with(&[("ISTIO_META_DNS_CAPTURE", "1")], &line, NodeType::Sidecar, false);
        assert_eq!(settings.unwrap().domain, "x.svc.example");
    }
}
