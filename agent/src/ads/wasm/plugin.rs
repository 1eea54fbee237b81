//! Wasm filters as resources: what they wish to be fetched, and what they
//! become. No I/O.

mod message;
mod typed_struct;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::{Message as _, Name};
use proto::Any;
use proto::envoy::config::core::v3::TypedExtensionConfig;
use proto::envoy::config::rbac::v3::Rbac as Rules;
use proto::envoy::extensions::filters::{http, network};
use zeroize::Zeroizing;

use crate::metrics::wasm::Converted;
use typed_struct::TypedStruct;

/// Variables of the VM that istiod talks to the agent by; none of that prefix
/// reaches the module.
const PREFIX: &str = "ISTIO_META_";
/// A docker configuration with credentials.
const PULL_SECRET: &str = "ISTIO_META_WASM_IMAGE_PULL_SECRET";
/// `Always`, `IfNotPresent` or `UNSPECIFIED_POLICY`.
const PULL_POLICY: &str = "ISTIO_META_WASM_IMAGE_PULL_POLICY";
/// Version of the WasmPlugin.
const RESOURCE_VERSION: &str = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION";
/// istiod's word for no checksum: Envoy's own validation wants one.
const NO_CHECKSUM: &str = "nil";
/// Time for a download whose resource names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a filter filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Network,
}

impl Kind {
    fn of(type_url: &str) -> Option<Self> {
        let name = type_url.rsplit('/').next()?;
        if name == http::wasm::v3::Wasm::full_name() {
            Some(Self::Http)
        } else if name == network::wasm::v3::Wasm::full_name() {
            Some(Self::Network)
        } else {
            None
        }
    }
}

/// The two ways in which a filter is written.
#[derive(Clone, Debug)]
enum Form {
    Message(Box<proto::envoy::extensions::wasm::v3::PluginConfig>),
    Struct { type_url: String, message: TypedStruct },
}

/// Where code comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Code {
    Local,
    Remote(Remote),
}

/// Remote code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Remote {
    /// `None` when the resource does not say.
    uri: Option<String>,
    timeout: Option<Duration>,
    sha256: String,
}

/// What is read of a filter in either form.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    code: Code,
    env: BTreeMap<String, String>,
    fails_open: bool,
}

/// A Wasm filter with remote code.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    name: String,
    kind: Kind,
    form: Form,
    remote: Remote,
    env: BTreeMap<String, String>,
    fails_open: bool,
}

/// When a module in the cache is as good as a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Policy {
    /// `IfNotPresent`, but `Always` for images with the tag `latest`.
    #[default]
    Unspecified,
    /// Always.
    IfNotPresent,
    /// As long as the resource is of the same version.
    Always,
}

/// A docker configuration with credentials.
#[derive(Clone)]
pub(super) struct Secret(pub(super) Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A module that is to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Where from; may hold a password.
    pub(super) url: String,
    /// SHA-256 of the module, or digest of the image, in lower-case hex.
    pub(super) checksum: Option<String>,
    /// Time for all of it.
    pub(super) timeout: Duration,
    /// Who wishes it.
    pub(super) resource: String,
    /// Version of that.
    pub(super) version: String,
    /// When the cache will do.
    pub(super) policy: Policy,
    /// Credentials.
    pub(super) secret: Option<Secret>,
}

/// A filter whose wish makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum Senseless {
    /// It names no place.
    #[error("the remote code has no httpUri")]
    NoUri,
    /// It has a pull secret without content.
    #[error("the image pull secret is empty: name one in imagePullSecret that istiod can read")]
    EmptySecret,
    /// Its checksum is none.
    #[error("sha256 {0:?}: expected 64 hexadecimal digits")]
    Checksum(String),
}

impl Senseless {
    /// How it is counted.
    pub(super) fn result(&self) -> Converted {
        match self {
            Self::NoUri => Converted::miss_remote_fetch_hint,
            Self::EmptySecret | Self::Checksum(_) => Converted::fetch_failure,
        }
    }
}

