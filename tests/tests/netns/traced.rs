//! `istio-init trace` against the kernel: what it says about a packet is what
//! becomes of it, for many generated packets, whether it looks at the rules in
//! force or at those of the flags.

use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail, ensure};
use istio_tests::netns::probe::{Place, Probe, Verdict};
use istio_tests::netns::rig::{APP, Families, PORTS, PROXY, RESOLVER, Rig, SERVERS};
use istio_tests::netns::wire::Owner;
use serde_json::Value;

use super::packets::{BACK_ENDS, RESOLV_CONF, apply};
use super::{Case, program};

pub(crate) const CASES: &[Case] = &[
    ("traced_as_the_kernel_does_with_iptables_nft", || back_end(0)),
    ("traced_as_the_kernel_does_with_iptables_legacy", || back_end(1)),
    ("traced_as_the_kernel_does_with_native_nftables", || back_end(2)),
];

/// Packets for each configuration and back end.
const PACKETS: usize = 20;
/// Traces that run side by side.
const THREADS: usize = 4;
/// Where the generator starts: another number makes other packets.
const SEED: u64 = 0x1571_0001;

struct Configuration {
    families: Families,
    flags: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

/// Flags of one pod with both families.
const fn dual(flags: &'static [&'static str]) -> Configuration {
    Configuration { families: Families::Dual, flags, env: &[] }
}

const CONFIGURATIONS: &[Configuration] = &[
    dual(&["-i", "*", "-b", "*", "-d", "15090,15021,15020", "--dual-stack"]),
    dual(&["-i", "*", "-b", "*", "-d", "15090", "--dual-stack", "-m", "TPROXY"]),
    dual(&["-i", "*", "-b", "*"]),
    Configuration { families: Families::V6, flags: &["-i", "*", "-b", "*", "-m", "TPROXY"], env: &[] },
    Configuration {
        families: Families::V4,
        flags: &["-i", "*", "-b", "*", "--redirect-dns", "--capture-all-dns"],
        env: &[],
    },
    dual(&[
        "-i",
        "10.1.0.0/16,10.9.0.0/16,fd00:1::/32",
        "-x",
        "10.1.0.0/28,fd00:1::/124",
        "-q",
        "3306,8000-8010",
        "-o",
        "22,8005",
        "-b",
        "80,8000:8010,15008",
        "--dual-stack",
        "--drop-invalid",
    ]),
    dual(&[
        "-i",
        "127.0.0.2/32,10.0.0.0/8,::1/128,fd00::/8",
        "-b",
        "80,443,15021",
        "--dual-stack",
        "-m",
        "TPROXY",
        "-t",
        "0x539",
    ]),
    dual(&["-i", "*", "-x", "192.0.2.0/24", "-b", "*", "-d", "22", "--redirect-dns", "--dual-stack"]),
    dual(&[
        "-i",
        "*",
        "-b",
        "*",
        "--redirect-dns",
        "--capture-all-dns",
        "--drop-invalid",
        "--dual-stack",
        "-m",
        "TPROXY",
        "-c",
        "eth1",
    ]),
    dual(&["-i", "10.1.0.0/16,fd00:1::/32", "-b", "*", "-c", "eth+", "-k", "virt0", "--dual-stack"]),
    dual(&["-u", "1337,1000", "-g", "2000", "-i", "*", "-b", "", "-e", "8080", "--dual-stack"]),
    Configuration {
        families: Families::Dual,
        flags: &["-i", "*", "-b", "*", "-q", "80", "--dual-stack"],
        env: &[("ISTIO_OUTBOUND_OWNER_GROUPS", "1000,2000-2001")],
    },
    Configuration {
        families: Families::Dual,
        flags: &["-i", "*", "-b", "*", "-z", "16006", "-p", "16001", "--dual-stack"],
        env: &[
            ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "2000,2001"),
            ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.0/28"),
        ],
    },
];

/// Numbers that look random and are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A packet that some listener would answer.
    fn probe(&mut self, Configuration { families, flags, .. }: &Configuration) -> anyhow::Result<Probe> {
        const OUT: &[&str] = &["10.1.0.1", "10.1.0.200", "10.2.0.1", "172.16.0.1", "172.17.0.1", "192.0.2.1"];
        const OWN: &[&str] = &["10.9.0.5", "10.10.0.5", "10.11.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.20"];
        let is_v6 = match *families {
            Families::V4 => false,
            Families::V6 => true,
            Families::Dual => self.below(2) == 0,
        };
        let place = self.one(&[Place::Pod, Place::Pod, Place::Pod, Place::Peer, Place::Vm]);
        if place == Place::Pod && self.below(3) == 0 {
            let servers: Vec<_> =
                SERVERS.iter().chain(RESOLVER).filter(|it| it.contains("::") == is_v6).collect();
            let probe = Probe::new(place, 0, self.one(&servers).parse()?);
            return Ok(Probe { owner: self.owner(), udp: true, ..probe });
        }
        // In TPROXY mode, answers to what a virtual machine sends through the pod are taken for
        // the pod's own, as with Istio: such a connection is never made.
        let cannot_forward = place == Place::Vm && flags.contains(&"TPROXY");
        let is_own = place == Place::Peer || cannot_forward || self.below(3) == 0;
        let reachable = match place {
            Place::Pod if is_own && is_v6 => &OWN[..4],
            Place::Pod if is_own => OWN,
            Place::Peer => &OWN[..2],
            Place::Vm if is_own => &OWN[..3],
            _ => OUT,
        };
        let to = format!("{}:{}", self.one(reachable), self.one(PORTS)).parse()?;
        let mut probe = Probe::new(place, 0, to);
        if place == Place::Pod {
            probe.owner = self.owner();
            if is_own && !is_v6 && self.below(4) == 0 {
                probe.source = Some("127.0.0.6".parse()?);
            }
        }
        Ok(if is_v6 { probe.twin() } else { probe })
    }

    fn owner(&mut self) -> Owner {
        let uid = self.one(&[0, APP, APP, PROXY, PROXY, 1338]);
        let gid = self.one(&[uid, uid, 0, APP, PROXY, 2000, 2001, 2002]);
        Owner { uid, gid }
    }
}

