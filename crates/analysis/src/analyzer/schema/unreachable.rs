//! Rules and matches of a VirtualService that no request reaches, since one
//! before takes all that they would take.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{HttpMatchRequest, HttpRoute, StringMatch, VirtualService};

use crate::Code;

/// What is told.
type Told = Vec<(Code, String)>;

pub(super) fn check(service: &VirtualService, told: &mut Told) {
    let http: Vec<Rule> =
        service.http.iter().enumerate().map(|(index, route)| http_rule(index, route)).collect();
    let tcp = service.tcp.iter().enumerate().map(|(index, route)| plain_rule(index, &route.r#match));
    let tls = service.tls.iter().enumerate().map(|(index, route)| plain_rule(index, &route.r#match));
    for rules in [http, tcp.collect(), tls.collect()] {
        repeated(&rules, told);
    }
    overlapping(&service.http, told);
}

/// A rule: what it is called, and its matches by what they are called and say.
struct Rule {
    name: String,
    matches: Vec<(String, String)>,
}

fn http_rule(index: usize, route: &HttpRoute) -> Rule {
    let matches = route.r#match.iter().enumerate().map(|(at, one)| {
        let says = HttpMatchRequest { name: String::new(), ..one.clone() };
        (called(&one.name, at), format!("{says:?}"))
    });
    Rule { name: called(&route.name, index), matches: matches.collect() }
}

fn plain_rule<T: Debug>(index: usize, matches: &[T]) -> Rule {
    let matches = matches.iter().enumerate().map(|(at, one)| (called("", at), format!("{one:?}")));
    Rule { name: called("", index), matches: matches.collect() }
}

fn called(name: &str, index: usize) -> String {
    if name.is_empty() { format!("#{index}") } else { format!("{name:?}") }
}

fn repeated(rules: &[Rule], told: &mut Told) {
    // The first rule with a match.
    let mut known: HashMap<&str, &Rule> = HashMap::new();
    let mut takes_all = false;
    let mut unused = |rule: &Rule, why: &str| {
        let code = Code::VirtualServiceUnreachableRule;
        told.push((code, code.fill(&[&rule.name, why])));
    };
    let mut ineffective = Vec::new();
    for rule in rules {
        if rule.matches.is_empty() {
            if takes_all {
                unused(rule, "only the last rule can have no matches");
            }
            takes_all = true;
            continue;
        }
        if takes_all {
            unused(rule, "route without matches defined before");
            continue;
        }
        let mut repeated = 0;
        for (name, says) in &rule.matches {
            match known.get(says.as_str()) {
                Some(first) => {
                    ineffective.push([rule.name.clone(), name.clone(), first.name.clone()]);
                    repeated += 1;
                }
                None => drop(known.insert(says, rule)),
            }
        }
        if repeated == rule.matches.len() {
            unused(rule, "all matches used by prior rules");
        }
    }
    for [rule, name, first] in ineffective {
        let code = Code::VirtualServiceIneffectiveMatch;
        told.push((code, code.fill(&[&rule, &name, &first])));
    }
}

/// A match by a prefix of the path, and what else it asks for.
struct Prefix<'a> {
    prefix: &'a str,
    rule: String,
    name: String,
    port: u32,
    method: String,
    authority: String,
    maps: [BTreeMap<&'a str, String>; 3],
}

fn overlapping(routes: &[HttpRoute], told: &mut Told) {
    let mut all: Vec<Prefix<'_>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        if route.r#match.is_empty() {
            // Nothing after it is reached at all.
            break;
        }
        for (at, what) in route.r#match.iter().enumerate() {
            let says = HttpMatchRequest { name: String::new(), ..what.clone() };
            if seen.insert(format!("{says:?}")) {
                all.extend(prefix(called(&route.name, index), called(&what.name, at), what));
            }
        }
    }
    // Of each match, those before that begin alike.
    let mut before: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, later) in all.iter().enumerate() {
        for end in (1..later.prefix.len()).filter(|end| later.prefix.is_char_boundary(*end)) {
            for first in before.get(&later.prefix[..end]).into_iter().flatten().map(|at| &all[*at]) {
                if covers(first, later) {
                    let what = format!("{} of prefix {}", later.name, later.prefix);
                    let by = format!("{} of prefix {} on {}", first.name, first.prefix, first.rule);
                    let code = Code::VirtualServiceIneffectiveMatch;
                    told.push((code, code.fill(&[&later.rule, &what, &by])));
                }
            }
        }
        before.entry(later.prefix).or_default().push(at);
    }
}

fn prefix(rule: String, name: String, what: &HttpMatchRequest) -> Option<Prefix<'_>> {
    let Some(MatchType::Prefix(prefix)) = what.uri.as_ref().and_then(|uri| uri.match_type.as_ref()) else {
        return None;
    };
    let method = text(what.method.as_ref());
    (!prefix.is_empty()).then(|| Prefix {
        prefix,
        rule,
        name,
        port: what.port,
        // One without a method is for GET, too.
        method: if method.is_empty() { "exact:GET".to_owned() } else { method },
        authority: text(what.authority.as_ref()),
        maps: [&what.headers, &what.query_params, &what.without_headers].map(texts),
    })
}

fn texts(map: &BTreeMap<String, StringMatch>) -> BTreeMap<&str, String> {
    map.iter().map(|(name, value)| (name.as_str(), text(Some(value)))).collect()
}

fn text(what: Option<&StringMatch>) -> String {
    match what.and_then(|what| what.match_type.as_ref()) {
        Some(MatchType::Exact(text)) if !text.is_empty() => format!("exact:{text}"),
        Some(MatchType::Prefix(text)) if !text.is_empty() => format!("prefix:{text}"),
        _ => String::new(),
    }
}

/// Whether all that the later one takes is taken by the first, whose prefix it has.
fn covers(first: &Prefix<'_>, later: &Prefix<'_>) -> bool {
    let maps = first.maps.iter().zip(&later.maps);
    first.port == later.port
        && first.method.starts_with(&later.method)
        && first.authority.starts_with(&later.authority)
        && maps.into_iter().all(|(first, later)| {
            let mut pairs = first.iter().map(|(name, value)| (value, later.get(name)));
            first.len() == later.len()
                && pairs.all(|(value, other)| other.is_some_and(|other| value.starts_with(other.as_str())))
        })
}
