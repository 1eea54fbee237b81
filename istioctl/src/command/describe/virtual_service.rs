//! What a VirtualService does with requests to a Service.

use std::fmt::Write as _;

use serde_json::Value;

use super::pod::items;
use super::rule::Subsets;
use crate::proxies::objects::meta;

/// Whether a route leads to the Service's pods, and what is told of it.
struct Told {
    matches: bool,
    facts: Vec<String>,
}

/// Name and namespace that a host of a VirtualService stands for, in a cluster of any domain.
fn service_of<'a>(host: &'a str, namespace: &'a str) -> (&'a str, &'a str) {
    let mut parts = host.split('.');
    let name = parts.next().unwrap_or_default();
    (name, parts.next().unwrap_or(namespace))
}

fn is_for(destination: &Value, namespace: &str, service: &Value) -> bool {
    let host = destination["host"].as_str().unwrap_or_default();
    !host.starts_with('*')
        && service_of(host, namespace) == (meta(service, "name"), meta(service, "namespace"))
}

/// Describes it, for the pods that belong to some subsets of a rule.
pub(super) fn text(
    object: &Value,
    name: &str,
    service: &Value,
    subsets: &Subsets,
    rule: Option<&str>,
    indent: usize,
) -> String {
    let pad = |level: usize| " ".repeat(indent + level);
    let (namespace, spec) = (meta(object, "namespace"), &object["spec"]);
    let (http, tcp, tls) = (items(&spec["http"]), items(&spec["tcp"]), items(&spec["tls"]));
    let mut told = format!("{}VirtualService: {name}\n", pad(0));
    let of_http = http.iter().map(|route| self::http(route, namespace, service, subsets, rule));
    let routes: Vec<Told> =
        of_http.chain(tcp.iter().map(|route| self::tcp(route, namespace, service))).collect();
    let mut facts = 0;
    for fact in routes.iter().filter(|route| route.matches).flat_map(|route| &route.facts) {
        // Writing into text cannot fail.
        let _ = writeln!(told, "{}{fact}", pad(3));
        facts += 1;
    }
    let notes: String = routes
        .iter()
        .filter(|route| !route.matches)
        .flat_map(|route| &route.facts)
        .map(|note| format!("{}{note}\n", pad(6)))
        .collect();
    let matches = routes.iter().filter(|route| route.matches).count();
    let all = http.len() + tls.len() + tcp.len();
    if matches == 0 {
        for (routes, what) in [(http, "HTTP"), (tcp, "TCP")] {
            if !routes.is_empty() {
                let _ = writeln!(
                    told,
                    "{}WARNING: No destinations match pod subsets (checked {} {what} routes)",
                    pad(3),
                    routes.len()
                );
            }
        }
        told += &notes;
    } else if matches < all {
        let _ = writeln!(
            told,
            "{}{} additional destination(s) that will not reach this pod",
            pad(3),
            all - matches
        );
        if facts == 0 {
            told += &notes;
        }
    } else if facts == 0 {
        for (routes, what) in [(http, "HTTP"), (tcp, "TCP")] {
            if !routes.is_empty() {
                let _ = writeln!(told, "{}{} {what} route(s)", pad(3), routes.len());
            }
        }
    }
    told
}

fn http(route: &Value, namespace: &str, service: &Value, subsets: &Subsets, rule: Option<&str>) -> Told {
    let (mut facts, mut notes, mut matches) = (Vec::new(), Vec::new(), false);
    for to in items(&route["route"]) {
        let destination = &to["destination"];
        let host = destination["host"].as_str().unwrap_or_default();
        let subset = destination["subset"].as_str().unwrap_or_default();
        let weight = to["weight"].as_i64().unwrap_or_default();
        if !is_for(destination, namespace, service) {
            facts.push(match subset {
                "" => format!("Route to host \"{host}\" with weight {weight}%"),
                _ => format!("Route to host \"{host}\" subset \"{subset}\" with weight {weight}%"),
            });
            continue;
        }
        let is_in = |list: &[String]| list.iter().any(|known| known == subset);
        if !subset.is_empty() && is_in(&subsets.others) {
            notes.push(format!("Route to non-matching subset {subset} for ({})", conditions(route)));
            continue;
        }
        if !subset.is_empty() && !is_in(&subsets.matching) {
            notes.push(match rule {
                None => {
                    format!("Warning: Route to subset {subset} but NO DESTINATION RULE defining subsets!")
                }
                Some(rule) => {
                    format!("Warning: Route to UNKNOWN subset {subset}; check DestinationRule {rule}")
                }
            });
            continue;
        }
        matches = true;
        if weight > 0 {
            let of = if subset.is_empty() { String::new() } else { format!(" subset \"{subset}\"") };
            facts.push(format!("Route to host \"{host}\"{of} with weight {weight}%"));
        }
    }
    if matches {
        let mut said: Vec<String> = fault(&route["fault"]).into_iter().collect();
        said.extend(items(&route["match"]).iter().map(condition));
        if !said.is_empty() {
            facts.push(said.join(", "));
        }
    } else {
        facts.append(&mut notes);
    }
    Told { matches, facts }
}

fn tcp(route: &Value, namespace: &str, service: &Value) -> Told {
    let matches = items(&route["route"]).iter().any(|to| is_for(&to["destination"], namespace, service));
    let facts =
        items(&route["match"]).iter().filter(|_| matches).map(|one| format!("Match: {}", fields(one)));
    Told { matches, facts: facts.collect() }
}

/// Each field of an object with its value.
fn fields(object: &Value) -> String {
    let pairs = object.as_object().into_iter().flatten().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

fn fault(fault: &Value) -> Option<String> {
    let share = |what: &Value| {
        what["percentage"]["value"].as_f64().or_else(|| what["percent"].as_f64()).unwrap_or(100.0)
    };
    let mut said = Vec::new();
    let (delay, abort) = (&fault["delay"], &fault["abort"]);
    if delay.is_object() {
        said.push(format!("delay {} for {}%", delay["fixedDelay"].as_str().unwrap_or("?"), share(delay)));
    }
    if abort.is_object() {
        let status = ["httpStatus", "grpcStatus", "http2Error"]
            .iter()
            .map(|name| &abort[name])
            .find(|one| !one.is_null());
        let status = status
            .map(|one| one.as_str().map_or_else(|| one.to_string(), ToOwned::to_owned))
            .unwrap_or_default();
        said.push(format!("abort {status} for {}%", share(abort)));
    }
    if said.is_empty() { None } else { Some(format!("Fault injection {}", said.join(", "))) }
}

fn conditions(route: &Value) -> String {
    let all = items(&route["match"]);
    if all.is_empty() {
        "everything".into()
    } else {
        all.iter().map(condition).collect::<Vec<_>>().join(", ")
    }
}

fn condition(of: &Value) -> String {
    let mut told = "Match: ".to_owned();
    if of["uri"].is_object() {
        told += &string(&of["uri"]);
        if of["ignoreUriCase"] == true {
            told += " uncased";
        }
    }
    if let Some(headers) = of["headers"].as_object().filter(|headers| !headers.is_empty()) {
        let headers: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", string(value))).collect();
        told += &format!(" when headers are {}", headers.join("; "));
    }
    told.trim().to_owned()
}

fn string(matcher: &Value) -> String {
    let text = |name: &str| matcher[name].as_str();
    match (text("exact"), text("prefix"), text("regex")) {
        (Some(exact), ..) => exact.to_owned(),
        (_, Some(prefix), _) => format!("{prefix}*"),
        (.., Some(regex)) => format!("regex:{regex:?}"),
        _ => String::new(),
    }
}
