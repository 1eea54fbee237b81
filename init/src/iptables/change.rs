//! From the rules in force to the wanted ones: one text for
//! `iptables-restore --noflush`, or nothing when they are the same.

use super::ruleset::{Chain, Ruleset};

/// The changes that lead from one set of our rules to another. Each table
/// changes in one commit: chains are emptied and filled again in it, so there
/// is no moment without rules.
pub fn change(live: &Ruleset, wanted: &Ruleset) -> Option<String> {
    write(live, wanted, false)
}

/// As `change`, but rules that are in force already are written again.
pub fn rewrite(live: &Ruleset, wanted: &Ruleset) -> Option<String> {
    write(live, wanted, true)
}

fn write(live: &Ruleset, wanted: &Ruleset, again: bool) -> Option<String> {
    let mut text = String::new();
    let stale =
        live.tables().iter().filter(|table| wanted.tables().iter().all(|other| other.name != table.name));
    let mut names: Vec<&str> = wanted.tables().iter().chain(stale).map(|table| table.name.as_str()).collect();
    // Each table is a commit of its own, so what captures comes before what
    // captured goes: `mangle` is first when it has TPROXY, and else the last.
    let has_tproxy = wanted.chain("mangle", TPROXY).is_some();
    names.sort_by_key(|name| (*name == "mangle") != has_tproxy);
    for name in names {
        let (live, wanted) = (chains(live, name), chains(wanted, name));
        if again || !is_same(live, wanted) {
            commit(&mut text, name, live, wanted, again);
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The chain by which `mangle` captures.
const TPROXY: &str = "ISTIO_TPROXY";

fn chains<'a>(rules: &'a Ruleset, table: &str) -> &'a [Chain] {
    rules.tables().iter().find(|known| known.name == table).map_or(&[], |table| &table.chains)
}

fn find<'a>(chains: &'a [Chain], name: &str) -> Option<&'a Chain> {
    chains.iter().find(|chain| chain.name == name)
}

/// The order of chains means nothing, that of rules everything.
fn is_same(live: &[Chain], wanted: &[Chain]) -> bool {
    live.len() == wanted.len() && wanted.iter().all(|chain| find(live, &chain.name) == Some(chain))
}

fn commit(text: &mut String, table: &str, live: &[Chain], wanted: &[Chain], again: bool) {
    let stays = |chain: &Chain, others: &[Chain]| !again && find(others, &chain.name) == Some(chain);
    let stale = || live.iter().filter(|chain| chain.is_ours() && find(wanted, &chain.name).is_none());
    let mut line = |parts: [&str; 3]| {
        text.extend(parts);
        text.push('\n');
    };
    line(["*", table, ""]);
    for chain in wanted.iter().filter(|chain| chain.is_ours()).chain(stale()) {
        // Creates the chain or empties it.
        line([":", &chain.name, " - [0:0]"]);
    }
    for chain in live.iter().filter(|chain| !chain.is_ours() && !stays(chain, wanted)) {
        for rule in &chain.rules {
            line(["-D ", &format!("{} ", chain.name), rule]);
        }
    }
    for chain in wanted.iter().filter(|chain| chain.is_ours() || !stays(chain, live)) {
        for rule in &chain.rules {
            line(["-A ", &format!("{} ", chain.name), rule]);
        }
    }
    for chain in stale() {
        line(["-X ", &chain.name, ""]);
    }
    line(["COMMIT", "", ""]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Ruleset {
        Ruleset::parse(text)
    }

    const OLD: &str = "*nat\n:OUTPUT - \n:ISTIO_A - \n:ISTIO_B - \n-A OUTPUT -j ISTIO_A\n-A ISTIO_A -j ISTIO_B\n-A ISTIO_B -j RETURN\n";
    const NEW: &str = "*nat\n:OUTPUT - \n:ISTIO_A - \n-A OUTPUT -j ISTIO_A\n-A ISTIO_A -j DROP\n";

    #[test]
    fn nothing_to_do_is_nothing() {
        assert_eq!(change(&rules(OLD), &rules(OLD)), None);
        assert_eq!(change(&Ruleset::default(), &Ruleset::default()), None);
    }

    #[test]
    fn what_is_written_again_is_there_once() {
        assert_eq!(
            rewrite(&rules(NEW), &rules(NEW)).unwrap(),
            "*nat\n:ISTIO_A - [0:0]\n-D OUTPUT -j ISTIO_A\n-A OUTPUT -j ISTIO_A\n-A ISTIO_A -j DROP\nCOMMIT\n"
        );
    }

    #[test]
    fn order_of_rules_counts() {
        let reordered = rules("*nat\n:ISTIO_A -\n-A ISTIO_A -j DROP\n-A ISTIO_A -j RETURN\n");
        let wanted = rules("*nat\n:ISTIO_A -\n-A ISTIO_A -j RETURN\n-A ISTIO_A -j DROP\n");
        assert!(change(&reordered, &wanted).is_some());
    }

    #[test]
    fn replaces_in_one_commit_and_leaves_jumps_alone() {
        assert_eq!(
            change(&rules(OLD), &rules(NEW)).unwrap(),
            "*nat\n:ISTIO_A - [0:0]\n:ISTIO_B - [0:0]\n-A ISTIO_A -j DROP\n-X ISTIO_B\nCOMMIT\n"
        );
    }

    #[test]
    fn captures_before_it_lets_go() {
        let order = |from: &str, to: &str| -> Vec<String> {
            let text = change(&rules(from), &rules(to)).unwrap();
            text.lines().filter_map(|line| line.strip_prefix('*')).map(ToOwned::to_owned).collect()
        };
        let redirect =
            "*mangle\n:ISTIO_DROP -\n-A ISTIO_DROP -j DROP\n*nat\n:ISTIO_A -\n-A ISTIO_A -j RETURN\n";
        let tproxy =
            "*mangle\n:ISTIO_TPROXY -\n-A ISTIO_TPROXY -j DROP\n*nat\n:ISTIO_B -\n-A ISTIO_B -j RETURN\n";
        assert_eq!(order(redirect, tproxy), ["mangle", "nat"]);
        assert_eq!(order(tproxy, redirect), ["nat", "mangle"]);
    }

    #[test]
    fn removes_what_is_in_no_wanted_table() {
        assert_eq!(
            change(&rules(NEW), &Ruleset::default()).unwrap(),
            "*nat\n:ISTIO_A - [0:0]\n-D OUTPUT -j ISTIO_A\n-X ISTIO_A\nCOMMIT\n"
        );
    }
}
