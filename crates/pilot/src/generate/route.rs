//! Route configurations (RDS, and those inside inbound listeners).
//!
//! From the small to the large: [`rule`] makes the routes of one VirtualService,
//! [`port`] the virtual hosts of one port, and this file what Envoy asks for by name.

mod claim;
mod cors;
mod default;
mod domains;
mod encoded;
mod fault;
mod forward;
mod gateway;
mod header;
mod inbound;
mod matching;
mod port;
mod reply;
mod retry;
pub(super) mod rule;
mod share;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use foldhash::HashMap;
use names::cluster_name;
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use proto::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route_match,
};
use xds::session::Wanted;

use self::encoded::{Configuration, Host, encoded};
use super::http;
use super::message::seconds;
use crate::protocol::Protocol;
use crate::scope::{Egress, Scope};
use crate::snapshot::Service;

pub(super) use gateway::gateway;
pub(super) use inbound::inbound;

/// Largest body of a direct response, bytes.
const MAX_DIRECT_RESPONSE: u32 = 1024 * 1024;

/// Name of the routes of requests that go where DNS says that their host is.
const DYNAMIC: &str = "allow_any_dynamic_dns";

/// Name of the routes of the mesh's HTTP proxy port.
pub(super) const HTTP_PROXY: &str = "http_proxy";

/// The wanted route configurations of a sidecar. What is asked for by name is
/// answered, if need be without any route, since Envoy waits for it.
pub(super) fn outbound(scope: Scope<'_>, wanted: &Wanted) -> Vec<Configuration> {
    let all: BTreeSet<String>;
    let names: Vec<&str> = match wanted {
        Wanted::All => {
            all = every_name(scope);
            all.iter().map(String::as_str).collect()
        }
        Wanted::Names(names) => names.iter().map(|name| &**name).collect(),
    };
    let mut maker = Maker { scope, made: BTreeMap::new() };
    names.into_iter().map(|name| maker.configuration(name)).collect()
}

/// Names of all route configurations that listeners of the proxy may refer to.
fn every_name(scope: Scope<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if scope.snapshot.mesh.proxy_http_port > 0 {
        names.insert(HTTP_PROXY.to_owned());
    }
    for egress in &scope.view.egress {
        if let Some(port) = &egress.port {
            names.insert(if port.number == 0 { egress.bind.clone() } else { port.number.to_string() });
            continue;
        }
        for service in &egress.services {
            for port in &service.ports {
                if port.protocol.is_http() || port.protocol == Protocol::Auto {
                    names.insert(port.number.to_string());
                }
                if port.protocol == Protocol::Auto {
                    names.insert(format!("{}:{}", service.host, port.number));
                }
            }
        }
    }
    names
}

/// The virtual hosts of a port.
struct Hosts {
    all: Vec<Host>,
    /// Where each domain is, once somebody asks.
    by_domain: OnceCell<HashMap<String, usize>>,
}

/// Makes route configurations; what several are cut from is made once.
struct Maker<'a> {
    scope: Scope<'a>,
    /// By number of the way out and port, `None` for all ports.
    made: BTreeMap<(usize, Option<u16>), Hosts>,
}

