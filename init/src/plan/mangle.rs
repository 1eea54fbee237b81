//! Table `mangle`: what is dropped before anything else sees it, and inbound
//! capture that leaves addresses alone (TPROXY).

use super::{INBOUND, OUTPUT, PREROUTING, TO_ITSELF, Table, families};
use crate::config::{Config, Inbound, Interface, Tproxy};
use crate::rule::{Match, Protocol, Rule, State, Target};

const DROP: &str = "ISTIO_DROP";
const DIVERT: &str = "ISTIO_DIVERT";
const TPROXY: &str = "ISTIO_TPROXY";

pub(super) fn table(config: &Config) -> Table {
    let mut mangle = Table::new("mangle");
    if config.tproxy.is_some() {
        mangle.exclude(&config.interfaces_except);
    }
    if config.drop_invalid {
        // Packets outside a connection's window are not translated back; the
        // application would see a stranger's address and reset (istio/istio#36566).
        mangle.add(PREROUTING, Rule::jump(DROP).when(Match::State(State::Invalid)));
        mangle.add(DROP, Rule::new(Target::Drop));
    }
    if let Some(Tproxy { mark, .. }) = config.tproxy {
        inbound(config, mark, &mut mangle);
        mark_replies(config, mark, &mut mangle);
    }
    mangle
}

fn tcp(target: Target) -> Rule {
    Rule::new(target).protocol(Protocol::Tcp)
}

/// New inbound connections to Envoy's socket, and packets of those it has.
fn inbound(config: &Config, mark: u32, mangle: &mut Table) {
    let lo = Interface::loopback();
    mangle.add(INBOUND, tcp(Target::Return).when(Match::Mark(mark)));
    // What Envoy sends to the application, and the application to itself.
    for family in families(config) {
        mangle.add(INBOUND, tcp(Target::Return).from(family.passthrough()).input(&lo));
    }
    mangle.add(INBOUND, tcp(Target::Return).input(&lo).when(Match::NotMark(TO_ITSELF)));
    let (except, captured) = match &config.inbound {
        Inbound::None => return,
        Inbound::Only(list) => (&[][..], list.iter().copied().map(Some).collect()),
        Inbound::All { except } => (&except[..], vec![None]),
    };
    for ports in except {
        mangle.add(INBOUND, tcp(Target::Return).when(Match::Destination(*ports)));
    }
    for ports in captured {
        let to = |chain| {
            let rule = Rule::jump(chain).protocol(Protocol::Tcp);
            ports.into_iter().fold(rule, |rule, ports| rule.when(Match::Destination(ports)))
        };
        mangle.add(INBOUND, to(DIVERT).when(Match::State(State::Known)));
        mangle.add(INBOUND, to(TPROXY));
    }
    mangle.add(PREROUTING, Rule::jump(INBOUND).protocol(Protocol::Tcp));
    mangle.add(DIVERT, Rule::new(Target::SetMark(mark)));
    mangle.add(DIVERT, Rule::new(Target::Accept));
    for family in families(config) {
        let target = Target::Tproxy { port: config.inbound_port, mark };
        mangle.add(TPROXY, tcp(target).not_to(config.loopback(family)));
    }
}

/// The application's answers take the route of the packets they answer.
fn mark_replies(config: &Config, mark: u32, mangle: &mut Table) {
    let lo = Interface::loopback();
    mangle.add(PREROUTING, tcp(Target::SaveMark).when(Match::Mark(mark)));
    mangle.add(OUTPUT, tcp(Target::Return).output(&lo).when(Match::Mark(mark)));
    let uids = config.uids.iter().map(|&ids| Match::User(ids));
    let gids = config.gids.iter().map(|&ids| Match::Group(ids));
    for owner in uids.chain(gids) {
        for family in families(config) {
            let rule = tcp(Target::SetMark(TO_ITSELF)).not_to(config.loopback(family)).output(&lo);
            mangle.add(OUTPUT, rule.when(owner.clone()));
        }
    }
    mangle.add(OUTPUT, tcp(Target::RestoreMark).when(Match::ConnectionMark(mark)));
}
