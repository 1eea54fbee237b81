//! On whose machines the pod runs, and what that tells about its place.
//!
//! What has to be asked is asked while everything else starts, on link-local
//! addresses only, and only where the machine's firmware or the user names the
//! platform; what does not answer in time is left out.

pub mod ask;
pub mod http;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tracing::info;

use super::env::{self, Reader};

/// Longest time that Envoy's start waits for answers.
pub const BUDGET: Duration = Duration::from_millis(250);
/// What firmware tells about the machine.
const FIRMWARE: &str = "/sys/class/dmi/id";

/// What is known about the place of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Region, zone and sub-zone, as far as known.
    pub locality: Vec<String>,
    /// Told to istiod as it stands.
    pub metadata: BTreeMap<String, String>,
}

/// Who can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nobody.
    None,
    /// The user has told.
    Told(Known),
    /// The metadata server of that cloud.
    Ask(Cloud),
    /// The metadata server of the cloud that the machine's firmware names, if any.
    AskFirmware,
}

/// A cloud with a metadata server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon Web Services.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud.
    Gcp,
}

/// Decides who is asked.
#[must_use]
pub fn plan(reader: &mut Reader<'_>) -> Plan {
    let told = reader.set(env::GCP_METADATA).map(|text| gcp_metadata(text, reader));
    let asked = reader.text(env::CLOUD_PLATFORM).to_ascii_lowercase();
    match asked.as_str() {
        "none" => Plan::None,
        "aws" => Plan::Ask(Cloud::Aws),
        "azure" => Plan::Ask(Cloud::Azure),
        "" | "gcp" if told.is_some() => Plan::Told(told.unwrap_or_default()),
        "gcp" => Plan::Ask(Cloud::Gcp),
        "" => Plan::AskFirmware,
        text => {
            reader.invalid(env::CLOUD_PLATFORM, text, "aws, azure, gcp or none");
            Plan::None
        }
    }
}

/// `PROJECT_ID|PROJECT_NUMBER|CLUSTER_NAME|CLUSTER_ZONE`.
fn gcp_metadata(text: &str, reader: &mut Reader<'_>) -> Known {
    let parts: Vec<&str> = text.split('|').collect();
    let [project, number, cluster, location] = parts[..] else {
        reader.invalid(env::GCP_METADATA, text, "PROJECT_ID|PROJECT_NUMBER|CLUSTER_NAME|CLUSTER_ZONE");
        return Known::default();
    };
    let mut metadata = BTreeMap::new();
    let fields = [
        ("gcp_project", project),
        ("gcp_project_number", number),
        ("gcp_gke_cluster_name", cluster),
        ("gcp_location", location),
        ("gcp_quota_project", reader.text(env::GCP_QUOTA_PROJECT)),
        ("gcp_zone", reader.text(env::GCP_ZONE)),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        metadata.insert(name.to_owned(), value.to_owned());
    }
    add_cluster_url(&mut metadata);
    let zone = metadata.get("gcp_zone").cloned();
    Known { locality: zone.map(|zone| gcp_locality(&zone)).unwrap_or_default(), metadata }
}

/// The address of the cluster, when its parts are known.
fn add_cluster_url(metadata: &mut BTreeMap<String, String>) {
    let part = |name: &str| metadata.get(name).cloned();
    let parts = (part("gcp_project"), part("gcp_location"), part("gcp_gke_cluster_name"));
    if let (Some(project), Some(location), Some(cluster)) = parts {
        let url = format!(
            "https://container.googleapis.com/v1/projects/{project}/locations/{location}/clusters/{cluster}"
        );
        metadata.insert("gcp_gke_cluster_url".into(), url);
    }
}

/// Region and zone of a zone such as `us-central1-f`.
fn gcp_locality(zone: &str) -> Vec<String> {
    let parts: Vec<&str> = zone.split('-').collect();
    let [country, region, _] = parts[..] else { return Vec::new() };
    vec![format!("{country}-{region}"), zone.to_owned()]
}

impl Plan {
    /// Follows the plan; takes no longer than [`BUDGET`].
    pub async fn follow(self, is_ipv6: bool) -> Known {
        let cloud = match self {
            Self::None => return Known::default(),
            Self::Told(known) => return known,
            Self::Ask(cloud) => Some(cloud),
            Self::AskFirmware => firmware(Path::new(FIRMWARE)),
        };
        let Some(cloud) = cloud else { return Known::default() };
        match tokio::time::timeout(BUDGET, ask::ask(cloud, ask::server(cloud, is_ipv6))).await {
            Ok(known) => known,
            Err(_) => {
                info!(
                    ?cloud,
                    "the metadata server did not answer in time: platform and locality stay unknown"
                );
                Known::default()
            }
        }
    }
}

/// The cloud that the machine's firmware names.
fn firmware(dir: &Path) -> Option<Cloud> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let vendor = read("sys_vendor");
    if vendor.contains("Amazon EC2") || read("bios_version").contains("amazon") {
        Some(Cloud::Aws)
    } else if read("product_name").contains("Google Compute Engine") {
        Some(Cloud::Gcp)
    } else if vendor.contains("Microsoft Corporation") {
        // Also what Hyper-V writes outside of Azure: nothing answers there.
        Some(Cloud::Azure)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(pairs: &[(&str, &str)]) -> (Plan, Vec<String>) {
        let env = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let none = BTreeMap::new();
        let mut reader = Reader::new(&env, &none);
        (plan(&mut reader), reader.into_errors())
    }

    #[test]
    fn the_variable_decides_who_is_asked() {
        assert_eq!(planned(&[]).0, Plan::AskFirmware);
        assert_eq!(planned(&[("CLOUD_PLATFORM", "none")]).0, Plan::None);
        assert_eq!(planned(&[("CLOUD_PLATFORM", "AWS")]).0, Plan::Ask(Cloud::Aws));
        assert_eq!(planned(&[("CLOUD_PLATFORM", "gcp")]).0, Plan::Ask(Cloud::Gcp));
        let (_, errors) = planned(&[("CLOUD_PLATFORM", "moon")]);
        assert_eq!(errors, ["CLOUD_PLATFORM=\"moon\": expected aws, azure, gcp or none"]);
    }

    #[test]
    fn what_the_user_tells_is_not_asked_for() {
        let (plan, errors) = planned(&[("GCP_METADATA", "p|7|c|us-x1"), ("GCP_ZONE", "us-x1-f")]);
        assert!(errors.is_empty());
        let Plan::Told(known) = plan else { panic!("{plan:?}") };
        assert_eq!(known.locality, ["us-x1", "us-x1-f"]);
        assert_eq!(known.metadata["gcp_project_number"], "7");
        assert_eq!(
            known.metadata["gcp_gke_cluster_url"],
            "https://container.googleapis.com/v1/projects/p/locations/us-x1/clusters/c"
        );
        assert_eq!(planned(&[("GCP_METADATA", "p|7")]).1.len(), 1);
    }

    #[test]
    fn firmware_names_the_cloud() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(firmware(dir.path()), None);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("sys_vendor", "QEMU\n");
        assert_eq!(firmware(dir.path()), None);
        write("product_name", "Google Compute Engine\n");
        assert_eq!(firmware(dir.path()), Some(Cloud::Gcp));
        write("product_name", "Virtual Machine\n");
        write("sys_vendor", "Microsoft Corporation\n");
        assert_eq!(firmware(dir.path()), Some(Cloud::Azure));
        write("sys_vendor", "Xen\n");
        write("bios_version", "4.11.amazon\n");
        assert_eq!(firmware(dir.path()), Some(Cloud::Aws));
    }
}
