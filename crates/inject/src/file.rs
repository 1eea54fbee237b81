//! Injection of workloads in files, without a cluster.

use std::collections::BTreeMap;

use mesh::{MeshConfig, ProxyConfig};
use serde_json::{Value, json};

use crate::decide::decide;
use crate::native_sidecar::{self, Mode};
use crate::owner::{self, Owner};
use crate::pipeline::{self, Request};
use crate::settings::{Policy, Settings};
use crate::{pod, proxy_config};

/// Kinds whose pods are made of `spec.template`.
const TEMPLATED: [&str; 7] = [
    "DaemonSet",
    "Deployment",
    "DeploymentConfig",
    "Job",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];

/// A document that cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no YAML.
    #[error("document {number}: {why}")]
    Yaml {
        /// Which, from 1.
        number: usize,
        /// Why not.
        why: String,
    },
    /// A workload without pods.
    #[error("{0}: spec.template is required: it says what the pods are")]
    NoTemplate(String),
    /// The pod cannot be injected.
    #[error(transparent)]
    Pod(#[from] pipeline::Error),
    /// Settings of the proxy cannot be used.
    #[error("annotation '{key}': {0}", key = names::annotation::PROXY_CONFIG)]
    ProxyConfig(#[from] mesh::yaml::Error),
}

/// Injects every workload of a file of YAML documents; what is none stays as it
/// is, and so do comments beside it. `warn` is told what is left out.
///
/// # Errors
/// At the first document that cannot be injected.
pub fn inject(
    settings: &Settings,
    mesh: &MeshConfig,
    native: Mode,
    text: &str,
    warn: &mut dyn FnMut(String),
) -> Result<String, Error> {
    let mut out = String::new();
    for (index, document) in documents(text).into_iter().enumerate() {
        let wrong = |why: String| Error::Yaml { number: index + 1, why };
        let value: Value = if document.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(&document).map_err(|error| wrong(error.to_string()))?
        };
        let mut changed = value.clone();
        object(settings, mesh, native, &mut changed, warn)?;
        if changed == value {
            out += &document;
            if !document.ends_with('\n') {
                out.push('\n');
            }
        } else {
            out += &serde_saphyr::to_string(&changed).map_err(|error| wrong(error.to_string()))?;
        }
        out += "---\n";
    }
    Ok(out)
}

/// The documents of a file, between lines of `---`.
fn documents(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut one = String::new();
    for line in text.split_inclusive('\n') {
        if line.strip_prefix("---").is_some_and(|rest| rest.trim().is_empty()) {
            if !one.is_empty() {
                all.push(std::mem::take(&mut one));
            }
        } else {
            one.push_str(line);
        }
    }
    if !one.is_empty() {
        all.push(one);
    }
    all
}

/// Injects one object, in place.
fn object(
    settings: &Settings,
    mesh: &MeshConfig,
    native: Mode,
    value: &mut Value,
    warn: &mut dyn FnMut(String),
) -> Result<(), Error> {
    let kind = pod::text(value, "/kind").to_owned();
    if kind == "List" {
        let items = value.get_mut("items").and_then(Value::as_array_mut);
        return items.into_iter().flatten().try_for_each(|item| object(settings, mesh, native, item, warn));
    }
    let name = pod::text(value, "/metadata/name").to_owned();
    let namespace = pod::text(value, "/metadata/namespace").to_owned();
    let own = || Owner {
        api_version: pod::text(value, "/apiVersion").to_owned(),
        kind: kind.clone(),
        name: name.clone(),
        namespace: namespace.clone(),
    };
    // Where the metadata and the spec of the pods stand.
    let (metadata, spec, owner) = match kind.as_str() {
        "Pod" => ("/metadata", "/spec", owner::of(value, &namespace)),
        // Kubernetes makes Jobs with the metadata of the one, and pods with the spec of the other.
        "CronJob" => ("/spec/jobTemplate/metadata", "/spec/jobTemplate/spec/template/spec", own()),
        kind if TEMPLATED.contains(&kind) => ("/spec/template/metadata", "/spec/template/spec", own()),
        _ => return Ok(()),
    };
    let full = |namespace: &str, name: &str| {
        if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
    };
    let Some(found) = value.pointer(spec).filter(|spec| spec.is_object()) else {
        return Err(Error::NoTemplate(format!("{kind} {:?}", full(&namespace, &name))));
    };
    let pod = json!({"metadata": value.pointer(metadata).cloned().unwrap_or_default(), "spec": found});
    let pods_name = pod::text(&pod, "/metadata/name");
    let pods_name = if pods_name.is_empty() { &name } else { pods_name };
    let what = if owner.kind.is_empty() { String::new() } else { format!("{} ", owner.kind) };
    let what = format!("{what}{:?}", full(&owner.namespace, pods_name));
    if pod["spec"]["hostNetwork"] == true {
        warn(format!("===> Skipping injection because {what} has host networking enabled\n"));
        return Ok(());
    }
    let pods_namespace = pod::text(&pod, "/metadata/namespace");
    let pods_namespace = if pods_namespace.is_empty() { &namespace } else { pods_namespace };
    // Who names a workload wants it injected; only its own word counts against it.
    let all = Settings {
        policy: Policy::Enabled,
        never_inject: Vec::new(),
        always_inject: Vec::new(),
        ..settings.clone()
    };
    let verdict = decide(&all, &pod, pods_namespace);
    if let Some(warning) = verdict.warning {
        warn(format!("{what}: {warning}\n"));
    }
    if !verdict.is_injected {
        warn(format!("===> Skipping injection because {what} has sidecar injection disabled\n"));
        return Ok(());
    }
    let annotation = pod["metadata"]["annotations"][names::annotation::PROXY_CONFIG].as_str();
    // Annotations are checked first: they are told all at once.
    let proxy = match proxy_config::of_annotation(mesh, annotation) {
        Ok(proxy) => proxy,
        Err(error) => {
            let base = proxy_config::of_annotation(mesh, None)?;
            let request = request(&pod, mesh, owner, base, native);
            pipeline::inject(settings, &request)?;
            return Err(error.into());
        }
    };
    let injected = pipeline::inject(settings, &request(&pod, mesh, owner, proxy, native))?;
    for (pointer, part) in [(metadata, "metadata"), (spec, "spec")] {
        put(value, pointer, injected[part].clone());
    }
    Ok(())
}

