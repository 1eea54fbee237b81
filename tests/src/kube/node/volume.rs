//! Volumes of pods, written as a kubelet writes them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::field;
use super::mirror::{Mirror, items, text};
use super::rest::Rest;

/// Files of a volume: paths below it, and their bytes.
type Files = BTreeMap<String, Vec<u8>>;

/// A token and when it is asked for anew.
struct Token {
    text: String,
    renewed: Instant,
}

/// All volumes of a pod.
pub(super) struct Volumes {
    dir: PathBuf,
    host: PathBuf,
    group: Option<u32>,
    rest: Rest,
    tokens: BTreeMap<String, Token>,
    written: BTreeMap<String, Files>,
    serial: u64,
}

impl Volumes {
    pub(super) fn new(dir: &Path, host: &Path, rest: Rest, pod: &Value) -> Self {
        let group = pod["spec"]["securityContext"]["fsGroup"].as_u64().and_then(|id| u32::try_from(id).ok());
        let (dir, host) = (dir.join("volumes"), host.to_owned());
        Self { dir, host, group, rest, tokens: BTreeMap::new(), written: BTreeMap::new(), serial: 0 }
    }

    /// The folder of a volume.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Brings everything to what it should be now.
    ///
    /// # Errors
    /// What is not there yet, and which volume needs it.
    pub(super) fn update(
        &mut self,
        pod: &Value,
        network: &field::Network,
        mirror: &Mirror,
    ) -> anyhow::Result<()> {
        for volume in items(&pod["spec"]["volumes"]) {
            let name = text(&volume["name"]);
            self.one(name, volume, pod, network, mirror).with_context(|| format!("volume {name}"))?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        name: &str,
        volume: &Value,
        pod: &Value,
        network: &field::Network,
        mirror: &Mirror,
    ) -> anyhow::Result<()> {
        let dir = self.path(name);
        if volume["hostPath"].is_object() {
            return of_host(&self.host, &dir, &volume["hostPath"]);
        }
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            // Everybody of the pod may write into an empty directory.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
            if let Some(group) = self.group {
                chown(&dir, None, Some(group))?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o2777))?;
            }
        }
        let mut files = Files::new();
        let namespace = text(&pod["metadata"]["namespace"]);
        if volume["projected"].is_object() {
            for source in items(&volume["projected"]["sources"]) {
                if source["serviceAccountToken"].is_object() {
                    let token = &source["serviceAccountToken"];
                    files.insert(text(&token["path"]).to_owned(), self.token(name, token, pod)?.into_bytes());
                } else {
                    files.extend(content(source, namespace, pod, network, mirror)?);
                }
            }
        } else if volume.get("emptyDir").is_none() {
            files = content(volume, namespace, pod, network, mirror)?;
        } else {
            return Ok(());
        }
        if self.written.get(name) != Some(&files) {
            self.write(&dir, &files)?;
            self.written.insert(name.to_owned(), files);
        }
        Ok(())
    }

    /// All files change at once, by one link.
    fn write(&mut self, dir: &Path, files: &Files) -> anyhow::Result<()> {
        self.serial += 1;
        let generation = format!("..{}", self.serial);
        let data = dir.join("..data");
        let old = fs::read_link(&data).ok();
        fs::create_dir(dir.join(&generation))?;
        for (path, bytes) in files {
            let file = dir.join(&generation).join(path);
            fs::create_dir_all(file.parent().context("a file has a folder")?)?;
            fs::write(&file, bytes)?;
            let mode = if self.group.is_some() { 0o640 } else { 0o644 };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
            chown(&file, None, self.group)?;
        }
        let next = dir.join("..data_tmp");
        symlink(&generation, &next)?;
        fs::rename(&next, &data)?;
        for path in files.keys() {
            let first = path.split('/').next().unwrap_or(path);
            if dir.join(first).symlink_metadata().is_err() {
                symlink(Path::new("..data").join(first), dir.join(first))?;
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(dir.join(old))?;
        }
        Ok(())
    }

    fn token(&mut self, volume: &str, source: &Value, pod: &Value) -> anyhow::Result<String> {
        let id = format!("{volume}/{}", text(&source["path"]));
        let known = self.tokens.get(&id);
        if let Some(token) = known.filter(|token| Instant::now() < token.renewed) {
            return Ok(token.text.clone());
        }
        let asked = self.ask(source, pod);
        match (asked, known) {
            (Ok(token), _) => {
                let text = token.text.clone();
                self.tokens.insert(id, token);
                Ok(text)
            }
            // The old one is good for a while still.
            (Err(_), Some(token)) => Ok(token.text.clone()),
            (Err(error), None) => Err(error),
        }
    }

    fn ask(&self, source: &Value, pod: &Value) -> anyhow::Result<Token> {
        let metadata = &pod["metadata"];
        let life = source["expirationSeconds"].as_u64().unwrap_or(3600);
        let audiences: Vec<&str> = source["audience"].as_str().into_iter().collect();
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": life,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]},
            },
        });
        let namespace = text(&metadata["namespace"]);
        let account = text(&pod["spec"]["serviceAccountName"]);
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.rest.create(&path, &request)?;
        let text = answer["status"]["token"].as_str().context("a token request without a token")?.to_owned();
        // At four fifths of its life, and each day.
        let age = Duration::from_secs(life * 4 / 5).min(Duration::from_secs(24 * 3600));
        Ok(Token { text, renewed: Instant::now() + age })
    }
}

