use super::*;
use crate::args::Args;

/// A pod with one IPv4 address.
pub(crate) fn facts() -> Facts {
    Facts { addresses: vec!["10.9.0.5".parse().unwrap()], ..Facts::default() }
}

pub(crate) fn resolve(args: Args, facts: &Facts) -> Result<Config, Vec<Error>> {
    let (args, only, _) = env::complete(args, |_| None);
    Config::resolve(&args, &only, facts)
}

fn errors(args: Args) -> String {
    let errors = resolve(args, &facts()).unwrap_err();
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn defaults_are_those_of_the_original() {
    let config = resolve(Args::default(), &facts()).unwrap();
    assert_eq!((config.envoy_port, config.inbound_port, config.tunnel_port), (15001, 15006, 15008));
    assert_eq!(config.uids, [Ids::one(1337)]);
    assert_eq!(config.gids, config.uids);
    assert_eq!(config.inbound, Inbound::None);
    assert_eq!(config.outbound, Outbound::Only(Vec::new()));
    assert!(!config.ipv6);
}

#[test]
fn all_errors_are_told_at_once_with_flag_and_value() {
    let told = errors(Args {
        envoy_port: Some("99999".into()),
        istio_service_cidr: Some("10.1.2.3,*".into()),
        istio_inbound_ports: Some("80,8010-8000".into()),
        istio_inbound_tproxy_mark: Some("1338".into()),
        istio_inbound_tproxy_route_table: Some("0xfg".into()),
        force_iptables_binary: Some("random".into()),
        istio_inbound_interception_mode: Some("TPROXY".into()),
        ..Args::default()
    });
    for part in [
        "--envoy-port: `99999`",
        "--istio-service-cidr: `10.1.2.3`: an address needs a mask: 10.1.2.3/32",
        "--istio-service-cidr: `*`",
        "--istio-inbound-ports: `8010-8000`: the range ends before it begins",
        "--istio-inbound-tproxy-mark: `1338`: 0 is no mark",
        "--istio-inbound-tproxy-route-table: `0xfg`: not a number",
        "--force-iptables-binary: `random`",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[test]
fn marks_are_decimal_or_hexadecimal() {
    let with = |mode: &str, mark: &str| {
        let args = Args {
            istio_inbound_interception_mode: Some(mode.into()),
            istio_inbound_tproxy_mark: Some(mark.into()),
            ..Args::default()
        };
        resolve(args, &facts()).map(|config| config.tproxy)
    };
    assert_eq!(with("TPROXY", "0x1234"), Ok(Some(Tproxy { mark: 0x1234, table: 133 })));
    assert_eq!(with("TPROXY", ""), Ok(Some(Tproxy { mark: 1337, table: 133 })));
    assert_eq!(with("tproxy", "7"), Ok(None));
    assert!(with("REDIRECT", "seven").is_err());
}

#[test]
fn the_first_address_decides_on_ipv6() {
    let with = |addresses: &[&str], dual_stack| {
        let facts = Facts {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..Facts::default()
        };
        resolve(Args { dual_stack: Some(dual_stack), ..Args::default() }, &facts).map(|config| config.ipv6)
    };
    assert_eq!(with(&["127.0.0.1", "10.0.0.1", "fd00::1"], false), Ok(false));
    assert_eq!(with(&["10.0.0.1", "fd00::1"], true), Ok(true));
    assert_eq!(with(&["10.0.0.1", "fe80::1"], true), Ok(false));
    assert_eq!(with(&["169.254.0.1", "fd00::1"], false), Ok(true));
    assert_eq!(with(&["169.254.0.1", "::1"], true), Err(vec![Error::NoAddress]));
}

#[test]
fn dns_servers_come_from_resolv_conf() {
    let dns = |resolv_conf: Result<&str, &str>, all| {
        let facts =
            Facts { resolv_conf: resolv_conf.map(ToOwned::to_owned).map_err(ToOwned::to_owned), ..facts() };
        let args = Args { redirect_dns: Some(true), capture_all_dns: Some(all), ..Args::default() };
        resolve(args, &facts).map(|config| (config.dns, config.warnings.len()))
    };
    let servers = vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
    let text = "search x\nnameserver 10.96.0.10\nnameserver nonsense\nnameserver fd00::a\n";
    assert_eq!(dns(Ok(text), false), Ok((Some(Dns::Servers(servers)), 0)));
    assert_eq!(dns(Ok("search x\n"), false), Ok((None, 1)));
    assert_eq!(dns(Err("gone"), true), Ok((Some(Dns::All), 0)));
    assert_eq!(dns(Err("gone"), false), Err(vec![Error::ResolvConf("gone".into())]));
}

#[test]
fn the_proxys_user_is_looked_up_by_name() {
    let facts = Facts { passwd: "istio-proxy:x:42:43::/:\n".into(), ..facts() };
    assert_eq!(resolve(Args::default(), &facts).unwrap().uids, [Ids::one(42)]);
}