impl Plugin {
    /// Reads an encoded `TypedExtensionConfig`; `None` when it is no Wasm
    /// filter with remote code.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn read(config: &Bytes) -> Result<Option<Self>, String> {
        let config = TypedExtensionConfig::decode(config.clone()).map_err(|error| error.to_string())?;
        let name = config.name;
        let typed = config.typed_config.ok_or("it has no typed config")?;
        let undecodable = |error: prost::DecodeError| format!("{}: {error}", typed.type_url);
        let (kind, form) = if let Some(kind) = Kind::of(&typed.type_url) {
            // Both messages consist of the plugin's configuration.
            let wasm = http::wasm::v3::Wasm::decode(typed.value.clone()).map_err(undecodable)?;
            (kind, Form::Message(Box::new(wasm.config.unwrap_or_default())))
        } else if typed_struct::is_one(&typed.type_url) {
            let message = TypedStruct::decode(typed.value.clone()).map_err(undecodable)?;
            let Some(kind) = Kind::of(&message.type_url) else { return Ok(None) };
            (kind, Form::Struct { type_url: typed.type_url, message })
        } else {
            return Ok(None);
        };
        let parts = match &form {
            Form::Message(config) => message::parts(config),
            Form::Struct { message, .. } => typed_struct::parts(message)?,
        };
        let Parts { code, env, fails_open } = parts.ok_or("it has neither remote nor local code")?;
        Ok(match code {
            Code::Local => None,
            Code::Remote(remote) => Some(Self { name, kind, form, remote, env, fails_open }),
        })
    }

    /// Name of the resource.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether traffic passes when there is no module.
    pub(super) fn fails_open(&self) -> bool {
        self.fails_open
    }

    /// What is to be fetched.
    ///
    /// # Errors
    /// When that is not clear.
    pub(super) fn wish(&self) -> Result<Wish, Senseless> {
        let secret = match self.env.get(PULL_SECRET) {
            Some(text) if text.is_empty() => return Err(Senseless::EmptySecret),
            secret => secret.map(|text| Secret(Zeroizing::new(text.clone()))),
        };
        let checksum = match self.remote.sha256.as_str() {
            "" | NO_CHECKSUM => None,
            text if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Some(text.to_ascii_lowercase())
            }
            text => return Err(Senseless::Checksum(text.to_owned())),
        };
        Ok(Wish {
            url: self.remote.uri.clone().ok_or(Senseless::NoUri)?,
            checksum,
            timeout: self.remote.timeout.filter(|limit| !limit.is_zero()).unwrap_or(DEFAULT_TIMEOUT),
            resource: self.name.clone(),
            version: self.env.get(RESOURCE_VERSION).cloned().unwrap_or_default(),
            policy: match self.env.get(PULL_POLICY).map(String::as_str) {
                Some("Always") => Policy::Always,
                Some("IfNotPresent") => Policy::IfNotPresent,
                _ => Policy::Unspecified,
            },
            secret,
        })
    }

    /// The resource with its code in that file.
    pub(super) fn with_file(self, file: &Path) -> Bytes {
        let file = file.to_string_lossy().into_owned();
        let typed = match self.form {
            Form::Message(mut config) => {
                message::set_file(&mut config, file);
                let config = Some(*config);
                match self.kind {
                    Kind::Http => Any::pack(&http::wasm::v3::Wasm { config }),
                    Kind::Network => Any::pack(&network::wasm::v3::Wasm { config }),
                }
            }
            Form::Struct { type_url, mut message } => {
                typed_struct::set_file(&mut message, file);
                Any { type_url, value: message.encode_to_vec().into() }
            }
        };
        encode(self.name, typed)
    }

    /// A filter of the same name in its place that lets everything or nothing
    /// pass.
    pub(super) fn without_code(self) -> Bytes {
        // No rules let everything pass, empty rules nothing.
        let (rules, prefix) = if self.fails_open {
            (None, "wasm-default-allow")
        } else {
            (Some(Rules::default()), "wasm-default-deny")
        };
        let typed = match self.kind {
            Kind::Http => Any::pack(&http::rbac::v3::Rbac {
                rules,
                rules_stat_prefix: prefix.into(),
                ..Default::default()
            }),
            Kind::Network => Any::pack(&network::rbac::v3::Rbac {
                rules,
                stat_prefix: prefix.into(),
                ..Default::default()
            }),
        };
        encode(self.name, typed)
    }
}

fn encode(name: String, typed: Any) -> Bytes {
    TypedExtensionConfig { name, typed_config: Some(typed) }.encode_to_vec().into()
}

#[cfg(test)]
mod tests;
