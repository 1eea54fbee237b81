//! Whether an object may be stored, and what its author should know.

use std::sync::Arc;

use config::admission::Question;
use config::validate::nearest;
use config::{Kind, Problem, Severity, yaml};
use proto::reflect;

use crate::world::World;

/// Problems and warnings that an answer lists.
const SHOWN: usize = 20;

/// What is thought of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it must not be stored, if it must not.
    pub refusal: Option<Refusal>,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// Why an object must not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The word for it in metrics.
    pub reason: &'static str,
    /// What is wrong and what to write.
    pub message: String,
}

impl Verdict {
    fn refused(reason: &'static str, message: String) -> Self {
        Self { refusal: Some(Refusal { reason, message }), warnings: Vec::new() }
    }
}

/// Looks at the object of a question; with a `world` also at what it names there.
#[must_use]
pub fn vet(question: &Question, world: Option<&World>) -> Verdict {
    if !["CREATE", "UPDATE"].contains(&question.operation.as_str()) {
        return Verdict::default();
    }
    let mut object = question.object.clone();
    let word =
        |name: &str| object.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (word("apiVersion"), word("kind"));
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    // Its version does not matter: all of a kind say the same.
    let ours = |known: &Kind| known.is_istio() && known.group() == group && known.as_str() == kind;
    let Some(kind) = Kind::ALL.iter().copied().find(ours) else {
        if !object.is_object() {
            let message = "cannot decode configuration: the question has no object".to_owned();
            return Verdict::refused("yaml_decode_error", message);
        }
        return Verdict::refused("unknown_type", format!("unrecognized type {api_version}, Kind={kind}"));
    };
    // An object without a namespace is of that which the question is about.
    if let Some(metadata) = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut)
        && !question.namespace.is_empty()
    {
        metadata.entry("namespace").or_insert_with(|| question.namespace.as_str().into());
    }
    let contents = yaml::read_asked(&Arc::from(""), kind, object);
    let (errors, mut warnings): (Vec<&Problem>, Vec<&Problem>) =
        contents.problems.iter().partition(|problem| problem.severity == Severity::Error);
    let dangling = match (world, contents.objects.first()) {
        (Some(world), Some(object)) if errors.is_empty() && world.serial > 0 => {
            world.snapshot.dangling(&world.store, object)
        }
        _ => Vec::new(),
    };
    warnings.extend(&dangling);
    let refusal = (!errors.is_empty()).then(|| {
        let (reason, start) = if contents.is_unreadable {
            ("crd_conversion_error", "error decoding configuration: ")
        } else {
            ("invalid_resource", "configuration is invalid: ")
        };
        Refusal { reason, message: start.to_owned() + &shown(kind, &errors).join("; ") }
    });
    Verdict { refusal, warnings: shown(kind, &warnings) }
}

/// Problems as text; of many the first ones, and how many more there are.
fn shown(kind: Kind, problems: &[&Problem]) -> Vec<String> {
    let mut texts: Vec<String> = problems.iter().take(SHOWN).map(|problem| text(kind, problem)).collect();
    if problems.len() > SHOWN {
        texts.push(format!("and {} more", problems.len() - SHOWN));
    }
    texts
}

fn text(kind: Kind, problem: &Problem) -> String {
    let Problem { field, message, .. } = problem;
    if message == yaml::NO_SUCH_FIELD
        && let Some(near) = nearest_field(kind, field)
    {
        return format!("{field}: no such field; did you mean {near}?");
    }
    if field.is_empty() { message.clone() } else { format!("{field}: {message}") }
}

/// The field that may have been meant by one that the kind does not have.
fn nearest_field(kind: Kind, path: &str) -> Option<String> {
    let area = kind.group().strip_suffix(".istio.io")?;
    let package = format!("istio.{area}.");
    let mut message = reflect::pool().all_messages().find(|message| {
        message.name() == kind.as_str()
            && message.parent_message().is_none()
            && message.package_name().starts_with(&package)
    })?;
    let mut parts = path.strip_prefix("spec.")?.split('.');
    let last = parts.next_back()?;
    while let Some(part) = parts.next() {
        let name = part.split('[').next().unwrap_or_default();
        let field = message.fields().find(|field| field.json_name() == name || field.name() == name)?;
        message = field.kind().as_message()?.clone();
        if message.is_map_entry() {
            // Its key says nothing of the type.
            parts.next()?;
            message = message.map_entry_value_field().kind().as_message()?.clone();
        }
    }
    let names: Vec<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
    nearest(last, names.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(kind: &str, metadata: &Value, spec: &Value) -> Verdict {
        let object =
            json!({"apiVersion": "networking.istio.io/v9", "kind": kind, "metadata": metadata, "spec": spec});
        let question = Question { operation: "CREATE".into(), object, ..Question::default() };
        vet(&question, None)
    }

    #[test]
    fn a_refusal_names_the_field_and_a_warning_what_was_meant() {
        let route =
            json!({"route": [{"destination": {"host": "a"}}], "timeot": "1s", "retries": {"atempts": 2}});
        let verdict =
            asked("VirtualService", &json!({"name": "a"}), &json!({"hosts": ["a"], "http": [route]}));
        assert_eq!(verdict.refusal, None);
        let texts = verdict.warnings.join("\n");
        assert!(texts.contains("spec.http[0].timeot: no such field; did you mean timeout?"), "{texts}");
        assert!(texts.contains("did you mean attempts?"), "{texts}");
        let refusal =
            asked("VirtualService", &json!({"name": "a"}), &json!({"hosts": ["a"]})).refusal.unwrap();
        assert_eq!(refusal.reason, "invalid_resource");
        assert!(refusal.message.starts_with("configuration is invalid: spec: has no http"), "{refusal:?}");
        let broken = asked("VirtualService", &json!({"name": "a"}), &json!({"hosts": 3}));
        assert_eq!(broken.refusal.unwrap().reason, "crd_conversion_error");
        let unnamed = asked("VirtualService", &json!({"name": 3}), &json!({"hosts": ["a"]}));
        assert_eq!(unnamed.refusal.unwrap().reason, "crd_conversion_error");
        assert_eq!(asked("Nope", &json!({}), &json!({})).refusal.unwrap().reason, "unknown_type");
        let nothing = Question { operation: "CREATE".into(), ..Question::default() };
        assert_eq!(vet(&nothing, None).refusal.unwrap().reason, "yaml_decode_error");
        let gone = Question { operation: "DELETE".into(), ..Question::default() };
        assert_eq!(vet(&gone, None), Verdict::default());
    }

    #[test]
    fn of_many_problems_the_first_are_shown() {
        let hosts: Vec<String> = (0..1000).map(|number| format!("-{number}")).collect();
        let refusal =
            asked("VirtualService", &json!({"name": "a"}), &json!({"hosts": hosts, "http": [{}]})).refusal;
        let message = refusal.unwrap().message;
        assert!(message.contains("more") && message.len() < 10_000, "{message}");
    }
}
