//! OpenShift: each namespace has users and groups of its own, and no others may run in
//! it, the proxy's usual ones neither.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::pipeline::Request;
use crate::pod::{self, CONTAINERS, INIT_CONTAINERS};

/// Name of the platform in `PLATFORM` and `global.platform`.
pub(crate) const NAME: &str = "openshift";
/// Annotation of a namespace: its users.
const USERS: &str = "openshift.io/sa.scc.uid-range";
/// Annotation of a namespace: its groups; without it, they are numbered as its users.
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";

/// User and group of proxies in a namespace with these annotations: the last ones that
/// it may have, for applications get the first.
#[must_use]
pub(crate) fn ids(annotations: &BTreeMap<String, String>) -> (i64, i64) {
    let last = |block: (u32, u32)| i64::from(block.1);
    let users = annotations.get(USERS).and_then(|text| block(text));
    let groups = annotations.get(GROUPS).or_else(|| annotations.get(USERS));
    let groups: Option<Vec<_>> = groups.and_then(|text| text.split(',').map(block).collect());
    let first = groups.and_then(|groups| groups.first().copied());
    (users.map_or(Request::IDS.0, last), first.map_or(Request::IDS.1, last))
}

/// First and last of `FIRST/COUNT` or `FIRST-LAST`.
fn block(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.trim_start().parse::<u32>().ok();
    // What stands behind the second number is not looked at, as on the platform itself.
    let leading = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse::<u32>().ok()
    };
    if let Some((first, count)) = text.split_once('/') {
        let (first, count) = (number(first)?, leading(count)?);
        return Some((first, first.wrapping_add(count).wrapping_sub(1)));
    }
    let (first, last) = text.split_once('-')?;
    Some((number(first)?, leading(last)?))
}

/// The pod without a user of its proxy that the platform has set, as it does for all
/// containers: one that is the application's could not be told from it.
#[must_use]
pub(crate) fn own_user(pod: &Value) -> Cow<'_, Value> {
    let user = |container: &Value| container.pointer("/securityContext/runAsUser").and_then(Value::as_i64);
    let (mut of_proxy, mut of_app, mut has_context) = (0, 0, false);
    for container in pod::list(pod, CONTAINERS).iter().chain(pod::list(pod, INIT_CONTAINERS)) {
        match pod::name(container) {
            pod::PROXY => {
                of_proxy = user(container).unwrap_or(of_proxy);
                has_context |= container["securityContext"].is_object();
            }
            pod::INIT | pod::VALIDATION => {}
            _ => of_app = user(container).unwrap_or(of_app),
        }
    }
    if !has_context || of_proxy != of_app {
        return Cow::Borrowed(pod);
    }
    let mut pod = pod.clone();
    for list in [CONTAINERS, INIT_CONTAINERS] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter(|container| pod::name(container) == pod::PROXY) {
            if let Some(context) = container.get_mut("securityContext").and_then(Value::as_object_mut) {
                context.remove("runAsUser");
                context.remove("runAsGroup");
            }
        }
    }
    Cow::Owned(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(annotations: &[(&str, &str)]) -> (i64, i64) {
        ids(&annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_proxy_has_the_last_user_and_group_of_its_namespace() {
        assert_eq!(of(&[]), (1337, 1337));
        assert_eq!(of(&[(USERS, "1000620000/10000")]), (1_000_629_999, 1_000_629_999));
        assert_eq!(of(&[(USERS, "100-199"), (GROUPS, "500/10,700/10")]), (199, 509));
        assert_eq!(of(&[(GROUPS, "500-599")]), (1337, 599));
    }

    #[test]
    fn namespaces_count_on_that_platform_only() {
        use crate::webhook::{Situation, request};
        let text = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, \
                    annotations: {openshift.io/sa.scc.uid-range: 1000/10}}}";
        let mut store = config::Store::default();
        for object in config::yaml::read("test", text).objects {
            store.apply(object.into());
        }
        let mesh = mesh::MeshConfig::default();
        let native = crate::native_sidecar::Mode::Off;
        let situation = Situation { mesh: &mesh, store: &store, native, nodes: None, cluster: "Kubernetes" };
        let mut settings = crate::settings::Settings::read("", "", "").unwrap();
        let pod = json!({});
        let ids = |settings: &_, namespace| request(settings, &situation, "/inject", &pod, namespace).ids;
        assert_eq!(ids(&settings, "shop"), (1337, 1337));
        settings.platform = NAME.into();
        assert_eq!((ids(&settings, "shop"), ids(&settings, "other")), ((1009, 1009), (1337, 1337)));
    }

    #[test]
    fn annotations_that_cannot_be_read_change_nothing() {
        for text in ["", "x", "1", "1/", "/1", "1000", "-1", "99999999999/1", "1 /2"] {
            assert_eq!(of(&[(USERS, text)]), (1337, 1337), "{text}");
        }
        assert_eq!(of(&[(USERS, "100/10"), (GROUPS, "1/1,x")]), (109, 1337));
        assert_eq!(of(&[(USERS, "100/10"), (GROUPS, "")]), (109, 1337));
        assert_eq!(of(&[(USERS, "100/10x")]), (109, 109));
    }

    #[test]
    fn a_user_that_the_platform_has_set_is_not_the_proxys() {
        let pod = |proxy: i64| {
            json!({"spec": {"containers": [
                {"name": "app", "securityContext": {"runAsUser": 100}},
                {"name": "istio-proxy", "securityContext": {"runAsUser": proxy, "runAsGroup": 5, "privileged": false}},
            ]}})
        };
        let changed = own_user(&pod(100)).into_owned();
        assert_eq!(changed["spec"]["containers"][1]["securityContext"], json!({"privileged": false}));
        assert_eq!(changed["spec"]["containers"][0]["securityContext"]["runAsUser"], 100);
        assert_eq!(own_user(&pod(7)).into_owned(), pod(7));
        let without = json!({"spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}});
        assert_eq!(own_user(&without).into_owned(), without);
    }
}
