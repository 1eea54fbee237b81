//! A model of what an AuthorizationPolicy means, and of how Envoy decides by
//! what is made of it: both must agree on every request.

use mesh::MeshConfig;
use proptest::prelude::*;
use proto::envoy::config::core::v3::CidrRange;
use proto::envoy::config::route::v3::HeaderMatcher;
use proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use proto::envoy::r#type::matcher::v3::{StringMatcher, path_matcher};
use proto::istio::security::v1beta1::{Operation, Rule, Source, rule};

use super::*;

/// A request, as far as policies see it.
#[derive(Clone, Debug)]
struct Request {
    /// Trust domain, namespace and service account of the peer's certificate.
    peer: Option<[String; 3]>,
    ip: [u8; 4],
    host: String,
    path: String,
    method: String,
    port: u16,
    /// Issuer and subject of the token.
    token: Option<[String; 2]>,
}

impl Request {
    fn identity(&self) -> Option<String> {
        let [domain, namespace, account] = self.peer.as_ref()?;
        Some(format!("{domain}/ns/{namespace}/sa/{account}"))
    }
}

// What Istio's reference says of each field.

/// Exact, `x*`, `*x` or `*`, which is anything that is there.
fn fits(pattern: &str, text: &str) -> bool {
    match (pattern, pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        ("*", ..) => !text.is_empty(),
        (_, Some(end), _) => text.ends_with(end),
        (_, None, Some(start)) => text.starts_with(start),
        _ => text == pattern,
    }
}

/// `{**}` is whatever follows a slash, which may be nothing.
fn fits_template(template: &str, path: &str) -> bool {
    fn walk(pattern: &[&str], path: &[&str]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((&"{**}", rest)) => (1..=path.len()).any(|skip| walk(rest, &path[skip..])),
            Some((&"{*}", rest)) => {
                path.split_first().is_some_and(|(one, left)| !one.is_empty() && walk(rest, left))
            }
            Some((literal, rest)) => {
                path.split_first().is_some_and(|(one, left)| one == literal && walk(rest, left))
            }
        }
    }
    walk(&template.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>())
}

fn fits_path(pattern: &str, path: &str) -> bool {
    if pattern.contains("{*}") || pattern.contains("{**}") {
        fits_template(pattern, path)
    } else {
        fits(pattern, path)
    }
}

fn fits_network(block: &str, ip: [u8; 4]) -> bool {
    let (address, length) = block.split_once('/').unwrap_or((block, "32"));
    let number = |ip: [u8; 4]| u32::from_be_bytes(ip);
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let shift = 32 - length.parse::<u32>().unwrap();
    number(address.octets()).checked_shr(shift) == number(ip).checked_shr(shift)
}

/// One of `values`, if there are any, and none of `not_values`.
fn either(values: &[String], not_values: &[String], fits: impl Fn(&str) -> bool) -> bool {
    (values.is_empty() || values.iter().any(|value| fits(value)))
        && !not_values.iter().any(|value| fits(value))
}

/// The trust domains that one of the mesh's stands for.
fn domains(domain: &str) -> Vec<&str> {
    if domain == "cluster.local" || OWN.contains(&domain) { OWN.to_vec() } else { vec![domain] }
}

/// The mesh's own trust domain and its alias.
const OWN: [&str; 2] = ["td1", "td2"];

fn fits_principal(pattern: &str, identity: &str) -> bool {
    match pattern.split_once('/') {
        Some((domain, rest)) if pattern.split('/').count() == 5 && domain != "*" => {
            // A pattern that one of the mesh's fits stands for all of them, too.
            let is_meant = |end: &str| OWN.iter().any(|known| known.ends_with(end));
            let mut all = domains(domain);
            if domain.strip_prefix('*').is_some_and(is_meant) {
                all.extend(OWN);
            }
            all.iter().any(|domain| fits(&format!("{domain}/{rest}"), identity))
        }
        _ => fits(pattern, identity),
    }
}

