use super::*;
use crate::args::Args;
use crate::config::{Config, Facts, env};

fn tables(args: Args, family: Family) -> Tables {
    let facts = Facts {
        addresses: vec!["10.9.0.5".parse().unwrap(), "fd00:9::5".parse().unwrap()],
        ..Facts::default()
    };
    let (args, only, _) = env::complete(args, |_| None);
    Tables::of(&Plan::of(&Config::resolve(&args, &only, &facts).unwrap()), family)
}

fn default() -> Args {
    Args {
        istio_service_cidr: Some("*".into()),
        istio_inbound_ports: Some("*".into()),
        istio_local_exclude_ports: Some("15020,15021,15090".into()),
        ..Args::default()
    }
}

fn packet(to: &str, port: u16) -> Packet {
    let destination: IpAddr = to.parse().unwrap();
    let is_local = destination.is_loopback() || to == "10.9.0.5";
    Packet {
        protocol: Protocol::Tcp,
        source: "10.9.0.5".parse().unwrap(),
        source_port: 40_000,
        destination,
        destination_port: port,
        owner: Some((1000, 1000)),
        input: None,
        output: Some(if is_local { "lo" } else { "eth0" }.into()),
        mark: 0,
    }
}

fn arriving(port: u16) -> Packet {
    Packet {
        owner: None,
        input: Some("eth0".into()),
        output: None,
        source: "10.9.0.9".parse().unwrap(),
        ..packet("10.9.0.5", port)
    }
}

#[test]
fn redirects_what_an_application_sends() {
    let tables = tables(default(), Family::V4);
    let walk = outbound(&tables, &packet("10.1.2.3", 443));
    assert_eq!(walk.verdict, Verdict::Redirected(15001));
    let decisive = walk.decisive().unwrap();
    assert_eq!((decisive.chain.as_str(), decisive.why.as_deref()), ("ISTIO_OUTPUT", Ok("every packet")));
}

#[test]
fn leaves_the_proxy_and_localhost_alone() {
    let tables = tables(default(), Family::V4);
    let proxy = Packet { owner: Some((1337, 1337)), ..packet("10.1.2.3", 443) };
    let walk = outbound(&tables, &proxy);
    assert_eq!(walk.verdict, Verdict::Passes);
    assert_eq!(walk.decisive().unwrap().why.as_deref(), Ok("uid 1337"));
    assert_eq!(outbound(&tables, &packet("127.0.0.1", 80)).verdict, Verdict::Passes);
    assert_eq!(outbound(&tables, &packet("10.9.0.5", 80)).verdict, Verdict::Passes);
    let to_itself = Packet { owner: Some((1337, 1337)), ..packet("10.9.0.5", 80) };
    assert_eq!(outbound(&tables, &to_itself).verdict, Verdict::Redirected(15006));
}

#[test]
fn captures_what_comes_in() {
    let redirect = tables(default(), Family::V4);
    assert_eq!(inbound(&redirect, &arriving(8080)).verdict, Verdict::Redirected(15006));
    assert_eq!(inbound(&redirect, &arriving(15020)).verdict, Verdict::Passes);
    assert_eq!(inbound(&redirect, &arriving(15008)).verdict, Verdict::Passes);
    let tproxy =
        tables(Args { istio_inbound_interception_mode: Some("TPROXY".into()), ..default() }, Family::V4);
    assert_eq!(inbound(&tproxy, &arriving(8080)).verdict, Verdict::Tproxied(15006));
    assert_eq!(inbound(&tproxy, &arriving(15020)).verdict, Verdict::Passes);
}

#[test]
fn a_family_without_rules_passes() {
    let tables = tables(default(), Family::V6);
    assert_eq!(outbound(&tables, &packet("fd00::1", 443)).verdict, Verdict::Passes);
}

#[test]
fn dns_goes_to_the_agent_but_for_its_own() {
    let args = Args { redirect_dns: Some(true), capture_all_dns: Some(true), ..default() };
    let tables = tables(args, Family::V4);
    let request = Packet { protocol: Protocol::Udp, ..packet("10.96.0.10", 53) };
    assert_eq!(outbound(&tables, &request).verdict, Verdict::Redirected(15053));
    let own = Packet { owner: Some((1337, 1337)), ..request };
    assert_eq!(outbound(&tables, &own).verdict, Verdict::Passes);
}

#[test]
fn what_is_not_understood_is_told() {
    let mut tables = Tables::default();
    tables.add("nat", OUTPUT, vec![Err("-p icmp -j ACCEPT".into())]);
    let walk = outbound(&tables, &packet("10.1.2.3", 443));
    assert_eq!(walk.verdict, Verdict::Passes);
    assert!(walk.met[0].why.as_ref().unwrap_err().contains("-p icmp"));
}
