//! What a cluster's controllers do: accounts and roots of namespaces, pods of
//! Deployments, endpoints of Services.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::mirror::{Mirror, is_true, items, key, selects, text};
use super::rest::Rest;

/// Where the pods run.
pub(super) const NODE: &str = "node-1";

/// All controllers; what fails is tried again with the next change.
pub(super) struct Controllers {
    rest: Rest,
    mirror: Arc<Mirror>,
    root: String,
    /// What was set, so that it is set once.
    done: BTreeMap<String, Value>,
}

impl Controllers {
    pub(super) fn new(rest: Rest, mirror: Arc<Mirror>, root: String) -> Self {
        Self { rest, mirror, root, done: BTreeMap::new() }
    }

    /// Looks at everything once; `false` when something is to be tried again.
    pub(super) fn run(&mut self) -> bool {
        let steps = [Self::namespaces, Self::schedule, Self::deployments, Self::endpoints];
        let mut is_done = true;
        for step in steps {
            is_done &= step(self).is_ok();
        }
        is_done
    }

    fn set(&mut self, path: &str, object: Value) -> anyhow::Result<()> {
        if self.done.get(path) != Some(&object) {
            self.rest.apply(path, &object)?;
            self.done.insert(path.to_owned(), object);
        }
        Ok(())
    }

    /// Writes a status, if it is another one than before.
    fn tell(&mut self, path: &str, status: &Value) -> anyhow::Result<()> {
        let path = format!("{path}/status");
        let status = json!({"status": status});
        if self.done.get(&path) != Some(&status) {
            self.rest.merge(&path, &status)?;
            self.done.insert(path, status);
        }
        Ok(())
    }

