//! Generates the Rust types of the wire: Istio's API from our own `.proto`
//! files under `istio/`, Envoy's from the files of the pinned package
//! (`envoy/Cargo.toml`) that `envoy.list` names.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[allow(clippy::disallowed_methods)] // A build script gets its input by the environment.
fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for input in ["build.rs", "envoy.list", "envoy/Cargo.toml", "envoy/Cargo.lock", "istio"] {
        println!("cargo::rerun-if-changed={input}");
    }
    istio(&root, &out)?;
    envoy(&root, &out)
}

/// Istio's API, with the JSON form that people write in YAML.
fn istio(root: &Path, out: &Path) -> Result<()> {
    let base = root.join("istio");
    let mut files = Vec::new();
    find_protos(&base, &mut files)?;
    files.sort();
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(base));
    resolver.add(GoogleFileResolver::new());
    let set = compile(resolver, files.iter().map(PathBuf::as_path))?;
    let bytes = set.encode_to_vec();
    fs::write(out.join("istio.bin"), &bytes)?;

    // Durations are read the way Go writes them ("1h30m"), so they have a type of ours.
    let wkt = [
        (".google.protobuf.Duration", "crate::wkt::Duration"),
        (".google.protobuf.Any", "crate::Any"),
        (".google.protobuf", "::pbjson_types"),
    ];
    let dir = out.join("istio");
    fs::create_dir_all(&dir)?;
    let mut config = prost_build::Config::new();
    config.out_dir(&dir).include_file("tree.rs").compile_well_known_types().btree_map(["."]);
    for (proto, rust) in wkt {
        config.extern_path(proto, rust);
    }
    config.service_generator(services());
    config.compile_fds(set.clone())?;

    let mut json = pbjson_build::Builder::new();
    json.register_descriptors(&bytes)?.out_dir(&dir).ignore_unknown_fields().btree_map(["."]);
    for (proto, rust) in wkt {
        json.extern_path(proto, rust);
    }
    let packages: Vec<String> = set
        .file
        .iter()
        .map(|file| file.package().to_owned())
        .filter(|name| name.starts_with("istio."))
        .collect();
    json.build(&packages.iter().map(|name| format!(".{name}")).collect::<Vec<_>>())?;
    append_serde(&dir, &packages)
}

/// pbjson writes `PACKAGE.serde.rs` beside prost's `PACKAGE.rs`; both belong to one module.
fn append_serde(dir: &Path, packages: &[String]) -> Result<()> {
    let mut done = std::collections::BTreeSet::new();
    for package in packages.iter().filter(|name| done.insert((*name).clone())) {
        // A package part that is a Rust keyword becomes a raw identifier.
        let package = package.replace(".type.", ".r#type.");
        let serde = dir.join(format!("{package}.serde.rs"));
        let types = dir.join(format!("{package}.rs"));
        if serde.exists() && types.exists() {
            let text = fs::read_to_string(&types)? + &fs::read_to_string(serde)?;
            fs::write(types, text)?;
        }
    }
    Ok(())
}

/// Envoy's API.
fn envoy(root: &Path, out: &Path) -> Result<()> {
    let list = fs::read_to_string(root.join("envoy.list"))?;
    let lines = || list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let wanted: Vec<&str> = lines().filter_map(|line| line.strip_prefix("service ")).collect();
    let files: Vec<&Path> = lines().filter(|line| !line.starts_with("service ")).map(Path::new).collect();

    let mut set = compile(envoy_resolver(root)?, files.into_iter())?;
    for file in &mut set.file {
        let package = file.package().to_owned();
        file.service.retain(|service| wanted.contains(&format!("{package}.{}", service.name()).as_str()));
    }
    fs::write(out.join("envoy.bin"), everything(root)?.encode_to_vec())?;
    // Istio writes fields that Envoy calls deprecated, and proxies of any age
    // must understand us: the mark would only turn into warnings.
    set.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(undeprecate);

    let dir = out.join("envoy");
    fs::create_dir_all(&dir)?;
    let mut config = prost_build::Config::new();
    config
        .out_dir(&dir)
        .include_file("tree.rs")
        .bytes(["."])
        .btree_map(["."])
        .enable_type_names()
        .extern_path(".google.protobuf.Any", "crate::Any")
        .service_generator(services());
    // Envoy's prose is not Rust documentation: it would be compiled as doc tests.
    config.disable_comments(["."]);
    config.compile_fds(set)?;
    Ok(())
}

