//! What the kernel must be able to do for a plan, found by trying: everything
//! goes into a batch that is never ended, so nothing is ever written.

use std::fmt;

use netlink_packet_core::NLM_F_CREATE;
use nix::errno::Errno;

use super::change::{NEW_CHAIN, NEW_RULE, NEW_TABLE, SET_NAME, write_chain, write_set};
use super::code::{self, SetRef};
use super::expr::{Ct, Expr, Meta, Set, family_number};
use super::lower::lower;
use super::ruleset::Chain;
use super::socket::{Batch, Error, Socket};
use super::wire::{INET, NFT_COMPAT, Request, Writer};
use crate::family::Family;
use crate::plan::Plan;
use crate::rule::{Match, Protocol, Rule, Target};

/// A table that is tried, and never made.
const TABLE: &str = "istio-proxy-tried";
/// The chain of that table whose rules are tried.
const CHAIN: &str = "tried";

/// Something that the kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is, as the kernel calls it.
    pub name: String,
    /// What needs it: a flag, or the rules as such.
    pub needed_by: &'static str,
    /// The module that has it.
    pub module: &'static str,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, needed_by, module } = self;
        write!(f, "the kernel has no {name}, which {needed_by} needs; on the node: modprobe {module}")
    }
}

/// What the kernel lacks for a plan, in native mode or for iptables-nft.
///
/// # Errors
/// The kernel does not tell.
pub fn missing(plan: &Plan, native: bool) -> Result<Vec<Feature>, Error> {
    let mut socket = Socket::open()?;
    if native {
        super::apply::until_calm(|| try_native(&mut socket, plan))
    } else {
        ask_iptables(&mut socket, plan)
    }
}

const TPROXY: &str = "--istio-inbound-interception-mode TPROXY";
const DNS: &str = "--redirect-dns";
const STATE: &str = "--drop-invalid or --istio-inbound-interception-mode TPROXY";
const GROUPS: &str = "ISTIO_OUTBOUND_OWNER_GROUPS";
const INET_TABLES: &str = "nf_tables of family inet";
/// A rule of ours has one set at most.
const MAX_SETS: u32 = 4;
const COMPAT_GET: u8 = 0;

/// A message of the batch, and what is missing if the kernel refuses it.
struct Tried {
    number: usize,
    feature: Feature,
    /// Without these the kernel refuses it as well.
    needs: Vec<String>,
}

fn feature(name: &str, needed_by: &'static str, module: &'static str) -> Feature {
    Feature { name: name.to_owned(), needed_by, module }
}

fn try_native(socket: &mut Socket, plan: &Plan) -> Result<Vec<Feature>, Error> {
    let wanted = lower(plan);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut batch = Batch::new(None);
    let mut tried: Vec<Tried> = Vec::new();
    let create = |kind| Request::new(kind, NLM_F_CREATE, INET);
    let number = batch.add(create(NEW_TABLE), |message| {
        message.text(1, TABLE);
        message.number(2, 0);
    });
    let table = feature(INET_TABLES, "--native-nftables", "nf_tables");
    tried.push(Tried { number, feature: table, needs: Vec::new() });

    let chains: Vec<&Chain> = wanted.tables.iter().flat_map(|table| &table.chains).collect();
    for hook in chains.iter().filter_map(|chain| chain.hook.as_ref()) {
        let name = format!("nf_tables chain of type {}", hook.kind);
        if tried.iter().any(|tried| tried.feature.name == name) {
            continue;
        }
        let chain = Chain { name: hook.kind.clone(), hook: Some(hook.clone()), rules: Vec::new() };
        let number = batch.add(create(NEW_CHAIN), |message| write_chain(message, TABLE, &chain));
        let module = if hook.kind == "nat" { "nft_chain_nat" } else { "nf_tables" };
        let feature = feature(&name, "--native-nftables", module);
        tried.push(Tried { number, feature, needs: vec![INET_TABLES.to_owned()] });
    }
    let chain = Chain { name: CHAIN.to_owned(), ..Chain::default() };
    batch.add(create(NEW_CHAIN), |message| write_chain(message, TABLE, &chain));
    for rule in chains.iter().flat_map(|chain| &chain.rules) {
        try_rule(&mut batch, &mut tried, rule);
    }

    let refused = socket.send_batch(&batch)?;
    for &(number, errno) in &refused {
        match errno {
            Errno::EPERM => return Err(Error::Forbidden),
            Errno::EINTR | Errno::ERESTART => return Err(Error::Races),
            // The batch as a whole: nobody is there to read it.
            _ if number == 0 => return Err(super::socket::answer(errno)),
            _ => {}
        }
    }
    Ok(sort_out(tried, |number| refused.iter().any(|(refused, _)| *refused == number)))
}