fn request<'a>(
    pod: &'a Value,
    mesh: &'a MeshConfig,
    owner: Owner,
    proxy: ProxyConfig,
    native: Mode,
) -> Request<'a> {
    Request {
        pod,
        mesh,
        owner,
        proxy,
        native: native_sidecar::is_on(native, None, ""),
        variables: BTreeMap::new(),
        ids: Request::IDS,
    }
}

/// Sets what a pointer names, and makes the maps on the way.
fn put(value: &mut Value, pointer: &str, part: Value) {
    let mut at = value;
    for field in pointer.split('/').skip(1) {
        at = pod::as_object(at).entry(field).or_insert(Value::Null);
    }
    *at = part;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "templates: {own: 'metadata: {annotations: {a: b}}'}\ndefaultTemplates: [own]";

    fn settings() -> Settings {
        Settings::read(SETTINGS, "{}", "").unwrap()
    }

    #[test]
    fn what_is_no_workload_stays_as_it_is() {
        let text = "# comment\nkind: Service\nmetadata: {name: a}\n---\n\n---\nkind: ConfigMap # x\n";
        let out =
            inject(&settings(), &MeshConfig::default(), Mode::Off, text, &mut |warning| panic!("{warning}"))
                .unwrap();
        assert_eq!(
            out,
            "# comment\nkind: Service\nmetadata: {name: a}\n---\n\n---\nkind: ConfigMap # x\n---\n"
        );
    }

    #[test]
    fn unknown_fields_of_workloads_stay() {
        let text =
            "kind: Deployment\nfuture: 1\nspec: {template: {x: w, spec: {containers: [{name: c, z: 1}]}}}";
        let out =
            inject(&settings(), &MeshConfig::default(), Mode::Off, text, &mut |warning| panic!("{warning}"))
                .unwrap();
        let value: Value = serde_saphyr::from_str(out.trim_end_matches("---\n")).unwrap();
        assert_eq!(value["future"], 1);
        assert_eq!(value["spec"]["template"]["x"], "w");
        assert_eq!(value["spec"]["template"]["spec"]["containers"][0]["z"], 1);
        assert_eq!(value["spec"]["template"]["metadata"]["annotations"]["a"], "b");
    }

    #[test]
    fn words_that_other_readers_take_for_something_else_are_quoted() {
        for word in [
            "y",
            "on",
            "No",
            "~",
            "null",
            "1e3",
            "0x1f",
            "0o7",
            "012",
            "1_000",
            "12:30:45",
            "",
            " a",
            "a: b",
            "- a",
            "#x",
            "2001-01-01",
            ".inf",
            "+1",
            "=",
            "<<",
            "a\nb\n",
            "\ta",
            "%x",
            "@x",
            "`x",
            "!x",
            "&a",
            "*a",
        ] {
            let out = serde_saphyr::to_string(&json!({ "a": word })).unwrap();
            let read: Value = serde_saphyr::from_str(&out).unwrap();
            assert_eq!(read["a"], word, "{out}");
            let plain = out.trim_start_matches("a:").trim();
            let is_quoted = plain.starts_with(['\'', '"', '|', '>']);
            assert!(is_quoted, "{word:?} is written as {out:?}");
        }
    }

    #[test]
    fn a_workload_without_pods_is_refused() {
        let error = inject(
            &settings(),
            &MeshConfig::default(),
            Mode::Off,
            "kind: Job\nmetadata: {name: j}",
            &mut |_| {},
        )
        .unwrap_err();
        assert!(error.to_string().starts_with("Job \"j\": spec.template is required"), "{error}");
    }
}