fn source(source: &Source, request: &Request) -> bool {
    let identity = request.identity();
    let of_peer = |fits: &dyn Fn(&str, &[String; 3]) -> bool, pattern: &str| {
        request.peer.as_ref().is_some_and(|peer| fits(pattern, peer))
    };
    either(&source.principals, &source.not_principals, |pattern| {
        identity.as_ref().is_some_and(|identity| fits_principal(pattern, identity))
    }) && either(&source.namespaces, &source.not_namespaces, |pattern| {
        of_peer(&|pattern, peer| fits(pattern, &peer[1]), pattern)
    }) && either(&source.service_accounts, &source.not_service_accounts, |pattern| {
        let (namespace, account) = pattern.split_once('/').unwrap_or(("ns", pattern));
        of_peer(&|_, peer| peer[1] == namespace && peer[2] == account, pattern)
    }) && either(&source.trust_domains, &source.not_trust_domains, |pattern| {
        of_peer(
            &|pattern, peer| {
                let all = if pattern == "cluster.local" { vec![pattern] } else { domains(pattern) };
                all.iter().any(|domain| fits(domain, &peer[0]))
            },
            pattern,
        )
    }) && either(&source.ip_blocks, &source.not_ip_blocks, |block| fits_network(block, request.ip))
        && either(&source.request_principals, &source.not_request_principals, |pattern| {
            request.token.as_ref().is_some_and(|[issuer, subject]| match pattern.split_once('/') {
                None => fits(pattern, &format!("{issuer}/{subject}")),
                Some((wanted, name)) => fits(wanted, issuer) && fits(name, subject),
            })
        })
}

fn operation(operation: &Operation, request: &Request) -> bool {
    let lower = str::to_ascii_lowercase;
    either(&operation.hosts, &operation.not_hosts, |pattern| fits(&lower(pattern), &lower(&request.host)))
        && either(&operation.methods, &operation.not_methods, |pattern| fits(pattern, &request.method))
        && either(&operation.paths, &operation.not_paths, |pattern| fits_path(pattern, &request.path))
        && either(&operation.ports, &operation.not_ports, |port| *port == request.port.to_string())
}

fn matches(rule: &Rule, request: &Request) -> bool {
    (rule.from.is_empty() || rule.from.iter().any(|from| source(from.source.as_ref().unwrap(), request)))
        && (rule.to.is_empty() || rule.to.iter().any(|to| operation(to.operation.as_ref().unwrap(), request)))
}

// How Envoy decides.

fn string(matcher: &StringMatcher, text: &str) -> bool {
    let lower = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let text = lower(text);
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(wanted) => text == lower(wanted),
        MatchPattern::Prefix(wanted) => text.starts_with(&lower(wanted)),
        MatchPattern::Suffix(wanted) => text.ends_with(&lower(wanted)),
        MatchPattern::SafeRegex(wanted) => {
            regex::Regex::new(&format!("^(?:{})$", wanted.regex)).unwrap().is_match(&text)
        }
        other => panic!("{other:?}"),
    }
}

fn header(matcher: &HeaderMatcher, request: &Request) -> bool {
    let value = match matcher.name.as_str() {
        ":authority" => &request.host,
        ":method" => &request.method,
        other => panic!("{other}"),
    };
    match matcher.header_match_specifier.as_ref().unwrap() {
        HeaderMatchSpecifier::PresentMatch(true) => true,
        HeaderMatchSpecifier::StringMatch(wanted) => string(wanted, value),
        other => panic!("{other:?}"),
    }
}

fn network(range: &CidrRange, ip: [u8; 4]) -> bool {
    fits_network(&format!("{}/{}", range.address_prefix, range.prefix_len.unwrap()), ip)
}

fn permits(permission: &Permission, request: &Request) -> bool {
    match permission.rule.as_ref().unwrap() {
        PermissionRule::Any(any) => *any,
        PermissionRule::AndRules(set) => set.rules.iter().all(|rule| permits(rule, request)),
        PermissionRule::OrRules(set) => set.rules.iter().any(|rule| permits(rule, request)),
        PermissionRule::NotRule(rule) => !permits(rule, request),
        PermissionRule::Header(matcher) => header(matcher, request),
        PermissionRule::DestinationPort(port) => *port == u32::from(request.port),
        PermissionRule::UrlPath(matcher) => {
            let path_matcher::Rule::Path(matcher) = matcher.rule.as_ref().unwrap();
            string(matcher, &request.path)
        }
        PermissionRule::UriTemplate(config) => {
            let config: UriTemplateMatchConfig = config.typed_config.as_ref().unwrap().unpack().unwrap();
            // As its regular expression in Envoy: one segment, or anything.
            let segments = config.path_template.split('/').map(|segment| match segment {
                "*" => "[^/]+".to_owned(),
                "**" => ".*".to_owned(),
                literal => regex::escape(literal),
            });
            let pattern = segments.collect::<Vec<_>>().join("/");
            regex::Regex::new(&format!("^{pattern}$")).unwrap().is_match(&request.path)
        }
        other => panic!("{other:?}"),
    }
}