fn back_end(index: usize) -> anyhow::Result<()> {
    let (name, flags_of_it) = BACK_ENDS[index];
    let mut random = Random(SEED);
    let (mut wrong, mut seen) = (Vec::new(), Vec::new());
    for configuration in CONFIGURATIONS {
        let rig = Rig::create(configuration.families, &[RESOLV_CONF])?;
        let flags = [configuration.flags, flags_of_it].concat();
        apply(&rig, &flags, configuration.env)?;
        let probes = (0..PACKETS).map(|_| random.probe(configuration));
        let probes = probes.collect::<anyhow::Result<Vec<_>>>()?;
        let happened = rig.send(&probes)?;
        let traced = traces(&rig, &probes, &flags, configuration.env)?;
        for ((probe, happened), traced) in probes.iter().zip(happened).zip(traced) {
            let happened = happened.with_context(|| format!("{name} {flags:?}: {probe}"))?;
            seen.push(happened);
            for (what, traced) in traced {
                if traced != happened {
                    let env = configuration.env;
                    wrong.push(format!(
                        "{flags:?} {env:?}: {probe}: {what} says {traced:?}, but {happened:?}"
                    ));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "seed {SEED:#x}, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Packets to which nothing ever happens would prove nothing.
    let redirected = [15001, 15006, 15053].map(Verdict::Redirected);
    for verdict in [Verdict::Direct, Verdict::Tproxied(15006)].into_iter().chain(redirected) {
        let count = seen.iter().filter(|it| **it == verdict).count();
        ensure!(count >= 5, "{verdict:?} happened to {count} of {} packets", seen.len());
    }
    Ok(())
}

/// What the program says about each packet: from the live rules and the plan.
fn traces(
    rig: &Rig,
    probes: &[Probe],
    flags: &[&str],
    env: &[(&str, &str)],
) -> anyhow::Result<Vec<[(&'static str, Verdict); 2]>> {
    let next = AtomicUsize::new(0);
    let mut traced = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(probe) = probes.get(index) else { return anyhow::Ok(done) };
                let live = trace(rig, probe, &[], &[]).context("trace")?;
                let plan = trace(rig, probe, &[&["--plan"], flags].concat(), env).context("trace --plan")?;
                done.push((index, [("trace", live), ("trace --plan", plan)]));
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a trace panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    traced.sort_by_key(|(index, _)| *index);
    Ok(traced.into_iter().map(|(_, verdicts)| verdicts).collect())
}

fn trace(rig: &Rig, probe: &Probe, flags: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Verdict> {
    let mut command = rig.pod().command(&program()?);
    command.args(["trace", "-o", "json", "--to", &probe.to.to_string()]);
    let from = match probe.place {
        Place::Pod => {
            let Owner { uid, gid } = probe.owner;
            command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
            probe.source.map(|source| source.to_string())
        }
        Place::Peer => {
            let v4 = if probe.to.to_string().contains("10.10.") { "10.10.0.1" } else { "10.9.0.1" };
            Some(if probe.to.is_ipv4() { v4.to_owned() } else { "fd00:9::1".to_owned() })
        }
        Place::Vm => Some(if probe.to.is_ipv4() { "10.11.0.5" } else { "fd00:11::5" }.to_owned()),
    };
    if let Some(from) = from {
        command.args(["--from", &from]);
    }
    match probe.place {
        Place::Pod => {}
        Place::Peer => drop(command.args(["--inbound"])),
        Place::Vm => drop(command.args(["--inbound", "--interface", "virt0"])),
    }
    if probe.udp {
        command.arg("--udp");
    }
    let output: Output = command.args(flags).envs(env.iter().copied()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{probe}: {}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_str(&said).with_context(|| said.clone().into_owned())?;
    let port = || json["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("a port");
    Ok(match json["verdict"].as_str() {
        Some("pass") => Verdict::Direct,
        Some("redirect") => Verdict::Redirected(port()?),
        Some("tproxy") => Verdict::Tproxied(port()?),
        other => bail!("{probe}: the verdict is {other:?}"),
    })
}
