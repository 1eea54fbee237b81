//! Objects of any kind as JSON: one, or many, a page after the other.

use analysis::Kind;
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::{HINT, Kubernetes};
use crate::query::encoded;

/// Objects in one answer.
const PAGE: u32 = 500;

/// A page of objects.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

impl Kubernetes {
    /// What is at a path of the API server, as text; `None` if it has no such path.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn text(&self, path: &str) -> anyhow::Result<Option<String>> {
        let request = http::Request::get(path).body(Vec::new()).with_context(|| format!("GET {path}"))?;
        match self.client.request_text(request).await {
            Ok(text) => Ok(Some(text)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("GET {path}; {HINT}")),
        }
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// When the API server does not answer, or with something else.
    pub async fn json(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let text = self.text(path).await?;
        text.map(|text| serde_json::from_str(&text).with_context(|| format!("GET {path}"))).transpose()
    }

    /// An object of a kind, if it is there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn object(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
        for version in kind.versions() {
            let found = self.json(&format!("{}/{name}", path(kind, version, Some(namespace)))).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Calls back with each object of a kind, of one namespace or all, that has certain
    /// fields (`a=b,c!=d`); never where the cluster does not know the kind.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn objects(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        fields: &str,
        mut each: impl FnMut(Value),
    ) -> anyhow::Result<()> {
        for version in kind.versions() {
            if self.each(&path(kind, version, namespace), fields, &mut each).await? {
                break;
            }
        }
        Ok(())
    }

    /// Calls back with each object at a path, that has certain fields; `false` where the
    /// API server has no such path.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn each(&self, path: &str, fields: &str, mut each: impl FnMut(Value)) -> anyhow::Result<bool> {
        let selector =
            if fields.is_empty() { String::new() } else { format!("&fieldSelector={}", encoded(fields)) };
        let first = format!("{path}?limit={PAGE}{selector}");
        let mut page = first.clone();
        loop {
            // What goes away meanwhile has no more objects.
            let Some(text) = self.text(&page).await? else { return Ok(page != first) };
            let list: List = serde_json::from_str(&text).with_context(|| format!("GET {page}"))?;
            drop(text);
            // Items of the API server's own kinds leave their kind to the list.
            let kind = list.kind.strip_suffix("List").unwrap_or_default();
            for mut item in list.items.into_iter().flatten() {
                if let Some(fields) = item.as_object_mut() {
                    fields.entry("kind").or_insert_with(|| kind.into());
                    fields.entry("apiVersion").or_insert_with(|| list.api_version.as_str().into());
                }
                each(item);
            }
            if list.metadata.next.is_empty() {
                return Ok(true);
            }
            page = format!("{first}&continue={}", encoded(&list.metadata.next));
        }
    }
}

/// Where objects of a kind are.
fn path(kind: Kind, version: &str, namespace: Option<&str>) -> String {
    let root = if kind.group().is_empty() { "api".to_owned() } else { format!("apis/{}", kind.group()) };
    let within = namespace.map_or_else(String::new, |name| format!("namespaces/{name}/"));
    format!("/{root}/{version}/{within}{}", kind.plural())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::Full;
    use kube::Client;
    use kube::client::Body;

    use super::*;

    /// A cluster of these pages.
    fn cluster(pages: &'static [(&'static str, &'static str)]) -> Kubernetes {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let asked = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let found = pages.iter().find(|(path, _)| *path == asked);
            let status = if found.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let absent = r#"{"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}"#;
            let body = Full::new(Bytes::from_static(found.map_or(absent, |(_, page)| *page).as_bytes()));
            Response::builder().status(status).body(body)
        });
        Kubernetes {
            client: Client::new(service, "default"),
            server: String::new(),
            namespace: "default".into(),
            named: None,
        }
    }

    async fn names(cluster: &Kubernetes, kind: Kind, namespace: Option<&str>, fields: &str) -> Vec<String> {
        let mut found = Vec::new();
        let word = |item: &Value, at: &str| item.pointer(at).unwrap().as_str().unwrap().to_owned();
        let each = |item: Value| {
            found.push(["/apiVersion", "/kind", "/metadata/name"].map(|at| word(&item, at)).join(" "));
        };
        cluster.objects(kind, namespace, fields, each).await.unwrap();
        found
    }

    #[tokio::test]
    async fn objects_are_asked_for_a_page_after_the_other() {
        let cluster = cluster(&[
            (
                "/api/v1/pods?limit=500&fieldSelector=spec.nodeName%21%3Dn",
                r#"{"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": "a=/+"},
                    "items": [{"metadata": {"name": "a"}}, {"kind": "Own", "metadata": {"name": "b"}}]}"#,
            ),
            (
                "/api/v1/pods?limit=500&fieldSelector=spec.nodeName%21%3Dn&continue=a%3D%2F%2B",
                r#"{"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": "gone"},
                    "items": [{"metadata": {"name": "c"}}]}"#,
            ),
        ]);
        let found = names(&cluster, Kind::Pod, None, "spec.nodeName!=n").await;
        assert_eq!(found, ["v1 Pod a", "v1 Own b", "v1 Pod c"]);
    }

    #[tokio::test]
    async fn objects_of_the_version_that_is_there_are_found() {
        let cluster = cluster(&[
            (
                "/apis/networking.istio.io/v1beta1/namespaces/shop/gateways?limit=500",
                r#"{"kind": "GatewayList", "apiVersion": "networking.istio.io/v1beta1", "items": [{"metadata": {"name": "a"}}]}"#,
            ),
            ("/apis/networking.istio.io/v1beta1/namespaces/shop/gateways/a", r#"{"kind": "Gateway"}"#),
            ("/api/v1/pods?limit=500", r#"{"kind": "PodList", "items": null}"#),
        ]);
        let found = names(&cluster, Kind::Gateway, Some("shop"), "").await;
        assert_eq!(found, ["networking.istio.io/v1beta1 Gateway a"]);
        let one = cluster.object(Kind::Gateway, "shop", "a").await.unwrap();
        assert_eq!(one, Some(serde_json::json!({"kind": "Gateway"})));
        assert!(cluster.object(Kind::Gateway, "shop", "b").await.unwrap().is_none());
        assert!(names(&cluster, Kind::Pod, None, "").await.is_empty());
        // The cluster does not know it at all.
        assert!(names(&cluster, Kind::Service, None, "").await.is_empty());
    }
}
