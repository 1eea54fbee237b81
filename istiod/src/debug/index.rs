//! Which pages there are.

use std::fmt::Write as _;

/// Name of each page and what it shows.
const PAGES: &[(&str, &str)] = &[
    ("adsz", "Connected proxies, what they say of themselves and what they have asked for"),
    ("adsz?push=true", "Sends everything to every proxy again"),
    ("authorizationz", "AuthorizationPolicies in force"),
    ("cachez", "Names of what was translated and is kept for all proxies that get the same"),
    ("cachez?clear=true", "Forgets what was translated"),
    ("cachez?sizes=true", "Sizes of what was translated"),
    ("clusterz", "Clusters that endpoints are read from"),
    ("config_distribution", "Which proxies have an object as it is in force (resource=KIND/NAMESPACE/NAME)"),
    ("config_dump", "What a proxy should have (proxyID=POD.NAMESPACE)"),
    ("configz", "Istio's objects in force"),
    ("connections", "Connected proxies"),
    ("ecdsz", "Extension configurations of a proxy (proxyID=POD.NAMESPACE)"),
    ("edsz", "Endpoints of a proxy (proxyID=POD.NAMESPACE)"),
    ("endpointShardz", "Endpoints of services"),
    ("endpointz", "The same as endpointShardz"),
    ("force_disconnect", "Ends the stream of a proxy, which comes back (proxyID=POD.NAMESPACE)"),
    ("instancesz", "Services that lead to the workload of each proxy"),
    ("list", "Names of these pages"),
    ("mcsz", "Services that clusters share"),
    ("mesh", "Settings of the mesh"),
    ("ndsz", "Names that a proxy resolves itself (proxyID=POD.NAMESPACE)"),
    ("networkz", "Gateways between networks"),
    ("push_status", "Conflicts, and what is wrong with objects"),
    ("pushcontext", "Policies and gateways between networks in force"),
    ("registryz", "Services"),
    ("resourcesz", "Kinds of objects of Istio that are read"),
    ("sourcez", "Where objects were written, and what is wrong with them"),
    ("syncz", "What each proxy was sent and has accepted"),
    ("telemetryz", "Telemetry objects in force"),
];

/// Names of the pages, as tools list them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(name, _)| *name).filter(|name| *name != "list")
}

/// The page that leads to all others, and why istiod is not ready, if it is not.
pub(super) fn html(unready: Option<&str>) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html><head><title>istiod</title></head><body>");
    // Writing to a text does not fail.
    if let Some(why) = unready {
        writeln!(html, "<p>{why}</p>").ok();
    }
    html += "<table>\n";
    for (name, what) in PAGES {
        writeln!(html, "<tr><td><a href=\"/debug/{name}\">/debug/{name}</a></td><td>{what}</td></tr>").ok();
    }
    html + "</table></body></html>\n"
}
