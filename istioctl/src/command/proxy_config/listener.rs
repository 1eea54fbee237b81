//! Listeners.

use std::io::Write;

use super::{Format, list};
use crate::args::proxy_config::Listener as Args;
use crate::dump::view::{
    Filter, FilterChainMatch, HttpConnectionManager, Listener, RouteConfiguration, RouteMatch, TcpProxy,
    VirtualHost,
};
use crate::dump::{ConfigDump, Error, Resource};
use crate::failure::Result;
use crate::json::Text;
use crate::render::table::{NARROW, Table};

const TYPE: &str = "envoy.config.listener.v3.Listener";
const HTTP: &str = "envoy.filters.network.http_connection_manager";
const TCP: &str = "envoy.filters.network.tcp_proxy";
/// Cluster of connections that nothing is done with.
const BLACK_HOLE: &str = "BlackHoleCluster";

/// Lists of protocols that have a name.
const PROTOCOLS: &[(&str, &[&str])] = &[
    ("App: HTTP TLS", &["http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: Istio HTTP Plain", &["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: TCP TLS", &["istio-peer-exchange", "istio"]),
    ("App: HTTP", &["http/1.0", "http/1.1", "h2c"]),
];

/// Which listeners, and how much of each.
pub(super) struct Which<'a> {
    pub(super) address: &'a str,
    pub(super) port: u32,
    pub(super) kind: &'a str,
    pub(super) is_verbose: bool,
}

pub(super) fn show(args: &Args, dump: &ConfigDump<'_>, format: Format, out: &mut impl Write) -> Result {
    let which =
        Which { address: &args.address, port: args.port, kind: &args.kind, is_verbose: args.verbose.verbose };
    if format == Format::Short {
        return Ok(out.write_all(summary(dump, &which, false)?.as_bytes())?);
    }
    let found = all(dump)?.into_iter().filter_map(|resource| match resource.read() {
        Ok(listener) => which.fits(&listener).then(|| resource.value()),
        Err(error) => Some(Err(error)),
    });
    list(TYPE, found, format, out)
}

/// The table; `is_typed` if it is one of several.
pub(super) fn summary(
    dump: &ConfigDump<'_>,
    which: &Which<'_>,
    is_typed: bool,
) -> std::result::Result<String, Error> {
    let mut rows = Vec::new();
    for resource in all(dump)? {
        let listener: Listener<'_> = resource.read()?;
        if !which.fits(&listener) {
            continue;
        }
        let ip = listener.ip().to_owned();
        let kind = kind(&listener);
        let others = listener.additional_addresses.iter().map(|other| socket(&other.address));
        let addresses = std::iter::once(ip.clone()).chain(others).collect::<Vec<_>>().join(",");
        let name = is_typed.then(|| format!("listener/{}", listener.name));
        let head = || name.iter().cloned().chain([addresses.clone(), listener.port().to_string()]);
        let lines: Vec<Vec<String>> = if which.is_verbose {
            let mut matches: Vec<(String, String)> = listener
                .chains()
                .map(|chain| (matched(chain.filter_chain_match.as_ref()), destination(&chain.filters)))
                .collect();
            matches.sort_by(|(_, one), (_, other)| other.cmp(one));
            matches.into_iter().map(|(matched, to)| head().chain([matched, to]).collect()).collect()
        } else {
            vec![head().chain([kind.to_owned()]).collect()]
        };
        rows.push(((listener.port(), ip, kind), lines));
    }
    rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut table = Table::new(NARROW);
    let tail: &[&str] = if which.is_verbose { &["MATCH", "DESTINATION"] } else { &["TYPE"] };
    let head = ["ADDRESSES", "PORT"].iter().chain(tail).copied();
    table.row(is_typed.then_some("NAME").into_iter().chain(head));
    for line in rows.into_iter().flat_map(|(_, lines)| lines) {
        table.row(line);
    }
    Ok(table.render())
}

fn all<'a>(dump: &ConfigDump<'a>) -> std::result::Result<Vec<Resource<'a>>, Error> {
    let all = dump.listeners()?;
    if all.is_empty() { Err(Error::Empty("listeners")) } else { Ok(all) }
}

impl Which<'_> {
    fn fits(&self, listener: &Listener<'_>) -> bool {
        let others = listener.additional_addresses.iter().map(|other| socket(&other.address));
        let mut addresses = std::iter::once(listener.ip().to_owned()).chain(others);
        (self.address.is_empty() || addresses.any(|ip| ip.eq_ignore_ascii_case(self.address)))
            && (self.port == 0 || self.port == listener.port())
            && (self.kind.is_empty() || kind(listener).eq_ignore_ascii_case(self.kind))
    }
}

fn socket(address: &crate::dump::view::Address<'_>) -> String {
    address.socket_address.as_ref().map(|socket| socket.address.to_string()).unwrap_or_default()
}