/// Descriptors of the whole API: an EnvoyFilter may name any message of it.
fn everything(root: &Path) -> Result<FileDescriptorSet> {
    let base = envoy_source(root)?.join("data-plane-api");
    let mut files = Vec::new();
    find_protos(&base.join("envoy"), &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::with_file_resolver(envoy_resolver(root)?);
    compiler.include_imports(true).include_source_info(false);
    for name in files.iter().filter_map(|file| file.strip_prefix(&base).ok()) {
        match compiler.open_file(name) {
            // The package has not all files that Envoy's import; one (the CEL sampler) needs such a file.
            Err(error) if error.is_file_not_found() => {}
            other => other.map(|_| ()).map_err(|error| format!("{}: {error}", name.display()))?,
        }
    }
    let mut set = compiler.file_descriptor_set();
    for file in &mut set.file {
        file.service.clear();
    }
    Ok(set)
}

fn envoy_resolver(root: &Path) -> Result<ChainFileResolver> {
    let mut resolver = ChainFileResolver::new();
    for include in fs::read_dir(envoy_source(root)?)? {
        resolver.add(Absolute(include?.path()));
    }
    resolver.add(GoogleFileResolver::new());
    Ok(resolver)
}

fn undeprecate(message: &mut prost_types::DescriptorProto) {
    for field in &mut message.field {
        if let Some(options) = &mut field.options {
            options.deprecated = None;
        }
    }
    message.nested_type.iter_mut().for_each(undeprecate);
}

fn services() -> Box<dyn prost_build::ServiceGenerator> {
    tonic_prost_build::configure().build_transport(false).service_generator()
}

fn compile<'a>(
    resolver: impl FileResolver + 'static,
    files: impl Iterator<Item = &'a Path>,
) -> Result<FileDescriptorSet> {
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(false);
    for file in files {
        compiler.open_file(file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(compiler.file_descriptor_set())
}

fn find_protos(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// Where the pinned package's `.proto` trees lie on this machine.
fn envoy_source(root: &Path) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let answer = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(root.join("envoy/Cargo.toml"))
        .output()?;
    if !answer.status.success() {
        return Err(format!(
            "cargo metadata on proto/envoy/Cargo.toml: {}",
            String::from_utf8_lossy(&answer.stderr)
        )
        .into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == "envoy-types")
        .find_map(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata names no package envoy-types")?;
    let folder = Path::new(manifest).parent().ok_or("a manifest without a folder")?;
    Ok(folder.join("proto"))
}

/// Reads `.proto` files from a folder and makes the half-relative names in
/// them absolute, which the compiler does not resolve by itself.
struct Absolute(PathBuf);

impl FileResolver for Absolute {
    fn open_file(&self, name: &str) -> std::result::Result<File, protox::Error> {
        let path = self.0.join(name);
        if !path.is_file() {
            return Err(protox::Error::file_not_found(name));
        }
        let text = fs::read_to_string(&path).map_err(protox::Error::new)?;
        File::from_source(name, &absolute(&text, name, &self.0))
    }
}

/// protoc resolves `config.core.v3.X` by trying every enclosing package,
/// inside out; a package is a folder here, so the folders tell which one fits.
fn absolute(text: &str, name: &str, root: &Path) -> String {
    let enclosing: Vec<&Path> = Path::new(name).ancestors().skip(1).collect();
    let line = |line: &str| -> Option<String> {
        let trimmed = line.trim_start();
        let field = ["repeated ", "optional "]
            .iter()
            .fold(trimmed, |field, word| field.strip_prefix(word).unwrap_or(field));
        let field = field.strip_prefix("map<string, ").unwrap_or(field);
        let reference = field.split([' ', '<', '>', '(']).next()?;
        let (package, _) = reference.split_once(".v3.")?;
        if !package.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.') {
            return None;
        }
        let folder = format!("{}/v3", package.replace('.', "/"));
        let prefix = enclosing.iter().find(|prefix| root.join(prefix).join(&folder).is_dir())?;
        let prefix = prefix.to_str()?.replace('/', ".");
        let dot = if prefix.is_empty() { "" } else { "." };
        Some(line.replacen(reference, &format!(".{prefix}{dot}{reference}"), 1))
    };
    text.lines().map(|text| line(text).unwrap_or_else(|| text.to_owned())).collect::<Vec<_>>().join("\n")
}
