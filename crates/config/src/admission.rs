//! `AdmissionReview`: what the API server asks webhooks, and their answers.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Longest question, as the API server's own limit for objects (3 MiB) twice:
/// an update carries the old object as well.
pub const MAX_BYTES: usize = 6 * 1024 * 1024;

/// A question that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON.
    #[error("the body is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is another object.
    #[error(
        "expected an AdmissionReview of admission.k8s.io/v1 or v1beta1, found {found}: point only webhook \
         configurations at this address"
    )]
    Kind {
        /// What it is.
        found: String,
    },
    /// It asks nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// A question that HTTP alone shows not to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the response.
    pub status: u16,
    /// Its text.
    pub text: &'static str,
}

/// Checks what HTTP tells of a question. The API server sends exactly this type.
#[must_use]
pub fn refusal(content_type: Option<&str>, body: &[u8]) -> Option<Refusal> {
    if body.is_empty() {
        return Some(Refusal { status: 400, text: "no body found\n" });
    }
    if content_type != Some("application/json") {
        return Some(Refusal { status: 415, text: "invalid Content-Type, want `application/json`\n" });
    }
    None
}

/// What the API server asks about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Question {
    /// Names the question; the answer repeats it.
    pub uid: String,
    /// Kind of the object.
    pub kind: GroupVersionKind,
    /// The same as it is named in paths.
    pub resource: GroupVersionResource,
    /// Name of the object; empty when the API server makes it.
    pub name: String,
    /// Namespace of the object.
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: String,
    /// Who wants it.
    pub user_info: User,
    /// The object; null for `DELETE`.
    pub object: Value,
    /// The object before.
    pub old_object: Value,
    /// Whether nothing will come of it.
    pub dry_run: Option<bool>,
}

/// Names a kind of objects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    /// `networking.istio.io`; empty for Kubernetes' oldest kinds.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `VirtualService`.
    pub kind: String,
}

/// Names a kind of objects as paths of the API have it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GroupVersionResource {
    /// `networking.istio.io`.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `virtualservices`.
    pub resource: String,
}

/// Who wants something.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    /// `system:serviceaccount:NAMESPACE:NAME`, or a person's name.
    pub username: String,
}

/// A question that was read.
#[derive(Clone, Debug)]
pub struct Review {
    api_version: String,
    /// What is asked.
    pub question: Question,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Question>,
}

/// Reads a question. Deeply nested JSON ends early, with an error.
///
/// # Errors
/// When it is none.
pub fn read(body: &[u8]) -> Result<Review, Error> {
    let envelope: Envelope = serde_json::from_slice(body)?;
    let (version, kind) = (envelope.api_version, envelope.kind);
    if kind != "AdmissionReview" || !["admission.k8s.io/v1", "admission.k8s.io/v1beta1"].contains(&&*version)
    {
        let found = match (version.as_str(), kind.as_str()) {
            ("", "") => "an object without kind".to_owned(),
            (version, kind) => format!("{kind:?} of {version:?}"),
        };
        return Err(Error::Kind { found });
    }
    let question = envelope.request.ok_or(Error::NoRequest)?;
    Ok(Review { api_version: version, question })
}

/// The answer to what is no question.
#[must_use]
pub fn unreadable(error: &Error) -> Value {
    json!({"response": {"uid": "", "allowed": false, "status": {"metadata": {}, "message": error.to_string()}}})
}

impl Review {
    fn answer(&self, is_allowed: bool, more: Map<String, Value>) -> Value {
        let mut response = json!({"uid": self.question.uid, "allowed": is_allowed});
        for (field, value) in more {
            response[field] = value;
        }
        json!({"kind": "AdmissionReview", "apiVersion": self.api_version, "response": response})
    }

    /// The object may be as it is; the user is told the warnings.
    #[must_use]
    pub fn allow(&self, warnings: &[String]) -> Value {
        let more = if warnings.is_empty() { Map::new() } else { field("warnings", json!(warnings)) };
        self.answer(true, more)
    }

    /// The object is to be changed by a JSON patch, in base64.
    #[must_use]
    pub fn patch(&self, base64: String, warnings: &[String]) -> Value {
        let mut answer = self.allow(warnings);
        answer["response"]["patchType"] = "JSONPatch".into();
        answer["response"]["patch"] = base64.into();
        answer
    }

    /// The object must not be.
    #[must_use]
    pub fn deny(&self, message: &str, warnings: &[String]) -> Value {
        let mut more = field("status", json!({"metadata": {}, "message": message}));
        if !warnings.is_empty() {
            more.extend(field("warnings", json!(warnings)));
        }
        self.answer(false, more)
    }
}

fn field(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_version_and_the_name_of_the_question() {
        let body =
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u1"}}"#;
        let review = read(body).unwrap();
        assert_eq!(
            review.allow(&[]),
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1",
                "response": {"uid": "u1", "allowed": true}})
        );
        assert_eq!(review.deny("no", &["w".into()])["response"]["warnings"], json!(["w"]));
        assert_eq!(review.patch("eA==".into(), &[])["response"]["patchType"], "JSONPatch");
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for (body, want) in [
            ("{}", "an object without kind"),
            ("hello", "not JSON"),
            (r#"{"kind":"Pod","apiVersion":"v1"}"#, "\"Pod\" of \"v1\""),
            (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#, "no request"),
        ] {
            let error = read(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let bomb = format!("{}{}", r#"{"kind":"AdmissionReview","request":{"object":"#, "[".repeat(1 << 20));
        assert!(read(bomb.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
        assert_eq!(refusal(Some("application/json"), b"").unwrap().status, 400);
        assert_eq!(refusal(Some("application/json; charset=utf-8"), b"{}").unwrap().status, 415);
        assert_eq!(refusal(None, b"{}").unwrap().status, 415);
        assert_eq!(refusal(Some("application/json"), b"{}"), None);
    }
}
