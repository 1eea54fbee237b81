//! `analyze`: what is wrong with the objects of a mesh when they are looked at
//! together.

mod files;
pub(super) mod live;
pub(super) mod output;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use analysis::analyzer::{self, Analyzer};
use analysis::{Body, Code, DOCUMENTATION, Resource, Scope, Suppression, World, messages};
use anyhow::{Context as _, anyhow};
use mesh::{MeshConfig, MeshNetworks};
use proto::istio::mesh::v1alpha1::mesh_config::IngressControllerMode;

use crate::args::Global;
use crate::args::analyze::Analyze;
use crate::failure::{Failure, Result, USAGE};

/// Exit code when there is something at or above the failure threshold.
const FOUND: u8 = 79;
/// Exit code when a file could not be read.
const UNREADABLE: u8 = 65;

/// Looks at a cluster or files, and tells what is wrong.
///
/// # Errors
/// When something is wrong, or what is to be looked at cannot be read.
pub async fn run(args: &Analyze, global: &Global, out: &mut impl io::Write) -> Result {
    let format = args.output.to_ascii_lowercase();
    if !["log", "json", "yaml"].contains(&format.as_str()) {
        let error = anyhow!("{format} not a valid option for format. See istioctl analyze --help");
        return Err(Failure { code: USAGE, error: Some(error) });
    }
    if args.list_analyzers {
        return Ok(out.write_all(list(analyzer::all()).as_bytes())?);
    }
    let suppressions = suppressions(&args.suppress)?;
    let read = files::gather(&args.files, format == "log", out)?;
    let namespace = match (&global.namespace, args.all_namespaces) {
        (_, true) => None,
        (Some(name), false) if !name.is_empty() => Some(name.clone()),
        _ => Some("default".to_owned()),
    };
    let target =
        namespace.as_ref().map_or_else(|| "all namespaces".into(), |name| format!("namespace: {name}"));
    let mesh_file = args.mesh_config.as_ref().map(|file| {
        let name = file.display().to_string();
        let text = source::file::read_named(file).with_context(|| name.clone())?;
        MeshConfig::from_yaml(&text).with_context(|| name)
    });
    let mesh_file = mesh_file.transpose()?;
    let scope = if args.use_kube || args.whole_cluster { Scope::Everything } else { Scope::Configuration };
    let mut gathered = Gathered::default();
    if args.use_kube {
        let Some(live) = live::gather(args, global).await? else { return Ok(()) };
        gathered = live;
    }
    // Memory at most is that of the objects and what reads them, not what has read the flags.
    runtime::code::give_back();
    let names: Vec<Arc<str>> = read.iter().map(|file| file.name.clone()).collect();
    let home = namespace.as_deref().unwrap_or_default();
    let problems = files::read(read, home, scope, &mut gathered.resources)?;
    if let Some(problems) = &problems {
        eprint!("Error(s) adding files: {problems}");
    }
    if args.whole_cluster {
        settings(&global.istio_namespace, &mut gathered)?;
    }
    let mesh = mesh_file.or(gathered.mesh).unwrap_or_default();
    if !args.use_kube {
        let gateway = default_gateway(&mesh, &global.istio_namespace)?;
        if gateway.is_empty() && names.is_empty() {
            return Err(anyhow!("at least one file and/or Kubernetes source must be provided").into());
        }
        // What the files say comes last, and counts.
        gathered.resources.splice(0..0, gateway);
    }
    let networks = gathered.networks.unwrap_or_default();
    runtime::code::give_back();
    let world =
        World::new(gathered.resources, mesh, networks, &global.istio_namespace, scope, SystemTime::now());
    runtime::code::give_back();
    let outcome = analyzer::run(&world, &analyzer::named(&args.analyzer));
    if args.verbose {
        verbose(&target, &outcome);
    }
    let all = messages(&outcome.findings, namespace.as_deref(), &suppressions);
    let told: Vec<_> = all.iter().filter(|message| message.level() >= args.output_threshold).collect();
    let is_colored = args.color.unwrap_or_else(|| output::has_colors(args.terminal.as_deref()));
    output::write(&told, &format, is_colored, out)?;
    if told.is_empty() {
        nothing_found(&names, &target, problems.is_some());
    }
    if format != "log" {
        return Ok(());
    }
    if all.iter().any(|message| message.level() >= args.failure_threshold) {
        let error = anyhow!(
            "Analyzers found issues when analyzing {target}.\nSee {DOCUMENTATION} for more information about causes and resolutions."
        );
        return Err(Failure { code: FOUND, error: Some(error) });
    }
    if problems.is_some() && !args.ignore_unknown {
        let error = anyhow!("Some files couldn't be parsed.");
        return Err(Failure { code: UNREADABLE, error: Some(error) });
    }
    Ok(())
}

