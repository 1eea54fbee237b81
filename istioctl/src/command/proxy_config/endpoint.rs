//! Endpoints: as they are used, and as istiod has sent them.

use std::io::Write;

use serde_json::value::RawValue;

use super::{Format, Key, list};
use crate::args::proxy_config::{Endpoint as Args, EndpointFilter};
use crate::dump::clusters::{self, Host, Status};
use crate::dump::view::{Address, LbEndpoint, LoadAssignment, Locality};
use crate::dump::{ConfigDump, Error, Resource};
use crate::failure::Result;
use crate::json::Value;
use crate::render::table::{Table, WIDE};

const USED: &str = "envoy.admin.v3.ClusterStatus";
const DISCOVERED: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

/// What `/clusters?format=json` says.
pub(super) fn used(args: &Args, text: &str, format: Format, out: &mut impl Write) -> Result {
    let all = clusters::parse(text)?;
    if all.is_empty() && ConfigDump::parse(text).is_ok_and(|dump| dump.bootstrap().is_ok()) {
        eprintln!(
            "Warning: this is a dump of the configuration. Endpoints with their health are what \
             /clusters?format=json answers; what istiod has sent is shown by: istioctl proxy-config eds"
        );
    }
    let filter = &args.filter;
    if format != Format::Short {
        let found = all.into_iter().filter_map(|raw| match hosts(raw, filter) {
            Ok((_, hosts)) => hosts.iter().any(|(_, is_meant)| *is_meant).then(|| clusters::value(raw)),
            Err(error) => Some(Err(error)),
        });
        return list(USED, found, format, out);
    }
    let mut rows = Vec::new();
    for raw in all {
        let (cluster, hosts) = hosts(raw, filter)?;
        for (host, _) in hosts.iter().filter(|(_, is_meant)| *is_meant) {
            let check = if host.health_status.failed_outlier_check { "FAILED" } else { "OK" };
            rows.push((host.place(), host.port(), cluster.clone(), host.health().to_owned(), check));
        }
    }
    rows.sort_by(|one, other| (&one.0, one.1, &one.2).cmp(&(&other.0, other.1, &other.2)));
    let mut table = Table::new(WIDE);
    table.row(["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    for (place, port, cluster, health, check) in rows {
        let place = if port == 0 { place } else { format!("{place}:{port}") };
        table.row([place, health, check.to_owned(), cluster]);
    }
    Ok(out.write_all(table.render().as_bytes())?)
}

/// A cluster's name and its endpoints, each with whether it is meant.
fn hosts<'a>(
    raw: &'a RawValue,
    filter: &EndpointFilter,
) -> std::result::Result<(String, Vec<(Host<'a>, bool)>), Error> {
    let status = Status::read(raw)?;
    let name = status.name.to_string();
    let is_meant = |host: &Host<'_>| {
        same(&filter.address, &host.place())
            && (filter.port == 0 || filter.port == host.port())
            && same(&filter.cluster, &name)
            && same(&filter.status, host.health())
    };
    let hosts = status.host_statuses.into_iter().map(|host| {
        let is_meant = is_meant(&host);
        (host, is_meant)
    });
    let hosts = hosts.collect();
    Ok((name, hosts))
}

fn same(wanted: &str, found: &str) -> bool {
    wanted.is_empty() || wanted.eq_ignore_ascii_case(found)
}

/// What istiod has sent, of a dump.
pub(super) fn discovered(args: &Args, dump: &ConfigDump<'_>, format: Format, out: &mut impl Write) -> Result {
    if format == Format::Short {
        return Ok(out.write_all(summary(dump, &args.filter, "")?.as_bytes())?);
    }
    let found = sorted(dump, &args.filter)?.into_iter().map(|(_, resource)| {
        let mut value = resource.value()?;
        keep(&mut value, &resource.read()?, &args.filter);
        Ok(value)
    });
    list(DISCOVERED, found, format, out)
}

