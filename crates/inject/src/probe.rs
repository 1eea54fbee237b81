//! Probes of the application go through the agent: the kubelet has no
//! certificate of the mesh, and its connections would be redirected to Envoy.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::annotation;
use crate::pod::{self, CONTAINERS, INIT_CONTAINERS};

/// Variable that tells the agent the original probes.
pub(crate) const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";

/// Where a container has its probes, with the last part of the agent's path.
const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
const HOOKS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];

/// Whether probes are rewritten: the pod's annotation, else the setting.
pub(crate) fn is_on(pod: &Value, setting: bool) -> bool {
    let own = pod["metadata"]["annotations"][names::annotation::REWRITE_PROBES].as_str();
    own.and_then(annotation::boolean).unwrap_or(setting)
}

/// Rewrites the probes of all containers but the proxy's, and tells the agent
/// of them. `port` is the agent's.
pub(crate) fn rewrite(pod: &mut Value, port: i64) {
    if pod::container(pod, pod::PROXY).is_none() {
        return;
    }
    let status = pod["metadata"]["annotations"].get(names::annotation::INJECTION_STATUS);
    let is_again = status.is_some();
    let found = original(pod, port);
    if !found.is_empty()
        && let Some(proxy) = pod::proxy_mut(pod)
    {
        tell(proxy, found, is_again);
    }
    // An annotation without a number has been refused before.
    let own = pod["metadata"]["annotations"][names::annotation::STATUS_PORT].as_str();
    let port = own.map_or(port, |own| own.trim().parse().unwrap_or(0));
    for field in [CONTAINERS, INIT_CONTAINERS] {
        let list = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten().filter(|container| pod::name(container) != pod::PROXY) {
            redirect(container, port);
        }
    }
}

/// The probes that the agent has to make, by its paths.
fn original(pod: &Value, port: i64) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for container in pod::list(pod, INIT_CONTAINERS).iter().chain(pod::list(pod, CONTAINERS)) {
        let name = pod::name(container);
        if name == pod::PROXY {
            continue;
        }
        let mut ports = BTreeMap::new();
        for entry in container["ports"].as_array().into_iter().flatten() {
            if let (Some(name), Some(number)) = (entry["name"].as_str(), entry["containerPort"].as_i64()) {
                ports.insert(name, number);
            }
        }
        for (field, end) in PROBES {
            if let Some(probe) = record(&container[field], &["httpGet", "tcpSocket", "grpc"], &ports, port) {
                found.insert(format!("/app-health/{name}/{end}"), probe);
            }
        }
        for (field, end) in HOOKS {
            let hook = &container["lifecycle"][field];
            if let Some(probe) = record(hook, &["httpGet", "tcpSocket"], &ports, port) {
                found.insert(format!("/app-lifecycle/{name}/{end}"), probe);
            }
        }
    }
    found
}

/// What the agent has to know of a probe: its action with ports by number. A
/// probe that is the agent's already has been recorded before.
fn record(probe: &Value, actions: &[&str], ports: &BTreeMap<&str, i64>, agent: i64) -> Option<Value> {
    let action = actions.iter().find(|action| probe[**action].is_object())?;
    let mut details = probe[*action].clone();
    if *action != "grpc" {
        let number = match &details["port"] {
            Value::String(name) => *ports.get(name.as_str())?,
            other => other.as_i64().filter(|number| *number != agent)?,
        };
        details["port"] = number.into();
    }
    let mut record = Map::from_iter([((*action).to_owned(), details)]);
    if let Some(seconds) = probe["timeoutSeconds"].as_i64().filter(|seconds| *seconds != 0) {
        record.insert("timeoutSeconds".into(), seconds.into());
    }
    Some(Value::Object(record))
}