/// What a cluster has.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) resources: Vec<Resource>,
    pub(super) mesh: Option<MeshConfig>,
    pub(super) networks: Option<MeshNetworks>,
}

/// Settings of the mesh from the ConfigMap among files.
fn settings(istio: &str, gathered: &mut Gathered) -> Result {
    let is_it = |one: &&Resource| *one.namespace == *istio && *one.name == *"istio";
    let Some(Body::ConfigMap(data)) = gathered.resources.iter().rfind(is_it).map(|one| &one.body) else {
        return Ok(());
    };
    let mesh = data.get("mesh").map(MeshConfig::from_yaml).transpose();
    let networks = data.get("meshNetworks").map(MeshNetworks::from_yaml).transpose();
    gathered.mesh = mesh.with_context(|| format!("ConfigMap {istio}/istio: mesh"))?;
    gathered.networks = networks.with_context(|| format!("ConfigMap {istio}/istio: meshNetworks"))?;
    Ok(())
}

fn list(mut all: Vec<&Analyzer>) -> String {
    all.sort_by_key(|one| one.name);
    all.iter().map(|one| format!("* {}:\n    {}\n", one.name, one.description)).collect()
}

fn suppressions(texts: &[String]) -> Result<Vec<Suppression>> {
    let mut all = Vec::new();
    for text in texts {
        let mut parts = text.split('=');
        let (Some(code), Some(resource), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(
                anyhow!("{text} is not a valid suppression value. See istioctl analyze --help").into()
            );
        };
        if !Code::ALL.iter().any(|known| known.as_str() == code) {
            eprintln!(
                "Warning: Supplied message code '{code}' is an unknown message code and will not have any effect."
            );
        }
        all.push(Suppression { code: code.to_owned(), resource: resource.to_owned() });
    }
    Ok(all)
}

/// The ingress gateway that comes with the control plane, for files that only
/// configure it.
fn default_gateway(mesh: &MeshConfig, namespace: &str) -> Result<Vec<Resource>> {
    if mesh.ingress_controller_mode() == IngressControllerMode::Off {
        return Ok(Vec::new());
    }
    let name = if mesh.ingress_service.is_empty() { "istio-ingressgateway" } else { &mesh.ingress_service };
    let labels = serde_json::json!({"istio": "ingressgateway"});
    let port = |name: &str, port: u16| serde_json::json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
    let pod = serde_json::json!({
        "metadata": {"name": format!("{name}-dummypod"), "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "istio-proxy"}]},
    });
    let service = serde_json::json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "ports": [port("http2", 80), port("https", 443), port("tcp", 31400), port("tls", 15443)],
            "selector": labels,
        },
    });
    let read = |kind, object| Resource::read(kind, object, namespace);
    Ok(vec![read(analysis::Kind::Pod, pod)?, read(analysis::Kind::Service, service)?])
}

fn verbose(target: &str, outcome: &analyzer::Outcome<'_>) {
    eprintln!("Analyzed resources in {target}");
    for (title, names) in
        [("Skipped analyzers:", &outcome.skipped), ("Executed analyzers:", &outcome.executed)]
    {
        if !names.is_empty() {
            eprintln!("{title}");
        }
        for name in names {
            eprintln!("\t {name}");
        }
    }
    eprintln!();
}

fn nothing_found(files: &[Arc<str>], target: &str, has_problems: bool) {
    let nothing = "No validation issues found when analyzing";
    match files {
        _ if has_problems => eprintln!("{nothing} {target} (but 1 file could not be parsed)."),
        [] => eprintln!("\u{2714} {nothing} {target}."),
        [file] => eprintln!("\u{2714} {nothing} {file}."),
        files => eprintln!("\u{2714} {nothing}:\n  - {}", files.join("\n  - ")),
    }
}
