//! Names of images, as docker writes them.

use std::fmt;
use std::str::FromStr;

use http::uri::Authority;

/// The registry of names that have none.
const DOCKER_HUB: &str = "index.docker.io";
/// How people call it.
const DOCKER_HUB_ALIAS: &str = "docker.io";
const LATEST: &str = "latest";

/// A text that names no image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: not an image: expected REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]")]
pub(in super::super) struct BadReference(String);

/// An image of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        parse(text).ok_or_else(|| BadReference(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Reference> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.strip_prefix("sha256:")?)),
        None => (text, None),
    };
    let is_hex = |digest: &str| {
        digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !digest.is_none_or(is_hex) {
        return None;
    }
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let is_tag = |tag: &str| {
        (1..=128).contains(&tag.len())
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    if !tag.is_none_or(is_tag) {
        return None;
    }
    let (registry, repository) = match name.split_once('/') {
        Some((registry, rest)) if registry.contains(['.', ':']) || registry == "localhost" => {
            (registry, rest)
        }
        _ => (DOCKER_HUB, name),
    };
    let registry = if registry == DOCKER_HUB_ALIAS { DOCKER_HUB } else { registry };
    let authority: Authority = registry.parse().ok()?;
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
    };
    let is_repository = (1..=255).contains(&repository.len()) && repository.split('/').all(is_part);
    if registry.contains('@') || authority.host().is_empty() || !is_repository {
        return None;
    }
    let is_official = registry == DOCKER_HUB && !repository.contains('/');
    let repository = if is_official { format!("library/{repository}") } else { repository.to_owned() };
    Some(Reference {
        registry: registry.to_owned(),
        repository,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

impl Reference {
    /// `HOST[:PORT]` of the registry.
    pub(in super::super) fn host(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry.
    pub(super) fn path(&self) -> &str {
        &self.repository
    }

    /// Registry and repository.
    pub(in super::super) fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The digest that the image must have, in hex.
    pub(in super::super) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Whether the image may be another one next time without being called so.
    pub(in super::super) fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref().unwrap_or(LATEST) == LATEST
    }

    /// What the registry knows the image by: the digest, or else the tag.
    pub(super) fn identifier(&self) -> String {
        match &self.digest {
            Some(digest) => format!("sha256:{digest}"),
            None => self.tag.clone().unwrap_or_else(|| LATEST.into()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joint = if self.digest.is_some() { '@' } else { ':' };
        write!(f, "{}/{}{joint}{}", self.registry, self.repository, self.identifier())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_read_as_docker_does() {
        for (text, want) in [
            ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("localhost:5000/b:v1", "localhost:5000/b:v1"),
            ("localhost/b", "localhost/b:latest"),
            ("[::1]:5000/bb", "[::1]:5000/bb:latest"),
            ("docker.io/nginx", "index.docker.io/library/nginx:latest"),
            ("nginx:1", "index.docker.io/library/nginx:1"),
            ("a/b", "index.docker.io/a/b:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), want, "{text}");
        }
        let pinned: Reference = format!("ghcr.io/a/b:v1@{DIGEST}").parse().unwrap();
        assert_eq!(pinned.to_string(), format!("ghcr.io/a/b@{DIGEST}"));
        assert_eq!(pinned.identifier(), DIGEST);
        assert_eq!(pinned.digest(), DIGEST.strip_prefix("sha256:"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "ghcr.io/",
            "ghcr.io/a/b:",
            "ghcr.io/A/b",
            "ghcr.io/a b",
            "ghcr.io/a/b@sha256:12",
            "ghcr.io/a/b@sha512:12",
            "ghcr.io/../x/y",
            "ghcr.io//x",
            "a:b@ghcr.io/x/y",
            "ghcr.io/a/b?x=y",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_image_without_tag_is_the_latest() {
        let is_latest = |text: &str| text.parse::<Reference>().unwrap().is_latest();
        assert!(is_latest("ghcr.io/a/b"));
        assert!(is_latest("ghcr.io/a/b:latest"));
        assert!(!is_latest("ghcr.io/a/b:v1"));
        assert!(!is_latest(&format!("ghcr.io/a/b@{DIGEST}")));
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_asked_for(text in "[a-z0-9.:/@_\\[\\] -]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let url = format!("https://{}/v2/{}/manifests/{}", reference.host(), reference.path(), reference.identifier());
                prop_assert!(url.parse::<http::Uri>().is_ok(), "{url}");
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap().to_string(), reference.to_string());
            }
        }
    }
}
