//! Credentials in docker's configuration, as in pull secrets.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::plugin::Secret;
use super::{Error, Reference};

/// Who asks a registry.
#[derive(Clone, Default)]
pub(in super::super) struct Credentials {
    user: Option<(String, Zeroizing<String>)>,
    /// Gets tokens by being refreshed.
    pub(super) identity_token: Option<Zeroizing<String>>,
    /// Is shown as it is.
    pub(super) registry_token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// The header with name and password.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let (name, password) = self.user.as_ref()?;
        let plain = Zeroizing::new(format!("{name}:{}", password.as_str()));
        let mut value =
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain.as_bytes()))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials for a registry: of the secret, or else of the first of the
/// files that is there.
///
/// # Errors
/// When what holds them cannot be read.
pub(in super::super) fn credentials(
    reference: &Reference,
    secret: Option<&Secret>,
    files: &[PathBuf],
) -> Result<Option<Credentials>, Error> {
    if let Some(Secret(text)) = secret {
        return read("image pull secret", text, reference);
    }
    for file in files {
        match std::fs::read_to_string(file) {
            Ok(text) => return read(&file.display().to_string(), &Zeroizing::new(text), reference),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::Credentials {
                    from: file.display().to_string(),
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok(None)
}

fn read(from: &str, text: &str, reference: &Reference) -> Result<Option<Credentials>, Error> {
    let bad = |reason: String| Error::Credentials { from: from.to_owned(), reason };
    // The message of the parser could quote a part of the secret.
    let config: Config = serde_json::from_str(text).map_err(|error| {
        bad(format!("not a docker configuration: line {}, column {}", error.line(), error.column()))
    })?;
    let found = [reference.repository().as_str(), reference.host()]
        .into_iter()
        .flat_map(aliases)
        .find_map(|name| config.auths.iter().find(|(key, _)| server(key) == name || **key == name));
    let Some((key, entry)) = found else { return Ok(None) };
    let user = if entry.auth.is_empty() {
        (!entry.username.is_empty()).then(|| (entry.username.clone(), entry.password.clone()))
    } else {
        Some(
            decoded(&entry.auth)
                .ok_or_else(|| bad(format!("auth of {key:?}: expected base64 of USER:PASSWORD")))?,
        )
    };
    let token = |text: &String| (!text.is_empty()).then(|| Zeroizing::new(text.clone()));
    let credentials = Credentials {
        user: user.map(|(name, password)| (name, Zeroizing::new(password))),
        identity_token: token(&entry.identitytoken),
        registry_token: token(&entry.registrytoken),
    };
    Ok(Some(credentials))
}

/// Docker Hub has several names.
fn aliases(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    if name == "index.docker.io" {
        all.extend(["docker.io".into(), "registry-1.docker.io".into()]);
    }
    all
}

/// A key without scheme, and without the path that Docker Hub's has.
fn server(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let is_version = |path: &str| matches!(path.trim_matches('/'), "" | "v1" | "v2");
    match key.split_once('/') {
        Some((server, path)) if is_version(path) => server,
        _ => key,
    }
}

fn decoded(auth: &str) -> Option<(String, String)> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let text = String::from_utf8(engine.decode(auth.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &str, image: &str) -> Option<Credentials> {
        let secret = Secret(Zeroizing::new(config.to_owned()));
        credentials(&image.parse().unwrap(), Some(&secret), &[]).unwrap()
    }

    fn basic(config: &str, image: &str) -> Option<String> {
        of(config, image)?.basic().map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let me = STANDARD.encode("me:secret");
        let want = Some(format!("Basic {me}"));
        for key in ["ghcr.io", "https://ghcr.io", "https://ghcr.io/v2/", "ghcr.io/a/b"] {
            let config = format!(r#"{{"auths":{{"{key}":{{"auth":"{me}"}}, "other.io": {{}}}}}}"#);
            assert_eq!(basic(&config, "ghcr.io/a/b"), want, "{key}");
            assert_eq!(basic(&config, "quay.io/a/b"), None, "{key}");
        }
        let hub = format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{me}"}}}}}}"#);
        assert_eq!(basic(&hub, "nginx"), want);
        let named = r#"{"auths":{"ghcr.io":{"username":"me","password":"secret"}}}"#;
        assert_eq!(basic(named, "ghcr.io/a/b"), want);
        let unpadded = r#"{"auths":{"ghcr.io":{"auth":"bWU6c2VjcmV0MQ"}}}"#;
        assert_eq!(basic(unpadded, "ghcr.io/a/b"), Some(format!("Basic {}", STANDARD.encode("me:secret1"))));
    }

    #[test]
    fn what_cannot_be_read_is_told_without_the_secret() {
        for text in
            ["null", "{", r#"{"auths":{"ghcr.io":{"auth":"hunter2"}}}"#, r#"{"auths":{"ghcr.io":"hunter2"}}"#]
        {
            let secret = Secret(Zeroizing::new(text.to_owned()));
            let error = credentials(&"ghcr.io/a/b".parse().unwrap(), Some(&secret), &[]).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_first_file_counts_when_there_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let files = [dir.path().join("none"), dir.path().join("config.json")];
        let reference = "ghcr.io/a/b".parse().unwrap();
        assert!(credentials(&reference, None, &files).unwrap().is_none());
        std::fs::write(&files[1], r#"{"auths":{"ghcr.io":{"username":"me","password":"p"}}}"#).unwrap();
        assert!(credentials(&reference, None, &files).unwrap().is_some());
    }
}