    fn namespaces(&mut self) -> anyhow::Result<()> {
        for (_, name) in self.mirror.all("Namespace").into_keys() {
            if self.mirror.get("ServiceAccount", &name, "default").is_none() {
                self.rest.apply(
                    &format!("/api/v1/namespaces/{name}/serviceaccounts/default"),
                    &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
                )?;
            }
            let map = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "kube-root-ca.crt"},
                "data": {"ca.crt": self.root},
            });
            self.set(&format!("/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt"), map)?;
        }
        Ok(())
    }

    fn schedule(&mut self) -> anyhow::Result<()> {
        for ((namespace, name), pod) in self.mirror.all("Pod") {
            if pod["spec"]["nodeName"].is_null() && pod["metadata"]["deletionTimestamp"].is_null() {
                let binding = json!({
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"name": name},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
                });
                // Who is bound already is known soon.
                self.rest
                    .create(&format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"), &binding)
                    .ok();
            }
        }
        Ok(())
    }

    fn deployments(&mut self) -> anyhow::Result<()> {
        let sets = self.mirror.all("ReplicaSet");
        let pods = self.mirror.all("Pod");
        for ((namespace, name), deployment) in self.mirror.all("Deployment") {
            let template = &deployment["spec"]["template"];
            let hash = hash(template);
            let set_name = format!("{name}-{hash}");
            let mut labels = template["metadata"]["labels"].clone();
            labels["pod-template-hash"] = hash.clone().into();
            let Some(set) = sets.get(&(namespace.clone(), set_name.clone())) else {
                let mut selector = deployment["spec"]["selector"].clone();
                selector["matchLabels"]["pod-template-hash"] = hash.into();
                let mut template = template.clone();
                template["metadata"]["labels"] = labels.clone();
                let set = json!({
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "metadata": {"name": set_name, "labels": labels, "ownerReferences": [owner(&deployment, "Deployment")]},
                    "spec": {"replicas": deployment["spec"]["replicas"], "selector": selector, "template": template},
                });
                self.rest
                    .apply(&format!("/apis/apps/v1/namespaces/{namespace}/replicasets/{set_name}"), &set)?;
                continue;
            };
            let (all, home) = (&pods, &namespace);
            let owned = |uid: &Value| {
                let pods = all.iter().filter(move |((of, _), pod)| {
                    of == home
                        && pod["metadata"]["deletionTimestamp"].is_null()
                        && items(&pod["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == *uid)
                });
                pods.map(|(_, pod)| pod.clone()).collect::<Vec<_>>()
            };
            let wanted = usize::try_from(deployment["spec"]["replicas"].as_u64().unwrap_or(1))?;
            let mut own = owned(&set["metadata"]["uid"]);
            // One at a time, since each is seen a moment later.
            let path = format!("/api/v1/namespaces/{namespace}/pods");
            let marker = format!("pods of {namespace}/{set_name}");
            let is_seen = self.done.get(&marker).is_none_or(|last| {
                let last = text(last).to_owned();
                let is_known = pods.contains_key(&(namespace.clone(), last.clone()));
                // It may be gone already.
                is_known || self.rest.get(&format!("{path}/{last}")).is_err()
            });
            if own.len() < wanted && is_seen {
                let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": template["metadata"], "spec": template["spec"]});
                pod["metadata"]["generateName"] = format!("{set_name}-").into();
                pod["metadata"]["labels"] = labels;
                pod["metadata"]["ownerReferences"] = json!([owner(set, "ReplicaSet")]);
                let pod = self.rest.create(&path, &pod)?;
                self.done.insert(marker, pod["metadata"]["name"].clone());
            }
            let mut surplus = own.split_off(own.len().min(wanted));
            let are_ready = own.len() == wanted && own.iter().all(|pod| is_true(pod, "Ready"));
            // Those of earlier templates go when these can do their work.
            for other in sets.values().filter(|other| are_ready && other["metadata"]["name"] != *set_name) {
                if items(&other["metadata"]["ownerReferences"])
                    .any(|owner| owner["uid"] == deployment["metadata"]["uid"])
                {
                    surplus.extend(owned(&other["metadata"]["uid"]));
                }
            }
            for pod in surplus {
                let (name, uid) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]));
                self.rest.delete(&format!("{path}/{name}"), uid, None)?;
            }
            let ready = own.iter().filter(|pod| is_true(pod, "Ready")).count();
            let sets = format!("/apis/apps/v1/namespaces/{namespace}/replicasets/{set_name}");
            if set["spec"]["replicas"] != wanted {
                self.rest.merge(&sets, &json!({"spec": {"replicas": wanted}}))?;
            }
            let status = |of: &Value| {
                json!({"replicas": own.len(), "readyReplicas": ready, "availableReplicas": ready,
                    "observedGeneration": of["metadata"]["generation"]})
            };
            self.tell(&sets, &status(set))?;
            let mut status = status(&deployment);
            status["updatedReplicas"] = own.len().into();
            self.tell(&format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}"), &status)?;
        }
        Ok(())
    }

    fn endpoints(&mut self) -> anyhow::Result<()> {
        let pods = self.mirror.all("Pod");
        let services = self.mirror.all("Service");
        for ((namespace, name), service) in &services {
            if !service["spec"]["selector"].is_object() {
                continue;
            }
            let chosen = pods.iter().filter(|((of, _), pod)| {
                of == namespace
                    && !text(&pod["status"]["podIP"]).is_empty()
                    && !matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed")
                    && selects(&service["spec"]["selector"], &pod["metadata"]["labels"])
            });
            let chosen: Vec<_> = chosen.map(|(_, pod)| pod).collect();
            let always = service["spec"]["publishNotReadyAddresses"] == true;
            let endpoints: Vec<Value> = chosen
                .iter()
                .map(|pod| {
                    let is_ending = !pod["metadata"]["deletionTimestamp"].is_null();
                    let serves = is_true(pod, "Ready");
                    json!({
                        "addresses": [pod["status"]["podIP"]],
                        "conditions": {"ready": always || (serves && !is_ending), "serving": serves, "terminating": is_ending},
                        "nodeName": NODE,
                        "zone": super::ZONE,
                        "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": namespace, "uid": pod["metadata"]["uid"]},
                    })
                })
                .collect();
            let ports = items(&service["spec"]["ports"]).filter_map(|port| {
                let number = target(port, chosen.first().map(|pod| &***pod))?;
                Some(json!({"name": text(&port["name"]), "port": number, "protocol": port["protocol"],
                    "appProtocol": port["appProtocol"]}))
            });
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-1"),
                    "labels": {"kubernetes.io/service-name": name,
                        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                    "ownerReferences": [owner(service, "Service")],
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": ports.collect::<Vec<_>>(),
            });
            self.set(&slice_path(namespace, name), slice)?;
        }
        // What a garbage collector does.
        for ((namespace, _), slice) in self.mirror.all("EndpointSlice") {
            let service = text(&slice["metadata"]["labels"]["kubernetes.io/service-name"]).to_owned();
            if text(&slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"])
                .starts_with("endpointslice-controller")
                && !services.contains_key(&(namespace.clone(), service.clone()))
            {
                let path = slice_path(&namespace, &service);
                self.rest.delete(&path, text(&slice["metadata"]["uid"]), Some(0))?;
                self.done.remove(&path);
            }
        }
        Ok(())
    }
}

fn slice_path(namespace: &str, service: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{service}-1")
}

/// The port of a pod that one of a Service leads to.
fn target(port: &Value, pod: Option<&Value>) -> Option<u64> {
    match &port["targetPort"] {
        Value::String(name) => {
            let containers = pod.into_iter().flat_map(|pod| items(&pod["spec"]["containers"]));
            let mut ports = containers.flat_map(|container| items(&container["ports"]));
            ports.find(|one| one["name"] == **name)?["containerPort"].as_u64()
        }
        Value::Number(number) => number.as_u64(),
        _ => port["port"].as_u64(),
    }
}

fn owner(object: &Value, kind: &str) -> Value {
    let version = match kind {
        "Service" => "v1",
        _ => "apps/v1",
    };
    let (_, name) = key(object);
    json!({"apiVersion": version, "kind": kind, "name": name, "uid": object["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true})
}

/// A short word for a template.
fn hash(template: &Value) -> String {
    let text = template.to_string();
    // FNV-1a: the same word for the same template, however often the tests run.
    let mut sum = 0x811c_9dc5_u32;
    for byte in text.bytes() {
        sum = (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{sum:08x}")
}
