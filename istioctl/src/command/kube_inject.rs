//! `kube-inject`: sidecars for workloads in files, as istiod's webhook does it
//! for pods.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use anyhow::Context as _;
use inject::Settings;
use inject::native_sidecar::Mode;
use mesh::MeshConfig;
use source::file;

use crate::args::KubeInject;

/// Injects the workloads of a file; the answer is what to print, if it does not
/// go into a file.
///
/// # Errors
/// When a file cannot be read, or a workload not be injected.
pub fn run(args: &KubeInject) -> anyhow::Result<String> {
    let native: Mode =
        args.native.parse().map_err(|why| anyhow::anyhow!("--nativeSidecars={:?}: {why}", args.native))?;
    let settings = settings(args)?;
    let input = read(&args.file)?;
    let mut warnings = String::new();
    let result = inject::file::inject(&settings, native, &input, &mut |warning| warnings += &warning);
    // Standard output is the workloads.
    eprint!("{warnings}");
    let injected = result.with_context(|| args.file.display().to_string())?;
    match &args.output {
        None => Ok(injected),
        Some(path) => {
            fs::write(path, injected).with_context(|| path.display().to_string())?;
            Ok(String::new())
        }
    }
}

fn settings(args: &KubeInject) -> anyhow::Result<Settings> {
    let read = |path: &Path| read(path);
    let config = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
    let values = read(&args.values)?;
    let mesh = match &args.mesh {
        None => MeshConfig::default(),
        Some(path) => MeshConfig::from_yaml(&read(path)?).with_context(|| path.display().to_string())?,
    };
    let settings = Settings::read(&config, &values, Arc::new(mesh), &args.revision)?;
    for warning in &settings.warnings {
        eprintln!("Warning: {warning}");
    }
    Ok(settings)
}

/// What the user named may be a pipe.
fn read(path: &Path) -> anyhow::Result<String> {
    let text = if path == Path::new("-") { file::text(io::stdin()) } else { file::read_named(path) };
    text.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_one_with_sidecars() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let args = KubeInject {
            file: write(
                "in",
                "kind: Pod\napiVersion: v1\nmetadata: {name: p}\nspec: {containers: [{name: c}]}",
            ),
            output: Some(dir.path().join("out")),
            config: None,
            values: write("values", "global: {hub: h, tag: t}"),
            mesh: Some(write("mesh", "trustDomain: example.org")),
            revision: String::new(),
            native: "true".into(),
        };
        assert_eq!(run(&args).unwrap(), "");
        let out = fs::read_to_string(dir.path().join("out")).unwrap();
        assert!(out.contains("image: h/proxyv2:t") && out.contains("example.org"), "{out}");
        assert!(out.contains("restartPolicy: Always") && out.ends_with("---\n"), "{out}");
        let error = run(&KubeInject { native: "maybe".into(), ..args }).unwrap_err().to_string();
        assert!(error.contains("expected auto, true or false"), "{error}");
    }
}
