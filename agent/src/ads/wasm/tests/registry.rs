//! Modules of registries.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ::http::Response;
use ::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use super::server::{Asked, Server, ok, redirect, status};
use super::*;
use crate::ads::wasm::store::sha256;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const ARCHIVE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// How a registry lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Basic,
    Bearer,
    /// The token comes from an address that must not be asked.
    Trap,
}

/// What a registry holds: manifests by tag or digest, blobs by digest.
#[derive(Clone, Default)]
struct Content {
    manifests: BTreeMap<String, (&'static str, String)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Content {
    fn manifest(&mut self, kind: &'static str, manifest: &Value, tag: Option<&str>) -> String {
        let text = manifest.to_string();
        let digest = format!("sha256:{}", sha256(text.as_bytes()));
        for name in [Some(digest.as_str()), tag].into_iter().flatten() {
            self.manifests.insert(name.to_owned(), (kind, text.clone()));
        }
        digest
    }

    fn image(&mut self, layers: &[(&str, &[u8])], tag: Option<&str>) -> String {
        let layer = |(kind, bytes): &(&str, &[u8])| {
            let digest = format!("sha256:{}", sha256(bytes));
            self.blobs.insert(digest.clone(), bytes.to_vec());
            json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
        };
        let layers: Vec<Value> = layers.iter().map(layer).collect();
        self.manifest(IMAGE, &json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": layers}), tag)
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let Some(path) = path.strip_prefix("/v2/team/auth/") else { return status(404) };
        let (what, name) = path.split_once('/').unwrap();
        if what == "manifests" {
            let Some((kind, text)) = self.manifests.get(name) else { return status(404) };
            let mut answer = ok(text.clone());
            answer.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
            return answer;
        }
        // As the large ones do: the bytes are somewhere else.
        redirect(&format!("/storage/{name}"))
    }
}

struct Registry {
    server: Server,
    content: Arc<Mutex<Content>>,
}

impl Registry {
    async fn start(door: Door, content: Content) -> Self {
        let content = Arc::new(Mutex::new(content));
        let shared = content.clone();
        let server = Server::start(move |asked| answer(door, &shared.lock().unwrap(), asked)).await;
        Self { server, content }
    }

    fn url(&self, name: &str) -> String {
        format!("oci://{}/team/auth{name}", self.server.address)
    }
}

fn answer(door: Door, content: &Content, asked: &Asked) -> Response<Full<Bytes>> {
    let host = asked.headers["host"].to_str().unwrap();
    if let Some(digest) = asked.path.strip_prefix("/storage/") {
        return content.blobs.get(digest).map_or_else(|| status(404), |bytes| ok(bytes.clone()));
    }
    let basic = format!("Basic {}", STANDARD.encode("me:secret"));
    let shown = asked.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap());
    if let Some(query) = asked.path.strip_prefix("/token?") {
        assert_eq!(query, "scope=repository%3Ateam%2Fauth%3Apull&service=test");
        return if shown == Some(&basic) { ok(r#"{"token":"t1"}"#) } else { status(401) };
    }
    let (want, challenge) = match door {
        Door::Open => return content.answer(&asked.path),
        Door::Basic => (basic, "Basic realm=\"test\"".to_owned()),
        Door::Bearer => {
            ("Bearer t1".into(), format!("Bearer realm=\"http://{host}/token\",service=\"test\""))
        }
        Door::Trap => {
            ("Bearer t1".into(), "Bearer realm=\"http://169.254.169.254/token\",service=\"test\"".into())
        }
    };
    if shown == Some(&want) {
        return content.answer(&asked.path);
    }
    let mut refused = status(401);
    refused.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    refused
}

fn secret(registry: &Registry) -> String {
    let auth = STANDARD.encode("me:secret");
    json!({"auths": {registry.server.address.to_string(): {"auth": auth}}}).to_string()
}

fn artifact() -> Content {
    let mut content = Content::default();
    content.image(&[("application/json", b"{}"), (MODULE, &module(3000))], Some("v1"));
    content
}

#[tokio::test]
async fn every_kind_of_image_is_unpacked() {
    let archive = gzip(&tar(&[("etc/x", b"x"), ("plugin.wasm", &module(300))]));
    for layers in [
        vec![("application/json", b"{}".to_vec()), (MODULE, module(300))],
        vec![(ARCHIVE, gzip(b"first")), (ARCHIVE, archive.clone())],
        vec![(DOCKER, archive.clone())],
        vec![("application/wasm", module(300))],
    ] {
        let mut content = Content::default();
        let layers: Vec<(&str, &[u8])> =
            layers.iter().map(|(kind, bytes)| (*kind, bytes.as_slice())).collect();
        content.image(&layers, Some("latest"));
        let registry = Registry::start(Door::Open, content).await;
        let stage = Stage::new();
        assert_eq!(stage.module(&Wished::new(registry.url(""))).await, module(300));
    }
}

#[tokio::test]
async fn a_tag_is_looked_up_and_known_content_is_not_fetched_again() {
    let registry = Registry::start(Door::Open, artifact()).await;
    let stage = Stage::new();
    let at = |version: &str| Wished {
        env: vec![("IMAGE_PULL_POLICY", "Always".into()), ("PLUGIN_RESOURCE_VERSION", version.into())],
        ..Wished::new(registry.url(":v1"))
    };
    assert_eq!(stage.module(&at("1")).await.len(), 3000);
    assert_eq!(stage.module(&at("2")).await.len(), 3000);
    let paths = registry.server.paths();
    assert_eq!(paths.iter().filter(|path| path.contains("/manifests/v1")).count(), 2, "{paths:?}");
    assert_eq!(paths.iter().filter(|path| path.contains("/storage/")).count(), 1, "{paths:?}");
    registry.content.lock().unwrap().image(&[(MODULE, &module(4000))], Some("v1"));
    assert_eq!(stage.module(&at("2")).await.len(), 3000);
    assert_eq!(stage.module(&at("3")).await.len(), 4000);
}

#[tokio::test]
async fn digests_are_checked_everywhere() {
    let mut content = artifact();
    let image = content.image(&[(MODULE, &module(500))], Some("v1"));
    let index = content.manifest(INDEX, &json!({"manifests": [{"digest": image}]}), Some("multi"));
    let forged = format!("sha256:{}", sha256(b"forged"));
    content.manifests.insert(forged.clone(), content.manifests["v1"].clone());
    let registry = Registry::start(Door::Open, content).await;
    let stage = Stage::new();
    for name in [format!("@{image}"), format!(":v1@{image}"), ":multi".into(), format!("@{index}")] {
        assert_eq!(stage.module(&Wished::new(registry.url(&name))).await.len(), 500, "{name}");
    }
    assert_eq!(stage.convert(&Wished::new(registry.url(&format!("@{forged}")))).await, Outcome::Closed);
    let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap().to_owned();
    for (name, digest) in [(":v1", &image), (":multi", &image), (":multi", &index)] {
        let wished = Wished { sha256: hex(digest), ..Wished::new(registry.url(name)) };
        assert_eq!(stage.module(&wished).await.len(), 500, "{name}");
    }
    let wished = Wished { sha256: hex(&forged), ..Wished::new(registry.url(":v1")) };
    assert_eq!(stage.convert(&wished).await, Outcome::Closed);

    let stage = Stage::new();
    for blob in registry.content.lock().unwrap().blobs.values_mut() {
        *blob = module(501);
    }
    assert_eq!(stage.convert(&Wished::new(registry.url(":v1"))).await, Outcome::Closed);
    assert!(stage.shows("wasm_remote_fetch_count{result=\"checksum_mismatched\"} 1"));
}

#[tokio::test]
async fn registries_learn_who_asks_and_their_storage_does_not() {
    for door in [Door::Basic, Door::Bearer] {
        let registry = Registry::start(door, artifact()).await;
        let stage = Stage::new();
        assert_eq!(stage.convert(&Wished::new(registry.url(":v1"))).await, Outcome::Closed);
        let wished = Wished {
            env: vec![("IMAGE_PULL_SECRET", secret(&registry))],
            ..Wished::new(registry.url(":v1"))
        };
        assert_eq!(stage.module(&wished).await, module(3000));
        assert!(stage.shows("wasm_remote_fetch_count{result=\"manifest_failure\"} 1"));
        let asked = registry.server.asked();
        let tokens = asked.iter().filter(|asked| asked.path.starts_with("/token")).count();
        assert_eq!(tokens, if door == Door::Bearer { 2 } else { 0 });
    }
}

#[tokio::test]
async fn credentials_of_the_pod_are_used_when_the_resource_has_none() {
    let registry = Registry::start(Door::Bearer, artifact()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), secret(&registry)).unwrap();
    let stage = Stage::with(|settings| settings.docker_configs = vec![file.path().into()]);
    assert_eq!(stage.module(&Wished::new(registry.url(":v1"))).await, module(3000));
}

#[tokio::test]
async fn a_registry_leads_to_no_metadata_server() {
    let registry = Registry::start(Door::Trap, artifact()).await;
    let stage = Stage::new();
    let wished = Wished {
        env: vec![("IMAGE_PULL_SECRET", secret(&registry))],
        fail_open: true,
        ..Wished::new(registry.url(":v1"))
    };
    assert_eq!(stage.convert(&wished).await, Outcome::Open);
    let asked = registry.server.asked();
    assert!(asked.iter().all(|asked| !asked.headers.contains_key(AUTHORIZATION)), "{asked:?}");
}

#[tokio::test]
async fn an_empty_pull_secret_closes_the_filter() {
    let registry = Registry::start(Door::Open, artifact()).await;
    let stage = Stage::new();
    let wished =
        Wished { env: vec![("IMAGE_PULL_SECRET", String::new())], ..Wished::new(registry.url(":v1")) };
    assert_eq!(stage.convert(&wished).await, Outcome::Closed);
    assert!(registry.server.paths().is_empty());
}