/// What is missing, given what was refused.
fn sort_out(tried: Vec<Tried>, is_refused: impl Fn(usize) -> bool) -> Vec<Feature> {
    let mut missing: Vec<Feature> = Vec::new();
    for Tried { number, feature, needs } in tried {
        let is_known = |name: &String| missing.iter().any(|known| known.name == *name);
        if is_refused(number) && !needs.iter().any(is_known) {
            missing.push(feature);
        }
    }
    missing
}

/// Tries each kind of expression once, with those before it in the rule: what
/// it works on must have been loaded.
fn try_rule(batch: &mut Batch, tried: &mut Vec<Tried>, rule: &[Expr]) {
    let mut needs = vec![INET_TABLES.to_owned()];
    for (index, expr) in rule.iter().enumerate() {
        // Verdicts are part of every kernel, and the chains they lead to are not tried.
        if matches!(expr, Expr::Verdict(_)) {
            continue;
        }
        let feature = describe(expr);
        let name = feature.name.clone();
        if tried.iter().all(|tried| tried.feature.name != name) {
            let rule = rule[..=index].to_vec();
            let first = u32::try_from(tried.len()).unwrap_or_default() * MAX_SETS;
            let sets =
                rule.iter().filter_map(|expr| if let Expr::NotIn(set) = expr { Some(set) } else { None });
            for (id, set) in (first..).zip(sets) {
                write_set(batch, TABLE, set, id);
            }
            let number = batch.add(Request::new(NEW_RULE, NLM_F_CREATE, INET), |message| {
                let sets = (first..).map(|id| SetRef { name: SET_NAME.to_owned(), id });
                message.text(1, TABLE);
                message.text(2, CHAIN);
                message.nest(4, |list| code::encode(&rule, sets, list));
            });
            tried.push(Tried { number, feature, needs: needs.clone() });
        }
        needs.push(name);
    }
}

/// What the kernel needs for an expression.
fn describe(expr: &Expr) -> Feature {
    let of_zone = "nf_conntrack zones (nft ct zone set)";
    match expr {
        Expr::Meta(Meta::User) => feature("nft meta skuid", "--proxy-uid", "nf_tables"),
        Expr::Meta(Meta::Group) => feature("nft meta skgid", "--proxy-gid", "nf_tables"),
        Expr::Ct(Ct::State) => feature("nft ct state", STATE, "nft_ct"),
        Expr::SetCt(Ct::Zone) => feature(of_zone, DNS, "nft_ct"),
        Expr::Ct(_) | Expr::SetCt(_) => feature("nft ct mark", TPROXY, "nft_ct"),
        Expr::Tproxy(_) => feature("nft_tproxy", TPROXY, "nft_tproxy"),
        Expr::SetMeta(_) => feature("nft meta mark set", TPROXY, "nf_tables"),
        Expr::Redirect => feature("nft_redir", "the redirection to Envoy", "nft_redir"),
        Expr::NotIn(Set::Ports(_)) => feature("nft lookup", DNS, "nf_tables"),
        Expr::NotIn(Set::Ids(_)) => feature("nft lookup of ranges", GROUPS, "nf_tables"),
        Expr::Counter => feature("nft counter", "--native-nftables", "nft_counter"),
        other => feature(&format!("nft {}", code::name(other)), "--native-nftables", "nf_tables"),
    }
}

/// What iptables-nft has to load for a plan, by name, revision and family.
fn ask_iptables(socket: &mut Socket, plan: &Plan) -> Result<Vec<Feature>, Error> {
    let rules = plan.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    let mut missing: Vec<Feature> = Vec::new();
    let mut asked: Vec<(Family, Extension)> = Vec::new();
    for rule in rules {
        for family in Family::ALL.into_iter().filter(|&family| plan.has(family) && rule.is_for(family)) {
            for extension in extensions(rule) {
                if asked.contains(&(family, extension)) {
                    continue;
                }
                asked.push((family, extension));
                if !has(socket, family, extension)? {
                    let Extension { module, needed_by, .. } = extension;
                    let feature = feature(module, needed_by, module);
                    if !missing.contains(&feature) {
                        missing.push(feature);
                    }
                }
            }
        }
    }
    Ok(missing)
}