fn is(principal: &Principal, request: &Request) -> bool {
    match principal.identifier.as_ref().unwrap() {
        Identifier::Any(any) => *any,
        Identifier::AndIds(set) => set.ids.iter().all(|id| is(id, request)),
        Identifier::OrIds(set) => set.ids.iter().any(|id| is(id, request)),
        Identifier::NotId(id) => !is(id, request),
        Identifier::DirectRemoteIp(range) => network(range, request.ip),
        Identifier::Authenticated(peer) => request.identity().is_some_and(|identity| {
            string(peer.principal_name.as_ref().unwrap(), &format!("spiffe://{identity}"))
        }),
        Identifier::Metadata(matcher) => {
            use proto::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
            let keys: Vec<&str> = matcher
                .path
                .iter()
                .map(|segment| {
                    let Segment::Key(key) = segment.segment.as_ref().unwrap();
                    key.as_str()
                })
                .collect();
            let index = ["iss", "sub"].iter().position(|name| keys == ["payload", name]).unwrap();
            let pattern = matcher.value.as_ref().unwrap().match_pattern.as_ref().unwrap();
            let ValuePattern::StringMatch(wanted) = pattern else { panic!("{pattern:?}") };
            request.token.as_ref().is_some_and(|token| string(wanted, &token[index]))
        }
        other => panic!("{other:?}"),
    }
}

fn decides(policy: &EnvoyPolicy, request: &Request) -> bool {
    policy.permissions.iter().any(|permission| permits(permission, request))
        && policy.principals.iter().any(|principal| is(principal, request))
}

// Few words, so that they meet.

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "a.b", "axb", "a-b", "ab"]).prop_map(str::to_owned)
}

fn domain() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["td1", "td2", "cluster.local", "other.td", "otherxtd"]).prop_map(str::to_owned)
}

