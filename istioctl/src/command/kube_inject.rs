//! `kube-inject`: sidecars for workloads in files, as istiod's webhook does it
//! for pods.

use std::path::Path;
use std::{fs, io};

use anyhow::Context as _;
use inject::Settings;
use inject::native_sidecar::Mode;
use mesh::MeshConfig;
use source::file;

use crate::args::Global;
use crate::args::kube_inject::KubeInject;
use crate::proxies::Mesh;

/// Injects the workloads of a file; the answer is what to print, if it does not
/// go into a file.
///
/// # Errors
/// When a file cannot be read, a setting is not to be had, or a workload not be injected.
pub async fn run(args: &KubeInject, global: &Global) -> anyhow::Result<String> {
    let native: Mode =
        args.native.parse().map_err(|why| anyhow::anyhow!("--nativeSidecars={:?}: {why}", args.native))?;
    let file = args.file.as_deref().context("filename not specified (see --filename or -f)")?;
    let (settings, mesh) = settings(args, global).await?;
    let input = read(file)?;
    let mut warnings = String::new();
    let result = inject::file::inject(&settings, &mesh, native, &input, &mut |warning| warnings += &warning);
    // Standard output is the workloads.
    eprint!("{warnings}");
    let injected = result.with_context(|| file.display().to_string())?;
    match &args.output {
        None => Ok(injected),
        Some(path) => {
            fs::write(path, injected).with_context(|| path.display().to_string())?;
            Ok(String::new())
        }
    }
}

async fn settings(args: &KubeInject, global: &Global) -> anyhow::Result<(Settings, MeshConfig)> {
    let read = |path: &Path| read(path);
    let mut config = args.config.as_deref().map(read).transpose()?;
    let mut mesh = args.mesh.as_deref().map(read).transpose()?;
    let values = match args.values.as_deref() {
        Some(path) => read(path)?,
        None => {
            let live = Live::read(args, global).await.context("--valuesFile FILE asks no cluster")?;
            config = config.or(live.config);
            mesh = mesh.or(live.mesh);
            live.values
        }
    };
    let mesh = match (mesh, &args.mesh) {
        (None, _) => MeshConfig::default(),
        (Some(text), Some(path)) => {
            MeshConfig::from_yaml(&text).with_context(|| path.display().to_string())?
        }
        (Some(text), None) => {
            MeshConfig::from_yaml(&text).context("the mesh configuration of the cluster")?
        }
    };
    let settings = Settings::read(&config.unwrap_or_default(), &values, &args.revision)?;
    for warning in &settings.warnings {
        eprintln!("Warning: {warning}");
    }
    Ok((settings, mesh))
}

/// Settings of the cluster.
struct Live {
    config: Option<String>,
    values: String,
    mesh: Option<String>,
}

impl Live {
    async fn read(args: &KubeInject, global: &Global) -> anyhow::Result<Self> {
        let cluster = Mesh::open(global).await?;
        let of_revision = |name: &str| match args.revision.as_str() {
            "" | "default" => name.to_owned(),
            revision => format!("{name}-{revision}"),
        };
        let (injector, mesh) = (of_revision(&args.config_map), of_revision(&args.mesh_map));
        let values = cluster.config_map(&injector, "values").await?.with_context(|| {
            format!(
                "there is no ConfigMap {injector} with the key values in the namespace {:?}",
                global.istio_namespace
            )
        })?;
        Ok(Self {
            config: cluster.config_map(&injector, "config").await?,
            values,
            mesh: cluster.config_map(&mesh, "mesh").await?,
        })
    }
}

/// What the user named may be a pipe.
fn read(path: &Path) -> anyhow::Result<String> {
    let text = if path == Path::new("-") { file::text(io::stdin()) } else { file::read_named(path) };
    text.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inject(args: &KubeInject) -> anyhow::Result<String> {
        use clap::Parser as _;
        let global = crate::args::Cli::try_parse_from(["istioctl", "version"])?.global;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(run(args, &global))
    }

    #[test]
    fn a_file_becomes_one_with_sidecars() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let args = KubeInject {
            file: Some(write(
                "in",
                "kind: Pod\napiVersion: v1\nmetadata: {name: p}\nspec: {containers: [{name: c}]}",
            )),
            output: Some(dir.path().join("out")),
            config: None,
            values: Some(write("values", "global: {hub: h, tag: t}")),
            mesh: Some(write("mesh", "trustDomain: example.org")),
            config_map: String::new(),
            mesh_map: String::new(),
            revision: String::new(),
            native: "true".into(),
        };
        assert_eq!(inject(&args).unwrap(), "");
        let out = fs::read_to_string(dir.path().join("out")).unwrap();
        assert!(out.contains("image: h/proxyv2:t") && out.contains("example.org"), "{out}");
        assert!(out.contains("restartPolicy: Always") && out.ends_with("---\n"), "{out}");
        let error = inject(&KubeInject { native: "maybe".into(), ..args }).unwrap_err().to_string();
        assert!(error.contains("expected auto, true or false"), "{error}");
    }
}
