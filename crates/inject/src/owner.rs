//! What a pod belongs to, told from its metadata.

use serde_json::Value;

use crate::pod;

/// The workload of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace; may be empty in files.
    pub namespace: String,
}

/// The workload of a pod. A controller counts only for names that were
/// generated; what controls the controller is told by the form of its name.
#[must_use]
pub fn of(pod: &Value, namespace: &str) -> Owner {
    let name = pod::text(pod, "/metadata/name");
    let mut owner = Owner {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: name.into(),
        namespace: namespace.into(),
    };
    if pod::text(pod, "/metadata/generateName").is_empty() {
        return owner;
    }
    let references = pod["metadata"]["ownerReferences"].as_array();
    let controller = references.into_iter().flatten().find(|owner| owner["controller"] == true);
    let Some(controller) = controller else { return owner };
    let get = |field: &str| controller[field].as_str().unwrap_or_default();
    let label = |key: &str| pod["metadata"]["labels"][key].as_str().filter(|value| !value.is_empty());
    let hashed = |key: &str| {
        let hash = label(key)?;
        let name = get("name");
        // The hash stands at the end; without a hyphen before it, nothing is cut off.
        name.ends_with(hash).then(|| name.strip_suffix(&format!("-{hash}")).unwrap_or(name))
    };
    let (kind, api_version) = (get("kind"), get("apiVersion"));
    let (api_version, kind, name) = match kind {
        "ReplicaSet" => {
            if let Some(name) = hashed("pod-template-hash") {
                (api_version, "Deployment", name)
            } else if let Some(name) = hashed("rollouts-pod-template-hash") {
                ("v1alpha1", "Rollout", name)
            } else {
                (api_version, kind, get("name"))
            }
        }
        "ReplicationController" => match label("deploymentconfig") {
            Some(name) => (api_version, "DeploymentConfig", name),
            None => (api_version, kind, get("name")),
        },
        "Job" => match cron_job(get("name")) {
            Some(name) => ("batch/v1", "CronJob", name),
            None => (api_version, kind, get("name")),
        },
        _ => (api_version, kind, get("name")),
    };
    owner.api_version = api_version.into();
    owner.kind = kind.into();
    if !name.is_empty() {
        owner.name = name.into();
    }
    owner
}

/// The CronJob that made a Job of that name: it appends the minute.
fn cron_job(job: &str) -> Option<&str> {
    let (name, minute) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&minute.len()) && minute.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owner(kind: &str, name: &str, labels: &Value) -> (String, String, String) {
        let pod = json!({"metadata": {"name": "p", "generateName": "p-", "labels": labels,
            "ownerReferences": [{"apiVersion": "x/v1", "kind": kind, "name": name, "controller": true}]}});
        let owner = of(&pod, "n");
        (owner.api_version, owner.kind, owner.name)
    }

    #[test]
    fn workloads_are_told_by_their_controllers() {
        let is = |found: (String, String, String), want: (&str, &str, &str)| {
            assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), want);
        };
        is(
            owner("ReplicaSet", "web-abc", &json!({"pod-template-hash": "abc"})),
            ("x/v1", "Deployment", "web"),
        );
        is(owner("ReplicaSet", "web-abc", &json!({})), ("x/v1", "ReplicaSet", "web-abc"));
        is(
            owner("ReplicaSet", "web-abc", &json!({"rollouts-pod-template-hash": "abc"})),
            ("v1alpha1", "Rollout", "web"),
        );
        is(
            owner("ReplicationController", "rc-1", &json!({"deploymentconfig": "rc"})),
            ("x/v1", "DeploymentConfig", "rc"),
        );
        is(owner("Job", "job-28412340", &json!({})), ("batch/v1", "CronJob", "job"));
        is(owner("Job", "job-1234567", &json!({})), ("x/v1", "Job", "job-1234567"));
        is(owner("StatefulSet", "db", &json!({})), ("x/v1", "StatefulSet", "db"));
    }

    #[test]
    fn a_pod_with_a_name_of_its_own_is_its_own_workload() {
        let pod = json!({"metadata": {"name": "p", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "controller": true}]}});
        let owner = of(&pod, "n");
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Pod", "p"));
    }
}