fn patterns(of: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = Vec<String>> {
    let of = of.boxed();
    let pattern = prop_oneof![
        4 => of.clone(),
        1 => of.clone().prop_map(|word| format!("{word}*")),
        1 => of.prop_map(|word| format!("*{word}")),
        1 => Just("*".to_owned()),
    ];
    prop::collection::vec(pattern, 0..3)
}

fn identity() -> impl Strategy<Value = String> {
    (domain(), word(), word())
        .prop_map(|(domain, namespace, account)| format!("{domain}/ns/{namespace}/sa/{account}"))
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(word(), 1..4).prop_map(|words| format!("/{}", words.join("/")))
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    let segment = prop_oneof![2 => word(), 1 => Just("{*}".to_owned())];
    let template = (prop::collection::vec(segment, 1..4), any::<bool>()).prop_map(|(mut segments, any)| {
        if any {
            segments.push("{**}".into());
        }
        format!("/{}", segments.join("/"))
    });
    let templates = prop::collection::vec(template, 0..2);
    (patterns(path()), templates).prop_map(|(paths, templates)| [paths, templates].concat())
}

fn request_principals() -> impl Strategy<Value = Vec<String>> {
    let of = (word(), word(), 0..4).prop_map(|(issuer, subject, form)| match form {
        0 => format!("{issuer}/{subject}"),
        1 => format!("{issuer}/*"),
        2 => format!("*/{subject}"),
        _ => "*".to_owned(),
    });
    prop::collection::vec(of, 0..2)
}

fn networks() -> impl Strategy<Value = Vec<String>> {
    let block = (0..3_u8, 0..3_u8, prop::sample::select(vec![8, 16, 24, 31, 32]))
        .prop_map(|(third, last, length)| format!("10.0.{third}.{last}/{length}"));
    prop::collection::vec(block, 0..2)
}

fn a_source() -> impl Strategy<Value = Source> {
    let accounts = || {
        prop::collection::vec(
            prop_oneof![word(), (word(), word()).prop_map(|(a, b)| format!("{a}/{b}"))],
            0..2,
        )
    };
    let positive = (
        patterns(identity()),
        patterns(word()),
        accounts(),
        patterns(domain()),
        networks(),
        request_principals(),
    );
    let negative = (
        patterns(identity()),
        patterns(word()),
        accounts(),
        patterns(domain()),
        networks(),
        request_principals(),
    );
    (positive, negative, any::<u16>()).prop_map(|(yes, no, mask)| {
        // Of twelve fields few are set, or nothing would ever fit.
        let keep = |bit: u16, values: Vec<String>| {
            if mask.rotate_left(3) >> bit & mask >> bit & 1 == 1 { values } else { Vec::new() }
        };
        Source {
            principals: keep(0, yes.0),
            namespaces: keep(1, yes.1),
            service_accounts: keep(2, yes.2),
            trust_domains: keep(3, yes.3),
            ip_blocks: keep(4, yes.4),
            request_principals: keep(5, yes.5),
            not_principals: keep(6, no.0),
            not_namespaces: keep(7, no.1),
            not_service_accounts: keep(8, no.2),
            not_trust_domains: keep(9, no.3),
            not_ip_blocks: keep(10, no.4),
            not_request_principals: keep(11, no.5),
            ..Source::default()
        }
    })
}

fn an_operation() -> impl Strategy<Value = Operation> {
    let ports =
        || prop::collection::vec(prop::sample::select(vec!["80", "90"]).prop_map(str::to_owned), 0..2);
    let host = || prop_oneof![word(), word().prop_map(|word| word.to_uppercase())];
    let positive = (patterns(host()), patterns(word()), paths(), ports());
    let negative = (patterns(host()), patterns(word()), paths(), ports());
    (positive, negative, any::<u8>()).prop_map(|(yes, no, mask)| {
        let keep = |bit: u8, values: Vec<String>| if mask >> bit & 1 == 1 { values } else { Vec::new() };
        Operation {
            hosts: keep(0, yes.0),
            methods: keep(1, yes.1),
            paths: keep(2, yes.2),
            ports: keep(3, yes.3),
            not_hosts: keep(4, no.0),
            not_methods: keep(5, no.1),
            not_paths: keep(6, no.2),
            not_ports: keep(7, no.3),
        }
    })
}

fn a_rule() -> impl Strategy<Value = Rule> {
    (prop::collection::vec(a_source(), 0..3), prop::collection::vec(an_operation(), 0..3)).prop_map(
        |(from, to)| Rule {
            from: from.into_iter().map(|source| rule::From { source: Some(source) }).collect(),
            to: to.into_iter().map(|operation| rule::To { operation: Some(operation) }).collect(),
            when: Vec::new(),
        },
    )
}

fn a_request() -> impl Strategy<Value = Request> {
    let domain = prop::sample::select(vec!["td1", "td2", "other.td", "otherxtd"]).prop_map(str::to_owned);
    let peer = prop::option::weighted(0.8, (domain, prop_oneof![word(), Just("ns".to_owned())], word()));
    let token = prop::option::of((word(), word()));
    let host = prop_oneof![word(), word().prop_map(|word| word.to_uppercase())];
    let port = prop::sample::select(vec![80_u16, 90]);
    (peer, 0..3_u8, 0..3_u8, host, path(), word(), port, token).prop_map(
        |(peer, third, last, host, path, method, port, token)| Request {
            peer: peer.map(|(domain, namespace, account)| [domain, namespace, account]),
            ip: [10, 0, third, last],
            host,
            path,
            method,
            port,
            token: token.map(|(issuer, subject)| [issuer, subject]),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn envoy_decides_as_the_policy_says(rule in a_rule(), requests in prop::collection::vec(a_request(), 16)) {
        let mesh = MeshConfig::from_yaml("{trustDomain: td1, trustDomainAliases: [td2]}").unwrap();
        let domains = [vec![mesh.trust_domain().to_owned()], mesh.trust_domain_aliases.clone()].concat();
        let context =
            super::rule::Context { namespace: "ns", trust_domains: &domains, is_tcp: false, is_strict: true };
        let policy = super::rule::translate(&rule, context).unwrap();
        for request in requests {
            prop_assert_eq!(decides(&policy, &request), matches(&rule, &request), "{:?}", request);
        }
    }
}
