//! Manifests: which layer of an image holds the module. Three kinds of images
//! do: those of docker and OCI with a file `plugin.wasm` in the last layer, and
//! artifacts with a layer that is the module.

use serde::Deserialize;

use super::super::store::Form;

/// Kinds of manifests that are asked for.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const ARCHIVES: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"];
const MODULES: [&str; 2] = ["application/vnd.module.wasm.content.layer.v1+wasm", "application/wasm"];

/// A layer that holds a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Layer {
    /// Its digest, in hex.
    pub(in super::super) digest: String,
    /// How it holds it.
    pub(in super::super) form: Form,
}

/// What a manifest is of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// An image.
    Image(Layer),
    /// Several; the one that is meant, by its digest in hex.
    Index(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// Reads a manifest that came as `media_type`.
///
/// # Errors
/// Why it leads to no module.
pub(super) fn read(media_type: &str, body: &[u8]) -> Result<Content, String> {
    let manifest: Manifest = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let told = media_type.split(';').next().unwrap_or_default().trim();
    let is_index = INDEXES.iter().any(|index| *index == told || *index == manifest.media_type)
        || manifest.layers.is_empty() && !manifest.manifests.is_empty();
    if is_index {
        return child(&manifest.manifests).map(Content::Index);
    }
    layer(&manifest.layers).map(Content::Image)
}

fn layer(layers: &[Descriptor]) -> Result<Layer, String> {
    let is_one_of = |layer: &&Descriptor, kinds: &[&str]| kinds.contains(&layer.media_type.as_str());
    let archive = layers.last().filter(|layer| is_one_of(layer, &ARCHIVES));
    let module = layers.iter().find(|layer| is_one_of(layer, &MODULES));
    let (layer, form) = match (archive, module) {
        (_, Some(layer)) => (layer, Form::Bare),
        (Some(layer), None) => (layer, Form::Layer),
        (None, None) => {
            let kinds: Vec<&str> = layers.iter().map(|layer| layer.media_type.as_str()).collect();
            return Err(format!(
                "no layer holds a module: expected one of {}, found [{}]",
                [MODULES, ARCHIVES].concat().join(", "),
                kinds.join(", ")
            ));
        }
    };
    Ok(Layer { digest: digest(layer)?, form })
}

/// Modules run everywhere; indexes tell them apart by platforms nevertheless.
fn child(manifests: &[Descriptor]) -> Result<String, String> {
    let is_for = |child: &&Descriptor, want: &[(&str, &str)]| match &child.platform {
        // What is for no platform is for the usual one.
        None => true,
        Some(platform) => want.contains(&(platform.os.as_str(), platform.architecture.as_str())),
    };
    let usual = manifests.iter().find(|child| is_for(child, &[("linux", "amd64")]));
    let wasm = || {
        manifests.iter().find(|child| is_for(child, &[("wasip1", "wasm"), ("wasi", "wasm"), ("", "wasm")]))
    };
    let only = || manifests.first().filter(|_| manifests.len() == 1);
    let chosen = usual.or_else(wasm).or_else(only);
    digest(chosen.ok_or("no image of the index is for linux/amd64 or for wasm")?)
}

fn digest(descriptor: &Descriptor) -> Result<String, String> {
    let hex = descriptor
        .digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    hex.map(str::to_owned).ok_or_else(|| format!("digest {:?}: expected sha256", descriptor.digest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hex(digit: &str) -> String {
        digit.repeat(64)
    }

    fn layers(kinds: &[&str]) -> Result<Content, String> {
        let one = |(at, kind): (usize, &&str)| json!({"mediaType": kind, "digest": format!("sha256:{}", hex(&at.to_string())), "size": 1});
        let layers: Vec<_> = kinds.iter().enumerate().map(one).collect();
        read("", json!({"schemaVersion": 2, "layers": layers}).to_string().as_bytes())
    }

    #[test]
    fn every_kind_of_image_is_known() {
        let image = |digit: &str, form| Ok(Content::Image(Layer { digest: hex(digit), form }));
        assert_eq!(layers(&[ARCHIVES[0], ARCHIVES[0]]), image("1", Form::Layer));
        assert_eq!(layers(&[ARCHIVES[1]]), image("0", Form::Layer));
        assert_eq!(layers(&["application/json", MODULES[0]]), image("1", Form::Bare));
        assert_eq!(layers(&[MODULES[1]]), image("0", Form::Bare));
        assert!(layers(&[]).unwrap_err().contains("no layer"));
        assert!(layers(&["application/x"]).unwrap_err().contains("[application/x]"));
    }

    #[test]
    fn an_index_leads_to_one_image() {
        let index = |platforms: &[Option<(&str, &str)>]| {
            let one = |(at, platform): (usize, &Option<(&str, &str)>)| {
                let mut child = json!({"digest": format!("sha256:{}", hex(&at.to_string()))});
                if let Some((os, architecture)) = platform {
                    child["platform"] = json!({"os": os, "architecture": architecture});
                }
                child
            };
            let children: Vec<_> = platforms.iter().enumerate().map(one).collect();
            read(INDEXES[0], json!({"manifests": children}).to_string().as_bytes())
        };
        let child = |digit: &str| Ok(Content::Index(hex(digit)));
        assert_eq!(index(&[Some(("linux", "arm64")), Some(("linux", "amd64"))]), child("1"));
        assert_eq!(index(&[Some(("linux", "arm64")), None]), child("1"));
        assert_eq!(index(&[Some(("linux", "arm64")), Some(("wasip1", "wasm"))]), child("1"));
        assert_eq!(index(&[Some(("linux", "arm64"))]), child("0"));
        assert!(index(&[Some(("linux", "arm64")), Some(("linux", "s390x"))]).is_err());
        assert!(index(&[]).is_err());
    }

    #[test]
    fn digests_of_other_kinds_are_refused() {
        for digest in ["sha512:00", "sha256:00", "../../etc/passwd", ""] {
            let body = json!({"layers": [{"mediaType": MODULES[0], "digest": digest}]}).to_string();
            assert!(read("", body.as_bytes()).unwrap_err().contains("digest"), "{digest}");
        }
    }
}
