//! Where real connections arrive, for every mode and back end. The proxy's
//! ports, the application and the peer have listeners that tell what they see.

use anyhow::{Context as _, bail, ensure};
use istio_tests::netns::probe::{Place, Probe, Verdict};
use istio_tests::netns::rig::{APP, Families, PROXY, Rig};
use istio_tests::netns::wire::Owner;

use super::{Case, program};

pub(crate) const CASES: &[Case] = &[
    ("packets_of_default_rules", || DEFAULT.on_dual_stack()),
    ("packets_of_default_rules_without_ipv6", || DEFAULT.on_one_family(Families::V4)),
    ("packets_of_default_rules_without_ipv4", || DEFAULT.on_one_family(Families::V6)),
    ("packets_of_ipv6_pass_when_ipv6_is_off", || DEFAULT.without_the_flag()),
    ("packets_of_lists", || LISTS.on_dual_stack()),
    ("packets_of_exclusions", || EXCLUSIONS.on_dual_stack()),
    ("packets_without_capture", || NOTHING.on_dual_stack()),
    ("packets_of_excluded_groups", || GROUPS_EXCLUDED.on_dual_stack()),
    ("packets_of_included_groups", || GROUPS_INCLUDED.on_dual_stack()),
    ("packets_of_interfaces", || INTERFACES.on_dual_stack()),
    ("packets_of_dns_to_listed_servers", || DNS_LISTED.on_dual_stack()),
    ("packets_of_dns_to_all_servers", || DNS_ALL.on_dual_stack()),
    ("packets_of_dns_to_ipv6_servers_when_ipv6_is_off", || DNS_LISTED.without_the_flag()),
    ("packets_of_dns_with_port_53_excluded", || DNS_EXCLUDED.on_dual_stack()),
    ("packets_of_dns_by_application_and_agent_from_one_port", dns_from_one_port),
    ("packets_to_loopback_are_captured_when_asked", || LOOPBACK.on_dual_stack()),
];

/// Each back end and the flags that choose it.
pub(crate) const BACK_ENDS: [(&str, &[&str]); 3] = [
    ("iptables-nft", &["--force-iptables-binary", "nft"]),
    ("iptables-legacy", &["--force-iptables-binary", "legacy"]),
    ("native", &["--native-nftables"]),
];
/// The pod's resolvers: of the peer's servers, one of each family.
pub(crate) const RESOLV_CONF: (&str, &str) =
    ("resolv.conf", "nameserver 10.1.0.53\nnameserver fd00:1::53\nsearch a.b\n");
/// A virtual machine's interface and one that is left alone exist in every pod.
const DUAL: &[&str] = &["--dual-stack"];

/// Where a connection shall arrive, in any mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Where it was sent.
    Direct,
    /// At Envoy's outbound listener.
    Outbound,
    /// At Envoy's inbound listener, with unchanged addresses in TPROXY mode.
    Inbound,
    /// At Envoy's inbound listener, redirected in every mode.
    ToItself,
    /// At the agent's DNS proxy.
    Dns,
    /// TPROXY takes what REDIRECT leaves alone, as with Istio.
    OnlyTproxied,
    /// At Envoy's outbound listener; not tried in TPROXY mode, where it is
    /// captured twice, as with Istio.
    OutboundIfRedirect,
}
use Wanted::{Direct, Dns, Inbound, OnlyTproxied, Outbound, OutboundIfRedirect, ToItself};

impl Wanted {
    fn verdict(self, tproxy: bool) -> Verdict {
        match self {
            Direct => Verdict::Direct,
            Outbound | OutboundIfRedirect => Verdict::Redirected(15001),
            Inbound | OnlyTproxied if tproxy => Verdict::Tproxied(15006),
            OnlyTproxied => Verdict::Direct,
            Inbound | ToItself => Verdict::Redirected(15006),
            Dns => Verdict::Redirected(15053),
        }
    }
}

