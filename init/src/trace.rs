//! `istio-init trace`: which rule decides about a packet, and why.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use clap::Parser;
use serde_json::json;

use crate::args::Args;
use crate::config::Config;
use crate::iptables::print::print;
use crate::plan::Plan;
use crate::rule::Protocol;
use crate::simulate::{Met, Packet, Tables, Verdict, Walk, inbound, outbound};
use crate::{detect, live};

/// Source port of a traced packet when none is given.
const ANY_PORT: u16 = 40_000;

/// Walk one packet through the rules and tell which one decides.
#[derive(Clone, Debug, Parser)]
#[command(name = "istio-init trace", args_override_self = true, after_help = AFTER_HELP)]
pub struct Trace {
    /// User of the process that sends it.
    #[arg(long, value_name = "UID", default_value_t = 0)]
    uid: u32,
    /// Its group [default: the number of --uid].
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// Where it goes, as ADDRESS:PORT; an inbound packet goes to the pod's
    /// first address if only `:PORT` is given.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: String,
    /// Where it comes from, as ADDRESS or ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    from: Option<String>,
    /// It comes in from the network.
    #[arg(long)]
    inbound: bool,
    /// It is UDP, not TCP.
    #[arg(long)]
    udp: bool,
    /// Interface by which it leaves or comes in [default: what the routes say].
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Walk the rules that the other flags ask for, not those in force.
    #[arg(long)]
    plan: bool,
    /// Show the rules that were not for it too.
    #[arg(short = 'v', long)]
    verbose: bool,
    #[command(flatten)]
    pub(crate) flags: Args,
}

const AFTER_HELP: &str = "\
Prints text, or with `-o json` one JSON object.

Example: istio-init trace --uid 1000 --to 10.1.2.3:443
         istio-init trace --inbound --from 10.0.0.9 --to :8080
         istio-init trace --plan --uid 1337 --to 10.1.2.3:443 -i '*' -b '*'";

impl Trace {
    /// The packet that is meant.
    ///
    /// # Errors
    /// A flag that cannot be read, with what is right.
    fn packet(&self, addresses: &[IpAddr]) -> Result<Packet, String> {
        let own = addresses.iter().copied().find(|address| !address.is_loopback());
        let destination = match self.to.strip_prefix(':') {
            Some(port) if self.inbound => {
                let own = own.ok_or("--to: this pod has no address; write ADDRESS:PORT")?;
                SocketAddr::new(own, port.parse().map_err(|_| wrong("--to", &self.to))?)
            }
            _ => self.to.parse().map_err(|_| wrong("--to", &self.to))?,
        };
        let is_local = |address: IpAddr| address.is_loopback() || addresses.contains(&address);
        let source = match &self.from {
            Some(text) => text
                .parse::<SocketAddr>()
                .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, ANY_PORT)))
                .map_err(|_| wrong("--from", text))?,
            None if self.inbound => return Err("--inbound needs --from ADDRESS".to_owned()),
            None if is_local(destination.ip()) => SocketAddr::new(destination.ip(), ANY_PORT),
            None => SocketAddr::new(source_of(destination).or(own).unwrap_or(destination.ip()), ANY_PORT),
        };
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(format!("--from {source} and --to {destination} are of different families"));
        }
        let interface = match &self.interface {
            Some(name) => name.clone(),
            None if !self.inbound && is_local(destination.ip()) => "lo".to_owned(),
            None => {
                let local = if self.inbound { destination.ip() } else { source.ip() };
                detect::interface_of(local).unwrap_or_else(|| "eth0".to_owned())
            }
        };
        let owner = (self.uid, self.gid.unwrap_or(self.uid));
        Ok(Packet {
            protocol: if self.udp { Protocol::Udp } else { Protocol::Tcp },
            source: source.ip(),
            source_port: source.port(),
            destination: destination.ip(),
            destination_port: destination.port(),
            owner: (!self.inbound).then_some(owner),
            input: self.inbound.then(|| interface.clone()),
            output: (!self.inbound).then_some(interface),
            mark: 0,
        })
    }

    /// Walks and prints; the plan is that of the flags.
    ///
    /// # Errors
    /// A flag, or what cannot be read.
    pub fn run(&self, config: &Config, as_json: bool) -> anyhow::Result<String> {
        let packet = self.packet(&detect::addresses()).map_err(anyhow::Error::msg)?;
        let family = packet.family();
        let walk =
            |tables: &Tables| if self.inbound { inbound(tables, &packet) } else { outbound(tables, &packet) };
        let (walks, unknown) = if self.plan {
            (vec![("the flags given", walk(&Tables::of(&Plan::of(config), family)))], Vec::new())
        } else {
            let live = live::read()?;
            let index = usize::from(!packet.destination.is_ipv4());
            let walks = live.found.iter().map(|found| (found.by.name(), walk(&found.tables[index])));
            (walks.collect(), live.unknown)
        };
        // Of several sets of rules, the first that does something decides.
        let does_something = |(_, walk): &&(&str, Walk)| walk.verdict != Verdict::Passes;
        let decisive = walks.iter().find(does_something).or(walks.first());
        let verdict = decisive.map_or(Verdict::Passes, |(_, walk)| walk.verdict);
        if as_json {
            return Ok(format!("{:#}\n", json(&packet, verdict, decisive, &walks, &unknown)));
        }
        let mut text = format!("{}\n", describe(&packet));
        for (by, walk) in &walks {
            text += &format!("Rules of {by}:\n");
            for met in walk.met.iter().filter(|met| met.why.is_ok() || self.verbose || met.rule.is_err()) {
                text += &line(met);
            }
        }
        for unknown in unknown {
            text += &format!("Not known: {unknown}\n");
        }
        text += &format!("Verdict: {}\n", tell(verdict));
        match decisive.and_then(|(_, walk)| walk.decisive()) {
            Some(met) => text += &format!("Decided by {}\n", place(met)),
            None => text += "No rule is for it\n",
        }
        Ok(text)
    }
}