/// The table; before addresses stands `prefix`.
pub(super) fn summary(
    dump: &ConfigDump<'_>,
    filter: &EndpointFilter,
    prefix: &str,
) -> std::result::Result<String, Error> {
    let mut table = Table::new(WIDE);
    table.row(["NAME", "STATUS", "LOCALITY", "CLUSTER"]);
    for (_, resource) in sorted(dump, filter)? {
        let assignment: LoadAssignment<'_> = resource.read()?;
        let name = &assignment.cluster_name;
        for group in &assignment.endpoints {
            let locality = group.locality.as_ref().map(Locality::path).unwrap_or_default();
            for endpoint in group.lb_endpoints.iter().filter(|endpoint| fits(filter, name, endpoint)) {
                table.row([
                    format!("{prefix}{}", addresses(endpoint).join(",")),
                    endpoint.health().to_owned(),
                    locality.clone(),
                    name.to_string(),
                ]);
            }
        }
    }
    Ok(table.render())
}

/// Those that have endpoints that are meant.
fn sorted<'a>(
    dump: &ConfigDump<'a>,
    filter: &EndpointFilter,
) -> std::result::Result<Vec<(Key, Resource<'a>)>, Error> {
    let mut found = Vec::new();
    for resource in dump.endpoints()? {
        let assignment: LoadAssignment<'a> = resource.read()?;
        let mut endpoints = assignment.endpoints.iter().flat_map(|group| &group.lb_endpoints);
        if endpoints.any(|endpoint| fits(filter, &assignment.cluster_name, endpoint)) {
            found.push((Key::order(&assignment.cluster_name), resource));
        }
    }
    found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    Ok(found)
}

fn fits(filter: &EndpointFilter, cluster: &str, endpoint: &LbEndpoint<'_>) -> bool {
    let port = endpoint.endpoint.address.socket_address.as_ref().map_or(0, |socket| socket.port_value);
    let has_address = || {
        let is_ip = endpoint.endpoint.address.socket_address.as_ref();
        is_ip.is_some_and(|socket| same(&filter.address, &socket.address))
            || addresses(endpoint).iter().any(|address| same(&filter.address, address))
    };
    (filter.address.is_empty() || has_address())
        && (filter.port == 0 || filter.port == port)
        && same(&filter.cluster, cluster)
        && same(&filter.status, endpoint.health())
}

fn addresses(endpoint: &LbEndpoint<'_>) -> Vec<String> {
    let others = endpoint.endpoint.additional_addresses.iter().map(|other| &other.address);
    std::iter::once(&endpoint.endpoint.address).chain(others).map(address).collect()
}

fn address(address: &Address<'_>) -> String {
    let Address { socket_address, pipe, envoy_internal_address, .. } = address;
    if let Some(socket) = socket_address {
        return format!("{}:{}", socket.address, socket.port_value);
    }
    if let Some(pipe) = pipe {
        return pipe.path.to_string();
    }
    let internal = envoy_internal_address.as_ref();
    match internal.and_then(|internal| Some((internal.server_listener_name.as_ref()?, internal))) {
        Some((listener, internal)) => format!("envoy://{listener}/{}", internal.endpoint_id),
        None => "unknown".into(),
    }
}

/// Takes out of the JSON of an assignment what is not meant.
fn keep(value: &mut Value<'_>, assignment: &LoadAssignment<'_>, filter: &EndpointFilter) {
    let Value::Object(_, fields) = value else { return };
    let Some((_, Value::List(_, groups))) = fields.iter_mut().find(|(name, _)| name == "endpoints") else {
        return;
    };
    for (group, view) in groups.iter_mut().zip(&assignment.endpoints) {
        let Value::Object(_, fields) = group else { continue };
        let list = fields.iter_mut().find(|(name, _)| name == "lb_endpoints" || name == "lbEndpoints");
        if let Some((_, Value::List(_, endpoints))) = list {
            let mut views = view.lb_endpoints.iter();
            endpoints.retain(|_| {
                views.next().is_some_and(|endpoint| fits(filter, &assignment.cluster_name, endpoint))
            });
        }
    }
}