/// Who sends: a connection's beginning, for the tables below.
#[derive(Clone, Copy)]
enum Sender {
    App,
    AppUdp,
    Proxy,
    ProxyUdp,
    Root,
    Peer,
    Vm,
    /// Application's user with that group.
    Group(u32),
    /// By that user, from this address.
    From(u32, &'static str),
}
use Sender::{App, AppUdp, From, Group, Peer, ProxyUdp, Root, Vm};

impl Sender {
    fn probe(self, to: &str) -> anyhow::Result<Probe> {
        let to = to.parse().with_context(|| to.to_owned())?;
        let pod = |id| Probe::new(Place::Pod, id, to);
        Ok(match self {
            App => pod(APP),
            AppUdp => Probe { udp: true, ..pod(APP) },
            Self::Proxy => pod(PROXY),
            ProxyUdp => Probe { udp: true, ..pod(PROXY) },
            Root => pod(0),
            Peer => Probe::new(Place::Peer, 0, to),
            Vm => Probe::new(Place::Vm, 0, to),
            Group(gid) => Probe { owner: Owner { uid: APP, gid }, ..pod(APP) },
            From(id, source) => Probe { source: Some(source.parse()?), ..pod(id) },
        })
    }
}

/// Flags and where connections arrive with them. The twins of all connections
/// are tried as well.
struct Scenario {
    flags: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    wanted: &'static [(Sender, &'static str, Wanted)],
}

impl Scenario {
    fn on_dual_stack(&self) -> anyhow::Result<()> {
        self.each(|tproxy, flags| {
            let v4 = self.connections(tproxy)?;
            let v6 = v4.iter().map(|(probe, wanted)| (probe.twin(), *wanted));
            let both: Vec<_> = v4.iter().cloned().chain(v6).collect();
            self.check(Families::Dual, &[flags, DUAL].concat(), &both)
        })
    }

    fn on_one_family(&self, families: Families) -> anyhow::Result<()> {
        self.each(|tproxy, flags| {
            let mut connections = self.connections(tproxy)?;
            if families == Families::V6 {
                connections.iter_mut().for_each(|(probe, _)| *probe = probe.twin());
            }
            self.check(families, flags, &connections)
        })
    }

    /// The pod has both families, and only IPv4 is asked for: IPv6 passes
    /// untouched. (There is no ::6 then.)
    fn without_the_flag(&self) -> anyhow::Result<()> {
        self.each(|tproxy, flags| {
            let v4 = self.connections(tproxy)?;
            let v6 = v4.iter().filter(|(probe, _)| probe.source.is_none());
            let v6 = v6.map(|(probe, _)| (probe.twin(), Verdict::Direct));
            let both: Vec<_> = v4.iter().cloned().chain(v6).collect();
            self.check(Families::Dual, flags, &both)
        })
    }

    fn connections(&self, tproxy: bool) -> anyhow::Result<Vec<(Probe, Verdict)>> {
        let is_tried = |wanted| !tproxy || wanted != OutboundIfRedirect;
        let of = self.wanted.iter().filter(|(_, _, wanted)| is_tried(*wanted));
        of.map(|(sender, to, wanted)| Ok((sender.probe(to)?, wanted.verdict(tproxy)))).collect()
    }

