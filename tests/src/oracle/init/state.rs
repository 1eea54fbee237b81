//! The kernel's state in the form of the recorded ones: rules of every back
//! end, routes and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::netns::Isolated;

/// Tables of iptables in nf_tables: `iptables-save` has shown them already.
const SHOWN: [&str; 4] = ["nat", "mangle", "raw", "filter"];
/// Routing rules that every system has.
const SYSTEMS: [&str; 3] = ["from all lookup local", "from all lookup main", "from all lookup default"];

/// Reads the state of a machine.
///
/// # Errors
/// When it cannot be read.
pub fn read(machine: &Isolated) -> anyhow::Result<Value> {
    let mut state = Map::new();
    let mut add = |part: &str, value: Value| {
        let is_empty =
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
        if !is_empty {
            state.insert(part.to_owned(), value);
        }
    };
    for (part, program) in [
        ("iptables", "iptables-nft-save"),
        ("ip6tables", "ip6tables-nft-save"),
        ("iptables_legacy", "iptables-legacy-save"),
        ("ip6tables_legacy", "ip6tables-legacy-save"),
    ] {
        add(part, tables(&text(machine, program, &[])?).into());
    }
    add("nft", nft(&text(machine, "nft", &["-s", "list", "ruleset"])?).into());
    for (part, family) in [("ip_rule", "-4"), ("ip6_rule", "-6")] {
        let rules = text(machine, "ip", &[family, "rule"])?;
        let rules = rules.lines().filter_map(|line| Some(line.split_once(':')?.1.trim()));
        add(part, rules.filter(|rule| !SYSTEMS.contains(rule)).collect());
    }
    for (part, family) in [("ip_route", "-4"), ("ip6_route", "-6")] {
        add(part, routes(&text(machine, "ip", &[family, "-j", "-N", "route", "show", "table", "all"])?)?);
    }
    add("lo_extra_addrs", addresses(&text(machine, "ip", &["-j", "addr", "show", "dev", "lo"])?)?);
    Ok(state.into())
}

fn text(machine: &Isolated, program: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut command: Command = machine.command(Path::new(program));
    let output = command.args(args).output().context(program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Policy of a built-in chain, and rules.
type Chain = (Option<String>, Vec<String>);

/// What `iptables-save` printed, without what is always there.
fn tables(text: &str) -> Map<String, Value> {
    let mut tables: BTreeMap<String, BTreeMap<String, Chain>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let policy = (policy != "-").then(|| policy.to_owned());
            tables.entry(table.clone()).or_default().insert(name.to_owned(), (policy, Vec::new()));
        } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            let chain = tables.entry(table.clone()).or_default().entry(name.to_owned()).or_default();
            chain.1.push(rule.to_owned());
        }
    }
    let chain = |(policy, rules): Chain| match policy {
        Some(policy) => json!({ "policy": policy, "rules": rules }),
        None => json!({ "rules": rules }),
    };
    let says_something = |(policy, rules): &Chain| !rules.is_empty() || policy.as_deref() != Some("ACCEPT");
    let tables = tables.into_iter().filter_map(|(name, chains)| {
        let kept = chains.into_iter().filter(|(_, found)| says_something(found));
        let chains: Map<String, Value> = kept.map(|(name, found)| (name, chain(found))).collect();
        (!chains.is_empty()).then(|| (name, chains.into()))
    });
    tables.collect()
}

/// What `nft list ruleset` printed.
fn nft(text: &str) -> Map<String, Value> {
    let mut tables: Map<String, Value> = Map::new();
    let (mut table, mut chain) = (String::new(), String::new());
    for line in text.lines() {
        let line = line.trim();
        let named = |what: &str| line.strip_prefix(what)?.strip_suffix(" {").map(ToOwned::to_owned);
        if let Some(name) = named("table ") {
            tables.insert(name.clone(), json!({}));
            table = name;
        } else if let Some(name) = named("chain ") {
            tables[&table][&name] = json!({ "rules": [] });
            chain = name;
        } else if line == "}" {
            chain.clear();
        } else if !chain.is_empty() && line.starts_with("type ") {
            tables[&table][&chain]["hook"] = line.into();
        } else if let Some(rules) = tables
            .get_mut(&table)
            .and_then(|table| table.get_mut(&chain))
            .and_then(|chain| chain["rules"].as_array_mut())
            .filter(|_| !line.is_empty())
        {
            rules.push(line.into());
        }
    }
    let is_shown = |name: &str| {
        name.split_once(' ')
            .is_some_and(|(family, name)| matches!(family, "ip" | "ip6") && SHOWN.contains(&name))
    };
    tables.into_iter().filter(|(name, _)| !is_shown(name)).collect()
}

/// Routes of tables that are not the system's.
fn routes(json: &str) -> anyhow::Result<Value> {
    if json.trim().is_empty() {
        return Ok(json!([]));
    }
    let page: Vec<Map<String, Value>> = serde_json::from_str(json)?;
    let word = |route: &Map<String, Value>, key: &str| match route.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let ours = page.iter().filter_map(|route| {
        let table = Some(word(route, "table")).filter(|table| !table.is_empty())?;
        if ["254", "255", "main", "local"].contains(&table.as_str()) {
            return None;
        }
        let kind = match word(route, "type").as_str() {
            "2" => "local".to_owned(),
            "" | "1" => "unicast".to_owned(),
            other => other.to_owned(),
        };
        Some(format!("table {table}: {kind} {} dev {}", word(route, "dst"), word(route, "dev")))
    });
    Ok(ours.collect::<BTreeSet<String>>().into_iter().collect())
}

/// Addresses of `lo` beyond its own.
fn addresses(json: &str) -> anyhow::Result<Value> {
    let page: Value = serde_json::from_str(json)?;
    let infos =
        page.as_array().into_iter().flatten().filter_map(|link| link["addr_info"].as_array()).flatten();
    let all =
        infos.map(|info| format!("{}/{}", info["local"].as_str().unwrap_or_default(), info["prefixlen"]));
    let extra: BTreeSet<String> =
        all.filter(|address| address != "127.0.0.1/8" && address != "::1/128").collect();
    Ok(extra.into_iter().collect())
}