/// Writes the variable; an earlier injection's probes stay.
fn tell(proxy: &mut Value, mut found: BTreeMap<String, Value>, is_again: bool) {
    let variables = pod::list_in(proxy, "env");
    let old = variables.iter_mut().find(|variable| is_again && pod::name(variable) == VARIABLE);
    let Some(old) = old else {
        variables.push(json!({"name": VARIABLE, "value": text(&found)}));
        return;
    };
    // What cannot be read stays as it is: its writer knows what it means.
    let earlier = old["value"].as_str().and_then(|text| serde_json::from_str(text).ok());
    let Some(earlier): Option<BTreeMap<String, Value>> = earlier else { return };
    found.extend(earlier);
    *old = json!({"name": VARIABLE, "value": text(&found)});
}

fn text(probes: &BTreeMap<String, Value>) -> String {
    json!(probes).to_string()
}

/// Makes the probes of a container requests to the agent.
fn redirect(container: &mut Value, port: i64) {
    let name = pod::name(container).to_owned();
    for (field, end) in PROBES {
        let path = format!("/app-health/{name}/{end}");
        turn(container.get_mut(field), &["httpGet", "tcpSocket", "grpc"], &path, port);
    }
    for (field, end) in HOOKS {
        let path = format!("/app-lifecycle/{name}/{end}");
        let hook = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(field));
        turn(hook, &["httpGet", "tcpSocket"], &path, port);
    }
}

fn turn(probe: Option<&mut Value>, actions: &[&str], path: &str, port: i64) {
    let Some(probe) = probe.and_then(Value::as_object_mut) else { return };
    let Some(action) = actions.iter().find(|action| probe.get(**action).is_some_and(Value::is_object)) else {
        return;
    };
    let old = probe.remove(*action).unwrap_or_default();
    let mut request = if *action == "httpGet" { old } else { json!({}) };
    request["port"] = port.into();
    request["path"] = path.into();
    // From the kubelet to the agent it is HTTP; the agent speaks HTTPS to the application.
    if request["scheme"] == "HTTPS" {
        request["scheme"] = "HTTP".into();
    }
    probe.insert("httpGet".into(), request);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_become_requests_to_the_agent() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "web", "ports": [{"name": "http", "containerPort": 80}],
             "readinessProbe": {"httpGet": {"port": "http", "scheme": "HTTPS", "x": 1}, "timeoutSeconds": 3},
             "livenessProbe": {"grpc": {"port": 9}, "periodSeconds": 4},
             "startupProbe": {"exec": {"command": ["x"]}},
             "lifecycle": {"preStop": {"tcpSocket": {"port": 81}}}},
            {"name": "istio-proxy", "readinessProbe": {"httpGet": {"port": 15021}}}]}});
        rewrite(&mut pod, 15020);
        let web = &pod["spec"]["containers"][0];
        assert_eq!(
            web["readinessProbe"],
            json!({"httpGet": {"port": 15020, "path": "/app-health/web/readyz", "scheme": "HTTP", "x": 1},
                "timeoutSeconds": 3})
        );
        assert_eq!(
            web["livenessProbe"],
            json!({"httpGet": {"port": 15020, "path": "/app-health/web/livez"}, "periodSeconds": 4})
        );
        assert!(web["startupProbe"].get("exec").is_some());
        let proxy = &pod["spec"]["containers"][1];
        assert_eq!(proxy["readinessProbe"]["httpGet"]["port"], 15021);
        let told: Value = serde_json::from_str(proxy["env"][0]["value"].as_str().unwrap()).unwrap();
        assert_eq!(
            told,
            json!({"/app-health/web/readyz": {"httpGet": {"port": 80, "scheme": "HTTPS", "x": 1}, "timeoutSeconds": 3},
                "/app-health/web/livez": {"grpc": {"port": 9}},
                "/app-lifecycle/web/prestopz": {"tcpSocket": {"port": 81}}})
        );
        let once = pod.clone();
        rewrite(&mut pod, 15020);
        assert_eq!(pod, once);
    }
}
