//! Which virtual host and which route a request meets, by Envoy's rules.

use proto::envoy::config::route::v3::route_match::PathSpecifier;
use proto::envoy::config::route::v3::{Route, RouteConfiguration, RouteMatch, VirtualHost};
use proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use super::matching::{self, header, query, runtime_share};
use super::message::unpack;
use super::request::Request;
use super::tri::Tri;

/// Where the route of a request was looked for.
pub(super) enum Found<'a> {
    /// The route.
    Route(&'a VirtualHost, &'a Route),
    /// No virtual host has the name.
    NoHost,
    /// The virtual host has no route for it.
    NoRoute(&'a VirtualHost),
    /// A condition that this program cannot judge.
    Unknown(String),
}

/// The route of a request. `metadata`: what filters said of the request so far.
pub(super) fn find<'a>(
    routes: &'a RouteConfiguration,
    request: &Request,
    metadata: &dyn Fn(&str) -> Option<serde_json::Value>,
) -> Found<'a> {
    let Some(host) = virtual_host(routes, &request.authority) else { return Found::NoHost };
    if host.matcher.is_some() {
        return Found::Unknown(format!("virtual host {} chooses by a tree of matchers", host.name));
    }
    for route in &host.routes {
        let Some(matcher) = &route.r#match else { continue };
        match fits(matcher, request, metadata) {
            Tri::Yes => return Found::Route(host, route),
            Tri::No => {}
            Tri::Unknown => {
                return Found::Unknown(format!("whether {} applies", show(route)));
            }
        }
    }
    Found::NoRoute(host)
}

/// The virtual host for a name: exact, then the longest with `*` before, then the
/// longest with `*` after, then `*`.
pub(super) fn virtual_host<'a>(routes: &'a RouteConfiguration, authority: &str) -> Option<&'a VirtualHost> {
    let mut host = authority.to_ascii_lowercase();
    if routes.ignore_port_in_host_matching {
        host.truncate(without_port(&host).len());
    }
    let all = || {
        routes
            .virtual_hosts
            .iter()
            .flat_map(|own| own.domains.iter().map(move |domain| (own, domain.to_ascii_lowercase())))
    };
    if let Some((own, _)) = all().find(|(_, domain)| *domain == host) {
        return Some(own);
    }
    let longest = |fits: &dyn Fn(&str) -> bool| {
        all()
            .filter(|(_, domain)| domain.len() > 1 && domain.len() <= host.len() && fits(domain))
            .max_by_key(|(_, domain)| domain.len())
    };
    let ends = |domain: &str| {
        domain.strip_prefix('*').is_some_and(|end| host.ends_with(end) && host.len() > end.len())
    };
    let starts = |domain: &str| {
        domain.strip_suffix('*').is_some_and(|start| host.starts_with(start) && host.len() > start.len())
    };
    let found =
        longest(&ends).or_else(|| longest(&starts)).or_else(|| all().find(|(_, domain)| domain == "*"));
    found.map(|(own, _)| own)
}

/// A host without its port.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            // An address of IPv6 without brackets has no port.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// Whether a route's conditions hold.
fn fits(
    matcher: &RouteMatch,
    request: &Request,
    metadata: &dyn Fn(&str) -> Option<serde_json::Value>,
) -> Tri {
    let cheap = [path(matcher, request)]
        .into_iter()
        .chain(matcher.headers.iter().map(|one| header(one, request)))
        .chain(matcher.query_parameters.iter().map(|one| query(one, request)))
        .chain(matcher.grpc.as_ref().map(|_| request.is_grpc().into()));
    let tri = Tri::all(cheap);
    if tri == Tri::No {
        return Tri::No;
    }
    let said =
        matcher.dynamic_metadata.iter().map(|one| matching::metadata(one, metadata(&one.filter).as_ref()));
    let share = runtime_share(matcher.runtime_fraction.as_ref());
    let chance = match share {
        share if share >= 1.0 => Tri::Yes,
        share if share <= 0.0 => Tri::No,
        _ => Tri::Unknown,
    };
    let rare =
        !matcher.cookies.is_empty() || !matcher.filter_state.is_empty() || matcher.tls_context.is_some();
    let rare = if rare { Tri::Unknown } else { Tri::Yes };
    Tri::all([tri, chance, rare].into_iter().chain(said))
}

fn path(matcher: &RouteMatch, request: &Request) -> Tri {
    let is_sensitive = matcher.case_sensitive.unwrap_or(true);
    let fold = |text: &str| if is_sensitive { text.to_owned() } else { text.to_ascii_lowercase() };
    let path = fold(request.bare_path());
    match &matcher.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => path.starts_with(&fold(prefix)).into(),
        Some(PathSpecifier::Path(wanted)) => (path == fold(wanted)).into(),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => path
            .strip_prefix(&fold(prefix))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            .into(),
        Some(PathSpecifier::SafeRegex(regex)) => matching::regex(&regex.regex, request.bare_path()),
        Some(PathSpecifier::ConnectMatcher(_)) => (request.method == "CONNECT").into(),
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            let template = policy.typed_config.as_ref().and_then(unpack::<UriTemplateMatchConfig>);
            template.map_or(Tri::Unknown, |template| {
                matching::regex(&matching::template(&template.path_template), request.bare_path())
            })
        }
        None => Tri::Unknown,
    }
}

/// The part of the path that a rewrite of the prefix replaces.
pub(super) fn matched_length(matcher: &RouteMatch, request: &Request) -> usize {
    match &matcher.path_specifier {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => prefix.len(),
        _ => request.bare_path().len(),
    }
}

/// A route in words: its name, and what it matches.
pub(super) fn show(route: &Route) -> String {
    let conditions = route.r#match.as_ref().map(conditions).unwrap_or_default();
    let name = if route.name.is_empty() { String::new() } else { format!("{:?} ", route.name) };
    format!("route {name}({conditions})")
}

fn conditions(matcher: &RouteMatch) -> String {
    let mut parts = vec![match &matcher.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => format!("{prefix}[/*]"),
        Some(PathSpecifier::SafeRegex(regex)) => format!("/{}/", regex.regex),
        Some(PathSpecifier::ConnectMatcher(_)) => "CONNECT".into(),
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            let template = policy.typed_config.as_ref().and_then(unpack::<UriTemplateMatchConfig>);
            template.map_or_else(|| policy.name.clone(), |template| template.path_template)
        }
        None => String::new(),
    }];
    parts.extend(matcher.headers.iter().map(matching::show_header));
    parts.extend(matcher.query_parameters.iter().map(|query| format!("?{}", query.name)));
    parts.join(", ")
}

#[cfg(test)]
mod tests;