    /// With each back end and mode.
    fn each(&self, check: impl Fn(bool, &[&str]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for (name, back_end) in BACK_ENDS {
            for mode in ["REDIRECT", "TPROXY"] {
                let flags = [self.flags, back_end, &["-m", mode]].concat();
                check(mode == "TPROXY", &flags).with_context(|| format!("{name}, {mode}"))?;
            }
        }
        Ok(())
    }

    fn check(
        &self,
        families: Families,
        flags: &[&str],
        connections: &[(Probe, Verdict)],
    ) -> anyhow::Result<()> {
        let rig = Rig::create(families, &[RESOLV_CONF])?;
        apply(&rig, flags, self.env)?;
        let probes: Vec<Probe> = connections.iter().map(|(probe, _)| probe.clone()).collect();
        let verdicts = rig.send(&probes)?;
        let mut wrong = Vec::new();
        for ((probe, wanted), verdict) in connections.iter().zip(verdicts) {
            match verdict {
                Ok(verdict) if verdict == *wanted => {}
                Ok(verdict) => wrong.push(format!("{probe}: {verdict:?}, wanted {wanted:?}")),
                Err(error) => wrong.push(format!("{probe}: {error:#}, wanted {wanted:?}")),
            }
        }
        if !wrong.is_empty() {
            bail!("{families:?} {flags:?} {:?}:\n{}", self.env, wrong.join("\n"));
        }
        Ok(())
    }
}

/// The kernel remembers where a request was redirected to by its addresses and
/// ports: the agent's request to the same server must not be taken for it.
fn dns_from_one_port() -> anyhow::Result<()> {
    for (name, back_end) in BACK_ENDS {
        let rig = Rig::create(Families::Dual, &[RESOLV_CONF])?;
        apply(&rig, &[DNS_ALL.flags, back_end, DUAL].concat(), &[])?;
        for (round, (sender, wanted)) in
            [(AppUdp, Dns), (ProxyUdp, Direct)].iter().cycle().take(6).enumerate()
        {
            let probe = Probe { source_port: 4053, ..sender.probe("10.1.0.53:53")? };
            for probe in [probe.twin(), probe] {
                let verdict = rig.send(std::slice::from_ref(&probe))?.pop().context("an answer")?;
                let verdict = verdict.with_context(|| format!("{name}, {round}: {probe}"))?;
                let wanted = wanted.verdict(false);
                ensure!(verdict == wanted, "{name}, {round}: {probe}: {verdict:?}, wanted {wanted:?}");
            }
        }
    }
    Ok(())
}

/// Runs istio-init in the rig's pod.
pub(crate) fn apply(rig: &Rig, flags: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let output = rig.pod().command(&program()?).args(flags).envs(env.iter().copied()).output()?;
    ensure!(
        output.status.success(),
        "{flags:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

const DEFAULT: Scenario = Scenario {
    flags: &["-u", "1337", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021", "--drop-invalid"],
    env: &[],
    wanted: &[
        (App, "10.1.0.1:80", Outbound),
        (App, "192.0.2.1:443", Outbound),
        (App, "10.9.0.1:15008", Outbound),
        (App, "10.1.0.1:53", Outbound),
        (AppUdp, "10.1.0.53:53", Direct),
        (Root, "10.1.0.1:9999", Outbound),
        (Sender::Proxy, "10.1.0.1:80", Direct),
        (Sender::Proxy, "10.9.0.1:15008", Direct),
        (ProxyUdp, "10.1.0.53:53", Direct),
        (Group(1337), "10.1.0.1:80", Direct),
        (Peer, "10.9.0.5:80", Inbound),
        (Peer, "10.9.0.5:22", Inbound),
        (Peer, "10.10.0.5:80", Inbound),
        (Peer, "10.9.0.5:15090", Direct),
        (Peer, "10.9.0.5:15021", Direct),
        (Peer, "10.9.0.5:15008", OnlyTproxied),
        (Vm, "10.11.0.1:80", Inbound),
        // The pod to itself: the application directly, Envoy by its inbound listener.
        (App, "10.9.0.5:80", Direct),
        (Root, "10.10.0.5:8080", Direct),
        (App, "127.0.0.1:80", Direct),
        (App, "127.0.0.1:15001", Direct),
        (Sender::Proxy, "10.9.0.5:80", ToItself),
        (Sender::Proxy, "10.10.0.5:15090", ToItself),
        (Sender::Proxy, "10.9.0.5:53", ToItself),
        (Sender::Proxy, "127.0.0.1:80", Direct),
        (Sender::Proxy, "10.9.0.5:15008", OnlyTproxied),
        // What Envoy's inbound listener sends on.
        (From(PROXY, "127.0.0.6"), "127.0.0.1:80", Direct),
        (From(PROXY, "127.0.0.6"), "10.9.0.5:80", Direct),
        (From(APP, "127.0.0.6"), "10.9.0.5:80", Direct),
    ],
};

const LISTS: Scenario = Scenario {
    flags: &["-i", "10.1.0.0/16,fd00:1::/32", "-q", "3306,8000-8010", "-b", "80,8000:8010,15021"],
    env: &[],
    wanted: &[
        (App, "10.1.0.1:80", Outbound),
        (App, "10.2.0.1:80", Direct),
        (App, "10.2.0.1:3306", Outbound),
        (App, "10.2.0.1:8000", Outbound),
        (App, "10.2.0.1:8005", Outbound),
        (App, "10.2.0.1:8010", Outbound),
        (App, "10.2.0.1:8011", Direct),
        (Sender::Proxy, "10.1.0.1:3306", Direct),
        (App, "10.9.0.5:3306", Direct),
        (App, "127.0.0.1:3306", Direct),
        (Peer, "10.9.0.5:80", Inbound),
        (Peer, "10.9.0.5:8000", Inbound),
        (Peer, "10.9.0.5:8005", Inbound),
        (Peer, "10.9.0.5:8010", Inbound),
        (Peer, "10.9.0.5:8011", Direct),
        (Peer, "10.9.0.5:8080", Direct),
        (Peer, "10.9.0.5:15021", Inbound),
        (Peer, "10.9.0.5:15008", Direct),
        (Sender::Proxy, "10.9.0.5:8080", ToItself),
    ],
};

const EXCLUSIONS: Scenario = Scenario {
    flags: &[
        "-i",
        "*",
        "-x",
        "10.2.0.0/16,fd00:2::/32,10.1.0.7/32,fd00:1::7/128",
        "-o",
        "22,8000:8010",
        "-q",
        "22,443",
        "-b",
        "*",
        "-d",
        "22,8000-8010",
    ],
    env: &[],
    wanted: &[
        (App, "10.1.0.1:80", Outbound),
        (App, "10.1.0.7:80", Direct),
        (App, "10.2.0.1:80", Direct),
        // Excluded networks win over ports that are always redirected, and excluded ports as well.
        (App, "10.2.0.1:443", Direct),
        (App, "10.1.0.1:22", Direct),
        (App, "10.1.0.1:8000", Direct),
        (App, "10.1.0.1:8005", Direct),
        (App, "10.1.0.1:8010", Direct),
        (App, "10.1.0.1:8011", Outbound),
        (Peer, "10.9.0.5:80", Inbound),
        (Peer, "10.9.0.5:22", Direct),
        (Peer, "10.9.0.5:8000", Direct),
        (Peer, "10.9.0.5:8005", Direct),
        (Peer, "10.9.0.5:8010", Direct),
        (Peer, "10.9.0.5:8011", Inbound),
        (Sender::Proxy, "10.9.0.5:80", ToItself),
        (Sender::Proxy, "10.9.0.5:8011", ToItself),
    ],
};

const NOTHING: Scenario = Scenario {
    flags: &["-i", "", "-b", ""],
    env: &[],
    wanted: &[
        (App, "10.1.0.1:80", Direct),
        (App, "10.9.0.5:80", Direct),
        (Peer, "10.9.0.5:80", Direct),
        (Peer, "10.9.0.5:15008", Direct),
        (Sender::Proxy, "10.1.0.1:80", Direct),
        (Sender::Proxy, "10.9.0.5:80", ToItself),
    ],
};

const GROUPS_EXCLUDED: Scenario = Scenario {
    flags: &["-u", "1337,1338", "-i", "*", "-b", "*"],
    env: &[("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "2000,2010")],
    wanted: &[
        (App, "10.1.0.1:80", Outbound),
        (Group(2000), "10.1.0.1:80", Direct),
        (Group(2010), "10.1.0.1:80", Direct),
        (Group(2005), "10.1.0.1:80", Outbound),
        (Group(1338), "10.1.0.1:80", Direct),
        (From(1338, "10.10.0.5"), "10.1.0.1:80", Direct),
        (Group(2000), "10.9.0.5:80", Direct),
        (Peer, "10.9.0.5:80", Inbound),
    ],
};

const GROUPS_INCLUDED: Scenario = Scenario {
    flags: &["-i", "*", "-b", "*", "-q", "443"],
    env: &[("ISTIO_OUTBOUND_OWNER_GROUPS", "2000,2001")],
    wanted: &[
        (Group(2000), "10.1.0.1:80", Outbound),
        (Group(2001), "10.1.0.1:443", Outbound),
        (App, "10.1.0.1:80", Direct),
        (App, "10.1.0.1:443", Direct),
        (Group(2002), "10.1.0.1:80", Direct),
        (Sender::Proxy, "10.1.0.1:80", Direct),
        (Sender::Proxy, "10.9.0.5:80", ToItself),
        (Peer, "10.9.0.5:80", Inbound),
    ],
};

const INTERFACES: Scenario = Scenario {
    flags: &[
        "-i",
        "10.1.0.0/16,172.16.0.0/12,fd00:1::/32,fd00:16::/32,fd00:17::/32",
        "-b",
        "*",
        "-c",
        "eth1",
        "-k",
        "virt0",
    ],
    env: &[],
    wanted: &[
        (App, "172.17.0.1:80", Direct),
        (App, "172.16.0.1:80", Outbound),
        (App, "10.1.0.1:80", Outbound),
        (Peer, "10.10.0.5:80", Direct),
        (Peer, "10.9.0.5:80", Inbound),
        (Vm, "10.1.0.1:80", OutboundIfRedirect),
        (Vm, "10.2.0.1:80", OnlyTproxied),
        (Vm, "10.11.0.1:80", OnlyTproxied),
    ],
};

const DNS_LISTED: Scenario = Scenario {
    flags: &["-i", "*", "-b", "*", "--redirect-dns"],
    env: &[],
    wanted: &[
        (AppUdp, "10.1.0.53:53", Dns),
        (App, "10.1.0.53:53", Dns),
        (AppUdp, "10.2.0.53:53", Direct),
        (App, "10.2.0.53:53", Outbound),
        (App, "10.1.0.53:80", Outbound),
        (AppUdp, "127.0.0.1:53", Direct),
        (App, "127.0.0.1:53", Direct),
        (ProxyUdp, "10.1.0.53:53", Direct),
        (Sender::Proxy, "10.1.0.53:53", Direct),
        (ProxyUdp, "127.0.0.1:53", Direct),
        (Sender::Proxy, "10.9.0.5:53", OnlyTproxied),
        (Sender::Proxy, "10.9.0.5:80", ToItself),
        (Peer, "10.9.0.5:53", Inbound),
        (App, "10.1.0.1:80", Outbound),
    ],
};

const DNS_ALL: Scenario = Scenario {
    flags: &[
        "-i",
        "10.1.0.0/16,fd00:1::/32",
        "-b",
        "*",
        "--redirect-dns",
        "--capture-all-dns",
        "--drop-invalid",
    ],
    env: &[],
    wanted: &[
        (AppUdp, "10.1.0.53:53", Dns),
        (AppUdp, "10.2.0.53:53", Dns),
        (AppUdp, "192.0.2.53:53", Dns),
        (App, "10.2.0.53:53", Dns),
        (AppUdp, "127.0.0.1:53", Dns),
        (App, "127.0.0.1:53", Dns),
        (ProxyUdp, "10.1.0.53:53", Direct),
        (ProxyUdp, "10.2.0.53:53", Direct),
        (ProxyUdp, "127.0.0.1:53", Direct),
        (Sender::Proxy, "10.2.0.53:53", Direct),
        (Group(1337), "10.2.0.53:53", Direct),
        (App, "10.2.0.53:80", Direct),
        (App, "10.1.0.53:80", Outbound),
        (Peer, "10.9.0.5:80", Inbound),
    ],
};

const DNS_EXCLUDED: Scenario = Scenario {
    flags: &["-i", "*", "-o", "53", "--redirect-dns", "--capture-all-dns"],
    env: &[],
    wanted: &[
        (AppUdp, "10.1.0.53:53", Direct),
        (App, "10.1.0.53:53", Direct),
        (ProxyUdp, "10.1.0.53:53", Direct),
        (App, "10.1.0.53:80", Outbound),
        (Peer, "10.9.0.5:80", Direct),
    ],
};

const LOOPBACK: Scenario = Scenario {
    flags: &["-i", "127.0.0.2/32,10.0.0.0/8,::2/128,fd00::/8", "-b", "*"],
    env: &[],
    wanted: &[
        (App, "127.0.0.1:80", Direct),
        (App, "127.0.0.2:80", Outbound),
        // An application's own address is no loopback address, but it is in the list.
        (App, "10.9.0.5:80", Outbound),
        (From(APP, "127.0.0.6"), "10.9.0.5:80", Direct),
        (App, "192.0.2.1:80", Direct),
        (Sender::Proxy, "10.9.0.5:80", ToItself),
        (Sender::Proxy, "127.0.0.1:80", Direct),
    ],
};