/// A match or a target of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extension {
    name: &'static str,
    /// The oldest revision that has what our rules need.
    revision: u32,
    is_target: bool,
    module: &'static str,
    needed_by: &'static str,
}

/// What a rule needs.
fn extensions(rule: &Rule) -> Vec<Extension> {
    let a_match =
        |name, revision, module, needed_by| Extension { name, revision, is_target: false, module, needed_by };
    let target =
        |name, revision, module, needed_by| Extension { name, revision, is_target: true, module, needed_by };
    let matches = rule.matches.iter().map(|condition| match condition {
        Match::User(_) | Match::NotUser(_) => a_match("owner", 1, "xt_owner", "--proxy-uid"),
        Match::Group(_) => a_match("owner", 1, "xt_owner", "--proxy-gid"),
        Match::NotGroup(_) => a_match("owner", 1, "xt_owner", GROUPS),
        Match::State(_) => a_match("conntrack", 1, "xt_conntrack", STATE),
        Match::Mark(_) | Match::NotMark(_) => a_match("mark", 1, "xt_mark", TPROXY),
        Match::ConnectionMark(_) => a_match("connmark", 1, "xt_connmark", TPROXY),
        Match::NotDestinations(_) => a_match("multiport", 1, "xt_multiport", DNS),
        Match::Destination(_) | Match::NotDestination(_) | Match::Source(_) => match rule.protocol {
            Some(Protocol::Udp) => a_match("udp", 0, "xt_tcpudp", "every condition on ports"),
            _ => a_match("tcp", 0, "xt_tcpudp", "every condition on ports"),
        },
    });
    let target = match rule.target {
        Target::Redirect(_) => Some(target("REDIRECT", 0, "xt_REDIRECT", "the redirection to Envoy")),
        Target::Zone(_) => Some(target("CT", 1, "xt_CT", DNS)),
        Target::SetMark(_) => Some(target("MARK", 2, "xt_mark", TPROXY)),
        Target::SaveMark | Target::RestoreMark => Some(target("CONNMARK", 1, "xt_connmark", TPROXY)),
        Target::Tproxy { .. } => Some(target("TPROXY", 1, "xt_TPROXY", TPROXY)),
        Target::Return | Target::Accept | Target::Drop | Target::Jump(_) => None,
    };
    matches.chain(target).collect()
}

/// Whether the kernel has it; it loads the module if it can.
fn has(socket: &mut Socket, family: Family, extension: Extension) -> Result<bool, Error> {
    let request = Request { subsystem: NFT_COMPAT, ..Request::new(COMPAT_GET, 0, family_number(family)) };
    let question = |message: &mut Writer| {
        message.text(1, extension.name);
        message.number(2, extension.revision);
        message.number(3, u32::from(extension.is_target));
    };
    match socket.ask(request, question, |_| ()) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM) => Err(Error::Forbidden),
        // Not there, not in this revision, or no nft_compat, without which none works.
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::owner::Ids;

    #[test]
    fn what_depends_on_something_missing_is_not_missing_itself() {
        let tried = |number, name: &str, needs: &[&str]| Tried {
            number,
            feature: feature(name, "--x", "m"),
            needs: needs.iter().map(ToString::to_string).collect(),
        };
        let all = || vec![tried(1, "table", &[]), tried(2, "a", &["table"]), tried(3, "b", &["table", "a"])];
        let names = |refused: &[usize]| {
            let missing = sort_out(all(), |number| refused.contains(&number));
            missing.into_iter().map(|feature| feature.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), [""; 0]);
        assert_eq!(names(&[3]), ["b"]);
        assert_eq!(names(&[2, 3]), ["a"]);
        assert_eq!(names(&[1, 2, 3]), ["table"]);
    }

    #[test]
    fn tells_which_flag_needs_what() {
        let rule = Rule::new(Target::Redirect(1)).protocol(Protocol::Udp).when(Match::User(Ids::one(1337)));
        let extensions = extensions(&rule);
        assert_eq!(extensions.iter().map(|it| it.name).collect::<Vec<_>>(), ["owner", "REDIRECT"]);
        let Extension { module, needed_by, .. } = extensions[0];
        assert_eq!(
            feature(module, needed_by, module).to_string(),
            "the kernel has no xt_owner, which --proxy-uid needs; on the node: modprobe xt_owner"
        );
    }
}