fn wrong(flag: &str, value: &str) -> String {
    format!("{flag}: `{value}`: write ADDRESS:PORT, such as 10.1.2.3:443 or [fd00::1]:443")
}

/// The address from which this machine would send there.
fn source_of(destination: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr =
        if destination.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Nothing is sent: connecting a datagram socket only looks up the route.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(destination).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn describe(packet: &Packet) -> String {
    let Packet { protocol, source, source_port, destination, destination_port, owner, input, output, .. } =
        packet;
    let from = SocketAddr::new(*source, *source_port);
    let to = SocketAddr::new(*destination, *destination_port);
    let protocol = protocol.name();
    match (owner, input, output) {
        (Some((uid, gid)), _, output) => {
            let output = output.as_deref().unwrap_or_default();
            format!("uid {uid} gid {gid} sends {protocol} {from} -> {to}, which leaves by {output}")
        }
        (None, input, _) => {
            let input = input.as_deref().unwrap_or_default();
            format!("{protocol} {from} -> {to} comes in by {input}")
        }
    }
}

fn text_of(met: &Met) -> String {
    met.rule.as_ref().map_or_else(Clone::clone, print)
}

fn place(met: &Met) -> String {
    format!("{} {} rule {}: {}", met.table, met.chain, met.number, text_of(met))
}

fn line(met: &Met) -> String {
    let (sign, why) = match &met.why {
        Ok(why) => ("*", format!("because: {why}")),
        Err(why) => (" ", format!("not: {why}")),
    };
    format!("  {sign} {}\n      {why}\n", place(met))
}

fn tell(verdict: Verdict) -> String {
    let who = |port| match port {
        names::port::OUTBOUND => " (Envoy's outbound listener)",
        names::port::INBOUND => " (Envoy's inbound listener)",
        names::port::AGENT_DNS => " (the agent's DNS proxy)",
        _ => "",
    };
    match verdict {
        Verdict::Passes => "passes by the mesh, to where it was sent".to_owned(),
        Verdict::Redirected(port) => format!("redirected to port {port}{}", who(port)),
        Verdict::Tproxied(port) => format!("delivered to port {port}{}, addresses unchanged", who(port)),
        Verdict::Dropped => "dropped".to_owned(),
    }
}

fn json(
    packet: &Packet,
    verdict: Verdict,
    decisive: Option<&(&str, Walk)>,
    walks: &[(&str, Walk)],
    unknown: &[String],
) -> serde_json::Value {
    let (what, port) = match verdict {
        Verdict::Passes => ("pass", None),
        Verdict::Redirected(port) => ("redirect", Some(port)),
        Verdict::Tproxied(port) => ("tproxy", Some(port)),
        Verdict::Dropped => ("drop", None),
    };
    let rule = |met: &Met| {
        json!({
            "table": met.table, "chain": met.chain, "number": met.number, "rule": text_of(met),
            "applies": met.why.is_ok(), "why": met.why.as_ref().unwrap_or_else(|why| why),
        })
    };
    let walks = walks
        .iter()
        .map(|(by, walk)| json!({ "rulesOf": by, "rules": walk.met.iter().map(rule).collect::<Vec<_>>() }));
    json!({
        "packet": describe(packet),
        "verdict": what,
        "port": port,
        "decidedBy": decisive.and_then(|(_, walk)| walk.decisive()).map(rule),
        "walks": walks.collect::<Vec<_>>(),
        "unknown": unknown,
    })
}
