//! What each template puts into a pod, as a patch that is merged into it.

mod common;
mod container;
mod gateway;
mod grpc;
mod init;
mod sidecar;
mod volume;

use std::collections::BTreeMap;

use mesh::{MeshConfig, ProxyConfig};
use names::annotation;
use proto::istio::mesh::v1alpha1::proxy_config::InboundInterceptionMode;
use serde_json::Value;

use crate::owner::Owner;
use crate::settings::Settings;

pub(crate) use common::amounts;

/// The templates that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sidecar,
    Gateway,
    GrpcAgent,
    GrpcSimple,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Sidecar, Self::Gateway, Self::GrpcAgent, Self::GrpcSimple];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
            Self::GrpcAgent => "grpc-agent",
            Self::GrpcSimple => "grpc-simple",
        }
    }

    /// The patch for a pod.
    pub(crate) fn build(self, context: &Context<'_>) -> Result<Value, Error> {
        match self {
            Self::Sidecar => sidecar::build(context),
            Self::Gateway => Ok(gateway::build(context)),
            Self::GrpcAgent => grpc::agent(context),
            Self::GrpcSimple => Ok(grpc::simple(context)),
        }
    }
}

/// A pod that a template cannot be used for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An annotation has no JSON of the kind it must have.
    #[error("annotation '{key}': expected JSON such as {example}: {why}")]
    Json {
        /// Its name.
        key: &'static str,
        /// What it may be.
        example: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// What templates may look at.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) mesh: &'a MeshConfig,
    /// The pod without what an earlier injection put in.
    pub(crate) pod: &'a Value,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) proxy: &'a ProxyConfig,
    pub(crate) owner: &'a Owner,
    /// Whether the cluster runs restartable init containers.
    pub(crate) native: bool,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
}

impl Context<'_> {
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// An annotation, or one of Helm's values.
    fn setting(&self, key: &str, path: &str) -> String {
        self.annotation(key).map_or_else(|| self.settings.values.text(path), str::to_owned)
    }

    /// One of Helm's values.
    fn value(&self, path: &str) -> String {
        self.settings.values.text(path)
    }

    fn is_on(&self, path: &str) -> bool {
        self.settings.values.is_on(path)
    }

    /// How traffic is captured.
    fn mode(&self) -> String {
        self.annotation(annotation::INTERCEPTION_MODE).unwrap_or_else(|| self.mesh_mode()).to_owned()
    }

    fn mesh_mode(&self) -> &'static str {
        match self.proxy.interception_mode() {
            InboundInterceptionMode::Redirect => "REDIRECT",
            InboundInterceptionMode::Tproxy => "TPROXY",
            InboundInterceptionMode::None => "NONE",
        }
    }

    /// Whether this pod's sidecar is an init container.
    fn is_native(&self) -> bool {
        match self.annotation(annotation::NATIVE_SIDECAR) {
            None | Some("") => self.native,
            Some(value) => value != "false",
        }
    }

    fn uses_cni(&self) -> bool {
        self.is_on("pilot.cni.enabled")
    }

    /// The port of the agent.
    fn status_port(&self) -> String {
        self.setting(annotation::STATUS_PORT, "global.proxy.statusPort")
    }

    /// The image of the proxy.
    pub(crate) fn proxy_image(&self) -> String {
        let kind = self.proxy.image.as_ref().map_or("", |image| image.image_type.as_str());
        self.image("global.proxy.image", kind)
    }

    fn init_image(&self) -> String {
        self.image("global.proxy_init.image", "")
    }

    /// A whole image (one with a slash), or its name in the registry of the mesh.
    fn image(&self, path: &str, kind: &str) -> String {
        let wish = self.setting(annotation::PROXY_IMAGE, path);
        if wish.contains('/') {
            return wish;
        }
        let name = Some(self.value(path)).filter(|name| !name.is_empty()).unwrap_or_else(|| "proxyv2".into());
        let variant = self.value("global.variant");
        let kind = if kind.is_empty() { variant.as_str() } else { kind };
        let kind = self.annotation(annotation::PROXY_IMAGE_TYPE).unwrap_or(kind);
        let tag = self.value("global.tag");
        format!("{}/{name}:{}", self.value("global.hub"), tag_of(&tag, kind))
    }
}

/// The tag of a variant, whose name takes the place of another's.
fn tag_of(tag: &str, kind: &str) -> String {
    if kind.is_empty() {
        return tag.to_owned();
    }
    let base = ["-distroless", "-debug"].iter().find_map(|known| tag.strip_suffix(known)).unwrap_or(tag);
    if kind == "default" { base.to_owned() } else { format!("{base}-{kind}") }
}

/// Whether this pod's sidecar counts as an init container when a container of
/// the user's is laid on it.
pub(crate) fn moves_to_init(annotations: &BTreeMap<String, String>, native: bool) -> bool {
    match annotations.get(annotation::NATIVE_SIDECAR).map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => native,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_of_an_image_replaces_another() {
        assert_eq!(tag_of("1.2", ""), "1.2");
        assert_eq!(tag_of("1.2-debug", ""), "1.2-debug");
        assert_eq!(tag_of("1.2-debug", "distroless"), "1.2-distroless");
        assert_eq!(tag_of("1.2-distroless", "default"), "1.2");
        assert_eq!(tag_of("1.2", "debug"), "1.2-debug");
    }
}
