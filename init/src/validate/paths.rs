//! Which paths are probed by which dial, and which cannot be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::expect::{Packet, Verdict};
use super::listen::loopback;
use super::wait::Probe;
use super::{Finding, Outcome, Path};
use crate::config::{Config, Inbound, Outbound};
use crate::detect;
use crate::family::Family;
use crate::plan::Plan;

/// Addresses for documentation: nobody has them (RFC 5737, RFC 3849).
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What is to be done, and what is known without doing anything.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) probes: Vec<Probe>,
    pub(super) findings: Vec<Finding>,
}

/// Who is asking: what the owner matches of the rules see.
struct Me {
    uid: u32,
    gid: u32,
}

/// All paths of all families that the configuration has rules for.
pub(super) fn of(config: &Config, port: u16) -> Paths {
    let plan = Plan::of(config);
    let me = Me { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    let addresses = detect::addresses();
    let mut paths = Paths { probes: Vec::new(), findings: Vec::new() };
    for family in Family::ALL.into_iter().filter(|&family| plan.has(family)) {
        let own: Vec<IpAddr> = addresses.iter().copied().filter(|it| is_own(*it, family)).collect();
        // Rules for IPv4 are written in pods without IPv4 too; there is nothing to lose then.
        let matters = !own.is_empty();
        let mut tell = |path, outcome| paths.findings.push(Finding { family, path, outcome, matters });

        let mut probes = Vec::new();
        match to_itself(&plan, &me, family, &own, port) {
            Ok(probe) => probes.push(probe.mattering(matters)),
            Err(why) => tell(Path::ToItself, Outcome::Failed(why)),
        }
        match outbound(config, &plan, &me, family, &own, port) {
            Ok(probe) => probes.push(probe.mattering(matters)),
            Err(why) => tell(Path::Outbound, Outcome::Unknown(why)),
        }
        tell(Path::Inbound, Outcome::Unknown(inbound(config)));
        paths.probes.extend(probes);
    }
    paths
}

/// Whether others can reach the pod there.
fn is_own(address: IpAddr, family: Family) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    Family::of(&address.into()) == family
        && !address.is_loopback()
        && !is_link_local
        && family.passthrough().addr() != address
}

/// A call of Envoy to its own pod. The original dials 127.0.0.6; that is no
/// use when it counts as localhost, but then the pod's own address is.
fn to_itself(plan: &Plan, me: &Me, family: Family, own: &[IpAddr], port: u16) -> Result<Probe, String> {
    let from = SocketAddr::new(loopback(family), 0);
    let mut why = None;
    for address in [family.passthrough().addr()].iter().chain(own) {
        let to = SocketAddr::new(*address, port);
        let packet = Packet { source: from, destination: to, is_local: true, uid: me.uid, gid: me.gid };
        match packet.verdict(plan) {
            Verdict::Redirected(expected) => {
                return Ok(Probe::new(family, Path::ToItself, Some(from), to, expected));
            }
            Verdict::Left(rule) => why = why.or(Some((to, rule))),
        }
    }
    let (to, rule) = why.unwrap_or((from, None));
    Err(match rule {
        Some(rule) => format!(
            "{to} was not dialled, since `{rule}` exempts it (uid {}, gid {}); run the probe as the user of the \
             proxy (--proxy-uid; in the pod's spec: securityContext.runAsUser), with an --iptables-probe-port \
             that is not excluded",
            me.uid, me.gid
        ),
        None => format!("{to} was not dialled, since the configuration has no rule that redirects it"),
    })
}

/// A call of the application to somebody else. It is redirected before it
/// leaves; if it is not, it dies at the node (see `Dial`).
fn outbound(
    config: &Config,
    plan: &Plan,
    me: &Me,
    family: Family,
    own: &[IpAddr],
    port: u16,
) -> Result<Probe, String> {
    let nobody = NOBODY.into_iter().filter(|address| Family::of(&(*address).into()) == family);
    let included = match &config.outbound {
        Outbound::All => &[][..],
        Outbound::Only(networks) => networks,
    };
    let included = included.iter().filter(|network| Family::of(network) == family).filter_map(first);
    let addresses = nobody.chain(included).filter(|it| !it.is_loopback() && !own.contains(it));
    let ports: Vec<u16> =
        [port].into_iter().chain(config.outbound_ports.iter().map(|it| it.first())).collect();
    let mut exempt = None;
    for address in addresses {
        for &port in &ports {
            let to = SocketAddr::new(address, port);
            let source = SocketAddr::new(own.first().copied().unwrap_or(loopback(family)), 0);
            let packet = Packet { source, destination: to, is_local: false, uid: me.uid, gid: me.gid };
            match packet.verdict(plan) {
                Verdict::Redirected(expected) => {
                    return Ok(Probe::new(family, Path::Outbound, None, to, expected));
                }
                Verdict::Left(rule) => exempt = exempt.or(rule),
            }
        }
    }
    Err(match exempt {
        Some(rule) => format!("`{rule}` exempts what uid {}, gid {} sends", me.uid, me.gid),
        None => "the configuration redirects nothing that is outbound (-i, -q)".to_owned(),
    })
}

/// An address of a network that some host may have.
fn first(network: &IpNet) -> Option<IpAddr> {
    network.hosts().next()
}

/// Packets that arrive from outside cannot be made inside. Those that stay
/// inside are past the choice of their destination when they arrive, so nothing
/// redirects them any more. TPROXY does see them (a call of the proxy to
/// 127.0.0.6 at the tunnel's port), but delivers to none but a transparent
/// listener, which takes a capability that this container never has.
fn inbound(config: &Config) -> String {
    match (&config.inbound, config.tproxy) {
        (Inbound::None, _) => "the configuration redirects nothing that is inbound (-b)",
        (_, None) => "only a packet from outside the pod could show it",
        (_, Some(_)) => "only a packet from outside the pod, or a listener with NET_ADMIN, could show it",
    }
    .to_owned()
}
