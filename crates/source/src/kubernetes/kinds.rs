//! Which kinds are followed, and where the API server has them.

use config::Kind;
use tokio::sync::watch;

use super::list_watch::Resource;

/// Types of Secrets that never hold credentials of gateways and are many.
const OTHER_SECRETS: &str =
    "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=bootstrap.kubernetes.io/token";

/// The kinds of the table that count in a cluster. The API server mirrors
/// `Endpoints` as slices, and of service accounts the mesh needs no more than
/// the names that pods have.
pub(super) fn followed() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| !matches!(kind, Kind::Endpoints | Kind::ServiceAccount))
}

/// Where a kind is, of all namespaces or of one; `defined` wakes when a
/// definition of one changes.
pub(super) fn resource(kind: Kind, namespace: Option<&str>, defined: &watch::Receiver<u64>) -> Resource {
    let namespace = namespace.filter(|_| kind.is_namespaced());
    let plural = match namespace {
        Some(namespace) => format!("namespaces/{namespace}/{}", kind.plural()),
        None => kind.plural().to_owned(),
    };
    Resource {
        name: kind.as_str(),
        paths: kind.versions().iter().map(|version| path(kind.group(), version, &plural)).collect(),
        fields: (kind == Kind::Secret).then(|| OTHER_SECRETS.to_owned()),
        only_metadata: kind == Kind::Namespace,
        defined: kind.is_istio().then(|| defined.clone()),
    }
}

/// The path of all objects of a kind.
pub(super) fn path(group: &str, version: &str, plural: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}/{plural}")
    } else {
        format!("/apis/{group}/{version}/{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let (_tell, defined) = watch::channel(0);
        assert_eq!(resource(Kind::Pod, None, &defined).paths, ["/api/v1/pods"]);
        let resource = resource(Kind::Telemetry, None, &defined);
        assert_eq!(
            resource.paths,
            ["/apis/telemetry.istio.io/v1/telemetries", "/apis/telemetry.istio.io/v1alpha1/telemetries"]
        );
        assert!(resource.defined.is_some());
    }
    #[test]
    fn of_one_namespace_only_what_is_in_namespaces() {
        let (_tell, defined) = watch::channel(0);
        let paths = |kind| resource(kind, Some("a"), &defined).paths;
        assert_eq!(paths(Kind::Pod), ["/api/v1/namespaces/a/pods"]);
        assert_eq!(paths(Kind::Gateway)[0], "/apis/networking.istio.io/v1/namespaces/a/gateways");
        assert_eq!(paths(Kind::Node), ["/api/v1/nodes"]);
        assert_eq!(paths(Kind::Namespace), ["/api/v1/namespaces"]);
    }
}
