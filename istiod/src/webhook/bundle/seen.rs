//! What a webhook configuration says, as far as it is ours.

use serde_json::Value;

/// How the names of our webhooks in a mutating configuration end.
const INJECTOR: &str = "sidecar-injector.istio.io";
/// The revision that a configuration is for.
const REVISION: &str = "istio.io/rev";
/// On a validating configuration: `keep` leaves its failurePolicy as it is.
const FAILURE_POLICY: &str = "istio.io/failure-policy";

/// One of the two kinds of configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// They change objects.
    Mutating,
    /// They refuse objects.
    Validating,
}

impl Form {
    /// The kind of its objects.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        }
    }

    /// Path of its objects.
    pub(super) fn path(self) -> String {
        let plural = match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        };
        format!("/apis/admissionregistration.k8s.io/v1/{plural}")
    }
}

/// A webhook of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// Its name.
    pub(super) name: String,
    /// The roots that the API server trusts, in base64.
    bundle: String,
    /// Whether objects pass that it was not asked about.
    ignores_failures: bool,
}

/// A configuration of our revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its kind.
    pub(super) form: Form,
    /// Its name.
    pub(super) name: String,
    /// Its webhooks that are ours.
    pub(super) hooks: Vec<Hook>,
    /// Whether somebody wants its failurePolicy as it is.
    keeps_policy: bool,
}

impl Seen {
    /// Whether other roots are there than should be.
    pub(super) fn needs_bundle(&self, bundle: &str) -> bool {
        self.hooks.iter().any(|hook| hook.bundle != bundle)
    }

    /// Whether wrong objects could be stored, and nobody wants that.
    pub(super) fn lets_pass(&self) -> bool {
        let may_change = self.form == Form::Validating && !self.keeps_policy;
        may_change && self.hooks.iter().any(|hook| hook.ignores_failures)
    }
}

/// Reads a configuration; `None` when none of it is ours.
pub(super) fn read(form: Form, object: &Value, revision: &str) -> Option<Seen> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let revision = if revision.is_empty() { "default" } else { revision };
    if metadata["labels"][REVISION] != revision {
        return None;
    }
    let hooks = object["webhooks"].as_array().into_iter().flatten().map(|hook| Hook {
        name: text(&hook["name"]),
        bundle: text(&hook["clientConfig"]["caBundle"]),
        ignores_failures: hook["failurePolicy"] == "Ignore",
    });
    let is_ours = |hook: &Hook| form == Form::Validating || hook.name.ends_with(INJECTOR);
    let hooks: Vec<Hook> = hooks.filter(is_ours).collect();
    let keeps_policy = metadata["annotations"][FAILURE_POLICY] == "keep";
    (!hooks.is_empty()).then(|| Seen { form, name: text(&metadata["name"]), hooks, keeps_policy })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_ours_is_looked_after() {
        let mut object = json!({
            "metadata": {"name": "w", "labels": {"istio.io/rev": "default"}},
            "webhooks": [
                {"name": "rev.namespace.sidecar-injector.istio.io", "clientConfig": {"caBundle": "a"}},
                {"name": "other.example.com", "clientConfig": {}},
            ],
        });
        let seen = read(Form::Mutating, &object, "").unwrap();
        assert_eq!((seen.hooks.len(), seen.needs_bundle("a"), seen.needs_bundle("b")), (1, false, true));
        assert_eq!(read(Form::Mutating, &object, "canary"), None);
        assert_eq!(read(Form::Validating, &object, "default").unwrap().hooks.len(), 2);
        object["metadata"]["labels"] = json!({});
        assert_eq!(read(Form::Mutating, &object, ""), None);
    }

    #[test]
    fn a_policy_that_somebody_wants_stays() {
        let mut object = json!({
            "metadata": {"name": "w", "labels": {"istio.io/rev": "default"}},
            "webhooks": [{"name": "validation.istio.io", "failurePolicy": "Ignore"}],
        });
        assert!(read(Form::Validating, &object, "").unwrap().lets_pass());
        object["metadata"]["annotations"] = json!({"istio.io/failure-policy": "keep"});
        assert!(!read(Form::Validating, &object, "").unwrap().lets_pass());
        object["metadata"]["annotations"] = json!(null);
        object["webhooks"][0]["failurePolicy"] = json!("Fail");
        assert!(!read(Form::Validating, &object, "").unwrap().lets_pass());
    }
}
