//! What the metadata servers of clouds tell.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures_util::future::join_all;
use http::Method;
use serde::Deserialize;

use super::http::text;
use super::{Cloud, Known, add_cluster_url, gcp_locality};

/// The metadata server of every cloud, on the link itself.
const IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The one of Amazon for machines that have IPv6 only.
const AWS_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// Version of Azure's answer that has tags as a list.
const AZURE: &str = "/metadata/instance?api-version=2019-08-15";
/// Lifetime of the key to Amazon's server, in seconds.
const AWS_TOKEN_SECONDS: &str = "60";

/// Where that server is.
#[must_use]
pub fn server(cloud: Cloud, is_ipv6: bool) -> SocketAddr {
    let ip = if cloud == Cloud::Aws && is_ipv6 { IpAddr::V6(AWS_IPV6) } else { IpAddr::V4(IPV4) };
    SocketAddr::new(ip, 80)
}

/// Asks that server for everything; what it does not tell is left out.
pub async fn ask(cloud: Cloud, server: SocketAddr) -> Known {
    match cloud {
        Cloud::Aws => aws(server).await,
        Cloud::Azure => azure(server).await,
        Cloud::Gcp => gcp(server).await,
    }
}

/// Asks for values by name and path at once.
async fn values<const N: usize>(
    server: SocketAddr,
    base: &str,
    fields: [(&'static str, &str); N],
    headers: &[(&'static str, &str)],
) -> BTreeMap<String, String> {
    let requests = fields.map(|(name, path)| async move {
        let answer = text(server, Method::GET, &format!("{base}{path}"), headers).await?;
        let answer = answer.trim();
        (!answer.is_empty()).then(|| (name.to_owned(), answer.to_owned()))
    });
    join_all(requests).await.into_iter().flatten().collect()
}

async fn aws(server: SocketAddr) -> Known {
    const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    // Machines that allow the older way have no token.
    let token = text(server, Method::PUT, "/latest/api/token", &[(TTL, AWS_TOKEN_SECONDS)]).await;
    let headers: Vec<(&str, &str)> =
        token.as_deref().map(|token| ("x-aws-ec2-metadata-token", token)).into_iter().collect();
    let fields = [
        ("aws_region", "placement/region"),
        ("aws_availability_zone", "placement/availability-zone"),
        ("aws_instance_id", "instance-id"),
    ];
    let metadata = values(server, "/latest/meta-data/", fields, &headers).await;
    let part = |name: &str| metadata.get(name).cloned().unwrap_or_default();
    Known { locality: vec![part("aws_region"), part("aws_availability_zone")], metadata }
}

async fn gcp(server: SocketAddr) -> Known {
    let fields = [
        ("gcp_project", "project/project-id"),
        ("gcp_project_number", "project/numeric-project-id"),
        ("gcp_location", "instance/attributes/cluster-location"),
        ("gcp_gke_cluster_name", "instance/attributes/cluster-name"),
        ("gcp_gce_instance", "instance/name"),
        ("gcp_gce_instance_id", "instance/id"),
        ("gcp_gce_instance_template", "instance/attributes/instance-template"),
        ("gcp_gce_instance_created_by", "instance/attributes/created-by"),
        ("zone", "instance/zone"),
    ];
    let mut metadata = values(server, "/computeMetadata/v1/", fields, &[("metadata-flavor", "Google")]).await;
    // `projects/NUMBER/zones/ZONE`.
    let zone = metadata.remove("zone");
    let zone = zone.as_deref().and_then(|zone| zone.rsplit('/').next()).unwrap_or_default().to_owned();
    if !zone.is_empty() {
        metadata.entry("gcp_location".into()).or_insert_with(|| zone.clone());
    }
    add_cluster_url(&mut metadata);
    Known { locality: gcp_locality(&zone), metadata }
}

#[derive(Default, Deserialize)]
struct Azure {
    #[serde(default)]
    compute: Compute,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Compute {
    name: String,
    location: String,
    zone: String,
    vm_id: String,
    tags: String,
    tags_list: Option<Vec<Tag>>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    value: String,
}

async fn azure(server: SocketAddr) -> Known {
    let answer = text(server, Method::GET, AZURE, &[("metadata", "true")]).await.unwrap_or_default();
    let Azure { compute } = serde_json::from_str(&answer).unwrap_or_default();
    let mut metadata = BTreeMap::new();
    let mut put = |name: &str, value: &str| drop(metadata.insert(format!("azure_{name}"), value.to_owned()));
    for (name, value) in [("name", &compute.name), ("location", &compute.location), ("vmId", &compute.vm_id)]
    {
        if !value.is_empty() {
            put(name, value);
        }
    }
    match &compute.tags_list {
        Some(tags) => tags.iter().for_each(|tag| put(&tag.name, &tag.value)),
        None => {
            for tag in compute.tags.split(';').filter(|tag| !tag.is_empty()) {
                let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
                put(name, value);
            }
        }
    }
    let locality = vec![compute.location, compute.zone];
    let locality = if locality.iter().all(String::is_empty) { Vec::new() } else { locality };
    Known { locality, metadata }
}

#[cfg(test)]
mod tests;