/// Whether a filter only ends connections.
fn is_black_hole(filter: &Filter<'_>) -> bool {
    filter.typed_config.is_some_and(|raw| raw.get().contains(BLACK_HOLE))
}

fn kind(listener: &Listener<'_>) -> &'static str {
    let filters = || listener.chains().flat_map(|chain| &chain.filters);
    let is_http = filters().any(|filter| &*filter.name == HTTP);
    let is_tcp = filters().any(|filter| &*filter.name == TCP && !is_black_hole(filter));
    match (is_http, is_tcp) {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

fn join(texts: &[Text<'_>], between: &str) -> String {
    texts.iter().map(|text| &**text).collect::<Vec<_>>().join(between)
}

/// For which connections a chain is.
pub(super) fn matched(chain: Option<&FilterChainMatch<'_>>) -> String {
    let Some(chain) = chain else { return "ALL".into() };
    let mut said = Vec::new();
    if !chain.server_names.is_empty() {
        said.push(format!("SNI: {}", join(&chain.server_names, ",")));
    }
    if !chain.transport_protocol.is_empty() {
        said.push(format!("Trans: {}", chain.transport_protocol));
    }
    if !chain.application_protocols.is_empty() {
        let known = PROTOCOLS.iter().find(|(_, list)| {
            chain.application_protocols.iter().map(|text| &**text).eq(list.iter().copied())
        });
        said.push(match known {
            Some((name, _)) => (*name).to_owned(),
            None => format!("App: {}", join(&chain.application_protocols, ",")),
        });
    }
    let port = chain.destination_port.map(|port| format!(":{port}")).unwrap_or_default();
    if !chain.prefix_ranges.is_empty() {
        let ranges = chain.prefix_ranges.iter();
        let ranges =
            ranges.map(|range| format!("{}/{}", range.address_prefix, range.prefix_len.unwrap_or(0)));
        said.push(format!("Addr: {}{port}", ranges.collect::<Vec<_>>().join(",")));
    } else if !port.is_empty() {
        said.push(format!("Addr: *{port}"));
    }
    if said.is_empty() { "ALL".into() } else { said.join("; ") }
}

/// A cluster; some have a name that tells what they are.
fn cluster(name: &str) -> String {
    if name.contains("Cluster") { name.to_owned() } else { format!("Cluster: {name}") }
}

/// Where the connections of a chain go.
pub(super) fn destination(filters: &[Filter<'_>]) -> String {
    for filter in filters {
        if &*filter.name == HTTP {
            let manager: HttpConnectionManager<'_> = match filter.read() {
                Ok(manager) => manager,
                Err(error) => return error.to_string(),
            };
            if let Some(routes) = &manager.route_config {
                return inline(routes);
            }
            let name = manager.rds.map(|rds| rds.route_config_name.to_string()).unwrap_or_default();
            return if name.is_empty() { "HTTP".into() } else { format!("Route: {name}") };
        }
        if &*filter.name == TCP && !is_black_hole(filter) {
            return match filter.read::<TcpProxy<'_>>() {
                Ok(proxy) => cluster(&proxy.cluster),
                Err(error) => error.to_string(),
            };
        }
    }
    "Non-HTTP/Non-TCP".into()
}

fn inline(routes: &RouteConfiguration<'_>) -> String {
    if let Some(cluster) = only_cluster(routes) {
        return cluster;
    }
    let hosts = routes.virtual_hosts.iter().map(|host| {
        let matches: Vec<String> = host.routes.iter().map(|route| path(&route.matcher)).collect();
        let matches = matches.join(", ");
        if is_for_all(host) { matches } else { format!("{} {matches}", join(&host.domains, "/")) }
    });
    format!("Inline Route: {}", hosts.collect::<Vec<_>>().join("; "))
}

fn is_for_all(host: &VirtualHost<'_>) -> bool {
    // No domain is told as nothing, too.
    host.domains.is_empty() || matches!(&host.domains[..], [all] if &**all == "*")
}

/// The cluster of a configuration that sends everything to one.
fn only_cluster(routes: &RouteConfiguration<'_>) -> Option<String> {
    let [host] = &routes.virtual_hosts[..] else { return None };
    let [route] = &host.routes[..] else { return None };
    let is_all = host.domains.len() == 1 && is_for_all(host) && &*route.matcher.prefix == "/";
    let name = route.route.as_ref()?.cluster.as_ref()?;
    is_all.then(|| cluster(name))
}

/// The path of requests that a route is for.
pub(super) fn path(matcher: &RouteMatch<'_>) -> String {
    let mut said = Vec::new();
    if !matcher.prefix.is_empty() {
        said.push(format!("{}*", matcher.prefix));
    }
    if !matcher.path_separated_prefix.is_empty() {
        said.push(format!("PathPrefix:{}", matcher.path_separated_prefix));
    }
    if !matcher.path.is_empty() {
        said.push(matcher.path.to_string());
    }
    if let Some(regex) = &matcher.safe_regex {
        said.push(format!("regex {}", regex.regex));
    }
    said.join(" ")
}