impl Maker<'_> {
    fn configuration(&mut self, name: &str) -> Configuration {
        let is_unix = name.starts_with("unix:");
        let service = name.split_once(':').filter(|_| !is_unix);
        let number = service.map_or(name, |(_, port)| port).parse::<u16>().ok();
        if number.is_none() && !is_unix && name != HTTP_PROXY {
            return Configuration {
                name: name.to_owned(),
                validate_clusters: Some(false),
                ..Configuration::default()
            };
        }
        let scope = self.scope;
        let hosts = self.hosts(number.unwrap_or(0), name);
        match service {
            // The listener is the service's own: whatever name a request bears, it is meant.
            Some((host, _)) => {
                let own = hosts.and_then(|hosts| hosts.of(host).or_else(|| hosts.of(name)));
                let own = own.map(|own| encoded(&Host { domains: vec!["*".into()], ..own.clone() }));
                encoded_configuration(name, own.into_iter().collect())
            }
            None => {
                let all = hosts.map_or(&[][..], |hosts| &hosts.all).iter().map(encoded);
                encoded_configuration(name, all.chain([encoded(&unknown(scope))]).collect())
            }
        }
    }

    /// The virtual hosts of a port on the way out that its requests take.
    fn hosts(&mut self, number: u16, name: &str) -> Option<&Hosts> {
        let scope = self.scope;
        let (index, egress) =
            scope.view.egress.iter().enumerate().find(|(_, egress)| match &egress.port {
                None => true,
                Some(port) => port.number == number && (number != 0 || egress.bind == name),
            })?;
        let is_proxy = egress.port.as_ref().is_some_and(|port| port.protocol == Protocol::HttpProxy);
        let port = Some(number).filter(|number| *number != 0 && !is_proxy);
        Some(self.made.entry((index, port)).or_insert_with(|| Hosts::new(scope, egress, port)))
    }
}

impl Hosts {
    fn new(scope: Scope<'_>, egress: &Egress, port: Option<u16>) -> Self {
        Self { all: port::virtual_hosts(scope, egress, port), by_domain: OnceCell::new() }
    }

    /// The virtual host with a domain.
    fn of(&self, domain: &str) -> Option<&Host> {
        let by_domain = self.by_domain.get_or_init(|| {
            let domains = |(index, host): (usize, &Host)| {
                host.domains.iter().map(|domain| (domain.clone(), index)).collect::<Vec<_>>()
            };
            self.all.iter().enumerate().flat_map(domains).collect()
        });
        self.all.get(*by_domain.get(domain)?)
    }
}

/// The routes of one port of a service, for requests that name it in any way.
pub(super) fn of_service(scope: Scope<'_>, name: &str, service: &Service, port: u16) -> RouteConfiguration {
    let mut maker = Maker { scope, made: BTreeMap::new() };
    let made = maker.configuration(&format!("{}:{port}", service.host)).message();
    RouteConfiguration { name: name.to_owned(), ..made }
}

/// A route configuration of these virtual hosts.
pub(super) fn configuration(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        // Routes and clusters come on one stream, clusters first; a missing one must not void all routes.
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// The routes of requests that no listener of a service takes.
pub(super) fn of_unknown(scope: Scope<'_>) -> RouteConfiguration {
    configuration(DYNAMIC, vec![unknown(scope)])
}

/// The same of virtual hosts that are encoded.
fn encoded_configuration(name: &str, virtual_hosts: Vec<Bytes>) -> Configuration {
    let RouteConfiguration {
        validate_clusters,
        max_direct_response_body_size_bytes,
        ignore_port_in_host_matching,
        ..
    } = configuration("", Vec::new());
    Configuration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters,
        max_direct_response_body_size_bytes,
        ignore_port_in_host_matching,
    }
}

/// Where requests go that no service takes.
fn unknown(scope: Scope<'_>) -> VirtualHost {
    let headers = http::proxy_headers::of(scope);
    let destination = if scope.resolves_unknown() {
        Some((DYNAMIC, cluster_name::DYNAMIC_DNS))
    } else {
        scope.allows_any_outbound().then(|| ("allow_any", scope.unknown_destination()))
    };
    let (name, action) = if let Some((name, cluster)) = destination {
        let route = RouteAction {
            timeout: seconds(0),
            max_grpc_timeout: seconds(0),
            append_x_forwarded_host: headers.has_forwarded_host(),
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
            ..RouteAction::default()
        };
        (name, Action::Route(route))
    } else {
        ("block_all", Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() }))
    };
    VirtualHost {
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![Route {
            name: name.into(),
            r#match: Some(everything()),
            action: Some(action),
            ..Route::default()
        }],
        include_request_attempt_count: headers.has_attempt_count(),
        ..VirtualHost::default()
    }
}

pub(super) fn everything() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())),
        ..RouteMatch::default()
    }
}
