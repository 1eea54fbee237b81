//! The two reference examples, read back from a real Envoy point by point.

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;
use serde_json::{Value, json};

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("the_virtual_service_is_in_envoys_routes", virtual_service),
    ("the_destination_rule_is_in_envoys_clusters", destination_rule),
];

const HOST: &str = "reviews.default.svc.cluster.local";

/// Part of a configuration dump by the end of its type's name.
fn part<'a>(dump: &'a Value, kind: &str) -> anyhow::Result<&'a Value> {
    let mut parts = dump["configs"].as_array().context("configs")?.iter();
    parts
        .find(|part| part["@type"].as_str().is_some_and(|name| name.ends_with(&format!(".{kind}"))))
        .context(kind.to_owned())
}

fn virtual_service(mesh: &mut Mesh) -> anyhow::Result<()> {
    let dump = mesh.pod("productpage-v1")?.config_dump()?;
    let routes = part(&dump, "RoutesConfigDump")?["dynamic_route_configs"].as_array().context("routes")?;
    let route = routes.iter().find(|route| route["route_config"]["name"] == "9080").context("route 9080")?;
    let hosts = route["route_config"]["virtual_hosts"].as_array().context("virtual hosts")?;
    let host = hosts.iter().find(|host| host["name"] == format!("{HOST}:9080")).context("host reviews")?;
    let domains = host["domains"].as_array().context("domains")?;
    for domain in ["reviews", "reviews.default", "reviews.default.svc", HOST] {
        ensure!(domains.contains(&json!(domain)), "{domain} is not in {domains:?}");
    }
    let routes = host["routes"].as_array().context("routes")?;
    ensure!(routes.len() == 2, "{routes:?}");
    let header = &routes[0]["match"]["headers"][0];
    ensure!(header["name"] == "end-user" && header["string_match"]["exact"] == "jason", "{header}");
    ensure!(routes[0]["match"]["prefix"] == "/", "{}", routes[0]);
    ensure!(routes[0]["route"]["cluster"] == format!("outbound|9080|v2|{HOST}"), "{}", routes[0]);
    ensure!(routes[1]["match"]["headers"].is_null(), "{}", routes[1]);
    ensure!(routes[1]["route"]["cluster"] == format!("outbound|9080|v1|{HOST}"), "{}", routes[1]);
    Ok(())
}

fn destination_rule(mesh: &mut Mesh) -> anyhow::Result<()> {
    let dump = mesh.pod("productpage-v1")?.config_dump()?;
    let clusters =
        part(&dump, "ClustersConfigDump")?["dynamic_active_clusters"].as_array().context("clusters")?;
    let endpoints =
        part(&dump, "EndpointsConfigDump")?["dynamic_endpoint_configs"].as_array().context("endpoints")?;
    let addresses = [
        ("", &["10.77.0.21", "10.77.0.22", "10.77.0.23"][..]),
        ("v1", &["10.77.0.21"]),
        ("v2", &["10.77.0.22"]),
    ];
    for (subset, addresses) in addresses {
        let name = format!("outbound|9080|{subset}|{HOST}");
        let found = clusters.iter().map(|entry| &entry["cluster"]).find(|cluster| cluster["name"] == name);
        let cluster = found.with_context(|| format!("no cluster {name}"))?;
        ensure!(cluster["type"] == "EDS", "{cluster}");
        ensure!(cluster["eds_cluster_config"]["service_name"] == name, "{cluster}");
        ensure!(!cluster["eds_cluster_config"]["eds_config"]["ads"].is_null(), "{cluster}");
        ensure!(cluster["circuit_breakers"]["thresholds"][0]["max_connections"] == 100, "{cluster}");
        let sockets = cluster["transport_socket_matches"].as_array();
        let socket = match sockets {
            Some(sockets) => {
                let tls = sockets.iter().find(|entry| entry["match"]["tlsMode"] == "istio");
                &tls.context("a socket for endpoints with sidecars")?["transport_socket"]
            }
            None => &cluster["transport_socket"],
        };
        ensure!(socket["name"] == "envoy.transport_sockets.tls", "{socket}");
        let tls = &socket["typed_config"]["common_tls_context"];
        let secret = &tls["tls_certificate_sds_secret_configs"][0];
        ensure!(secret["name"] == "default", "{secret}");
        let service = &secret["sds_config"]["api_config_source"]["grpc_services"][0];
        ensure!(service["envoy_grpc"]["cluster_name"] == "sds-grpc", "{secret}");
        let sans = &tls["combined_validation_context"]["default_validation_context"];
        let wanted = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        ensure!(sans.to_string().contains(wanted), "{sans}");

        let mut assignments = endpoints.iter().map(|entry| &entry["endpoint_config"]);
        let assignment = assignments.find(|assignment| assignment["cluster_name"] == name).context(name)?;
        let localities = assignment["endpoints"].as_array().context("localities")?;
        let mut seen: Vec<&str> = localities
            .iter()
            .flat_map(|locality| locality["lb_endpoints"].as_array().into_iter().flatten())
            .filter_map(|entry| entry["endpoint"]["address"]["socket_address"]["address"].as_str())
            .collect();
        seen.sort_unstable();
        ensure!(seen == addresses, "{seen:?}");
    }
    Ok(())
}
