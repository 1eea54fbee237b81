//! What the planned rules do with a new TCP connection of a process here. It
//! asks the plan only; the kernel's rules may be others.

use std::net::SocketAddr;

use crate::detect;
use crate::iptables::print::print;
use crate::plan::Plan;
use crate::rule::Protocol;
use crate::simulate::{self, Tables};

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// Whether it stays in this pod.
    pub(super) is_local: bool,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Delivered to this port.
    Redirected(u16),
    /// Left alone by this rule; without one, by the end of the rules.
    Left(Option<String>),
}

impl Packet {
    /// What becomes of it.
    pub(super) fn verdict(&self, plan: &Plan) -> Verdict {
        let interface = if self.is_local { None } else { detect::interface_of(self.source.ip()) };
        let packet = simulate::Packet {
            protocol: Protocol::Tcp,
            source: self.source.ip(),
            source_port: self.source.port(),
            destination: self.destination.ip(),
            destination_port: self.destination.port(),
            owner: Some((self.uid, self.gid)),
            input: None,
            output: Some(interface.unwrap_or_else(|| if self.is_local { "lo" } else { "eth0" }.to_owned())),
            mark: 0,
        };
        let walk = simulate::outbound(&Tables::of(plan, packet.family()), &packet);
        match walk.verdict {
            simulate::Verdict::Redirected(port) => Verdict::Redirected(port),
            _ => {
                let rule =
                    walk.decisive().filter(|met| met.table == "nat").and_then(|met| met.rule.as_ref().ok());
                Verdict::Left(rule.filter(|rule| !rule.goes_on()).map(print))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::config::{Config, Facts, env};
    use clap::Parser as _;

    fn verdict(flags: &str, uid: u32, source: &str, destination: &str) -> Verdict {
        let args = Args::try_parse_from(["istio-init"].into_iter().chain(flags.split(' '))).unwrap();
        let (args, only, _) = env::complete(args, |_| None);
        let facts = Facts { addresses: vec!["10.9.0.5".parse().unwrap()], ..Facts::default() };
        let config = Config::resolve(&args, &only, &facts).unwrap();
        let destination: SocketAddr = destination.parse().unwrap();
        let packet = Packet {
            source: SocketAddr::new(source.parse().unwrap(), 0),
            destination,
            is_local: destination.ip().is_loopback(),
            uid,
            gid: uid,
        };
        packet.verdict(&Plan::of(&config))
    }

    #[test]
    fn follows_the_rules_of_a_configuration() {
        const FLAGS: &str = "-u 1337 -i * -b *";
        let to_itself = |flags, uid| verdict(flags, uid, "127.0.0.1", "127.0.0.6:15002");
        let outbound = |flags, uid| verdict(flags, uid, "10.9.0.5", "192.0.2.1:15002");
        let left = |verdict| match verdict {
            Verdict::Left(Some(rule)) => rule,
            other => panic!("{other:?}"),
        };
        assert_eq!(to_itself(FLAGS, 1337), Verdict::Redirected(15006));
        assert_eq!(outbound(FLAGS, 1000), Verdict::Redirected(15001));
        assert_eq!(left(to_itself(FLAGS, 0)), "-o lo -m owner ! --uid-owner 1337 -j RETURN");
        assert_eq!(left(outbound(FLAGS, 1337)), "-m owner --uid-owner 1337 -j RETURN");
        assert!(left(to_itself("-u 1337 -o 15002", 1337)).contains("--dport 15002"));
        assert_eq!(left(to_itself("-u 1337 -c lo", 1337)), "-o lo -j RETURN");
        assert_eq!(left(outbound("-i * -c eth0", 1000)), "-o eth0 -j RETURN");
        assert_eq!(outbound("-i * -c eth1", 1000), Verdict::Redirected(15001));
        assert_eq!(outbound("-u 1337", 1000), Verdict::Left(None), "nothing is captured");
        assert_eq!(outbound("-q 15002", 1000), Verdict::Redirected(15001));
        assert_eq!(to_itself("-i 127.0.0.0/8", 1000), Verdict::Redirected(15001));
        assert_eq!(to_itself("-m TPROXY -b *", 1337), Verdict::Redirected(15006));
        assert_eq!(to_itself("--redirect-dns --capture-all-dns", 1337), Verdict::Redirected(15006));
    }
}