/// Leads from a volume's path to a file or folder of the node.
fn of_host(host: &Path, volume: &Path, spec: &Value) -> anyhow::Result<()> {
    let path = text(&spec["path"]);
    ensure!(path.starts_with('/') && !path.split('/').any(|part| part == ".."), "path {path:?}");
    let there = host.join(path.trim_start_matches('/'));
    let kind = spec["type"].as_str().unwrap_or_default();
    match kind {
        // A container runtime makes a folder of what is not there.
        "" | "DirectoryOrCreate" if !there.exists() => {
            fs::create_dir_all(&there)?;
            fs::set_permissions(&there, fs::Permissions::from_mode(0o755))?;
        }
        "FileOrCreate" if !there.exists() => {
            File::create(&there).with_context(|| format!("file {path}"))?;
        }
        _ => {}
    }
    let found = fs::metadata(&there).with_context(|| format!("{path} of the node"))?.file_type();
    let fits = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        _ => bail!("the node has no paths of type {kind}"),
    };
    ensure!(fits, "{path} of the node is no {kind}");
    if volume.symlink_metadata().is_err() {
        fs::create_dir_all(volume.parent().context("a volume has a folder")?)?;
        symlink(&there, volume)?;
    }
    Ok(())
}

fn content(
    source: &Value,
    namespace: &str,
    pod: &Value,
    network: &field::Network,
    mirror: &Mirror,
) -> anyhow::Result<Files> {
    if source["downwardAPI"].is_object() {
        let mut files = Files::new();
        for item in items(&source["downwardAPI"]["items"]) {
            let path = text(&item["fieldRef"]["fieldPath"]);
            let value = field::of(pod, network, path).with_context(|| format!("field {path}"))?;
            files.insert(text(&item["path"]).to_owned(), value.into_bytes());
        }
        return Ok(files);
    }
    for (kind, field) in [("ConfigMap", "configMap"), ("Secret", "secret")] {
        let reference = &source[field];
        if !reference.is_object() {
            continue;
        }
        let name = reference["name"].as_str().or(reference["secretName"].as_str()).unwrap_or_default();
        let Some(object) = mirror.get(kind, namespace, name) else {
            if reference["optional"] == true {
                return Ok(Files::new());
            }
            bail!("{kind} {namespace}/{name} is not there");
        };
        let mut all = Files::new();
        for (key, value) in object["data"].as_object().into_iter().flatten() {
            let value = text(value);
            let bytes = if kind == "Secret" { STANDARD.decode(value)? } else { value.as_bytes().to_vec() };
            all.insert(key.clone(), bytes);
        }
        for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
            all.insert(key.clone(), STANDARD.decode(text(value))?);
        }
        if !reference["items"].is_array() {
            return Ok(all);
        }
        let mut files = Files::new();
        for item in items(&reference["items"]) {
            let key = text(&item["key"]);
            match all.get(key) {
                Some(bytes) => drop(files.insert(text(&item["path"]).to_owned(), bytes.clone())),
                None if reference["optional"] == true => {}
                None => bail!("{kind} {namespace}/{name} has no {key}"),
            }
        }
        return Ok(files);
    }
    bail!("the node has no volumes of this kind: {source}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_node_are_what_their_type_says() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        let lead = |name: &str, path: &str, kind: &str| {
            of_host(&host, &dir.path().join(name), &json!({"path": path, "type": kind}))
        };
        lead("a", "/opt/cni/bin", "DirectoryOrCreate").unwrap();
        fs::write(dir.path().join("a/plugin"), "x").unwrap();
        assert_eq!(fs::read(host.join("opt/cni/bin/plugin")).unwrap(), b"x");
        lead("b", "/opt/cni/bin/plugin", "File").unwrap();
        lead("c", "/opt/cni/bin/log", "FileOrCreate").unwrap();
        lead("d", "/new", "").unwrap();
        assert!(
            dir.path().join("b").is_file() && dir.path().join("c").is_file() && host.join("new").is_dir()
        );
        for (path, kind) in
            [("/opt/cni/bin", "File"), ("/none", "Directory"), ("/../etc", ""), ("/new", "Other")]
        {
            assert!(lead("e", path, kind).is_err(), "{path} {kind}");
        }
    }
}
