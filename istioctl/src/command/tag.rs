//! `tag`: names that stand for revisions of the control plane.

mod conflicts;
mod objects;

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context as _, anyhow, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use names::label::REVISION;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Global;
use crate::args::tag::{Action, Set, Tag as Args};
use crate::failure::Result;
use crate::kubernetes::{Kubernetes, confirm, is_label};
use crate::render::table::{NARROW, Table};
use crate::render::yaml;
use objects::{Canonical, Plan, VALIDATOR};

/// Label of what belongs to a tag.
const TAG: &str = "istio.io/tag";
/// The tag, and the revision, of what names none.
const DEFAULT: &str = "default";
/// Labels that no namespace and no pod has.
const NEVER: (&str, &str) = ("istio.io/deactivated", "never-match");

/// Sets, prints, lists or removes tags.
///
/// # Errors
/// When there is no such revision or tag, or the cluster refuses what is written.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    match &args.command {
        Action::Set(args) => set(args, false, global, out).await,
        Action::Generate(args) => set(args, true, global, out).await,
        Action::List(args) => list(&args.output, global, out).await,
        Action::Remove(args) => {
            let tag = valid(one(&args.tag, "removal", "removal")?)?;
            remove(tag, args.skip_confirmation, global, out).await
        }
    }
}

/// The one tag of a command line.
fn one<'a>(tags: &'a [String], verb: &str, several: &str) -> anyhow::Result<&'a str> {
    match tags {
        [tag] => Ok(tag),
        [] => bail!("must provide a tag for {verb}"),
        _ => bail!("must provide a single tag for {several}"),
    }
}

/// The tag, if it may be part of a selector and of names.
fn valid(tag: &str) -> anyhow::Result<&str> {
    ensure!(is_label(tag), "tag {tag:?}: write lower-case letters, digits and dashes");
    Ok(tag)
}

async fn set(args: &Set, is_printed: bool, global: &Global, out: &mut impl Write) -> Result {
    let tag = valid(one(&args.tag, "modification", "creation")?)?;
    if args.revision.is_empty() {
        return Err(anyhow!("required flag(s) \"revision\" not set").into());
    }
    let cluster = Kubernetes::open(global).await?;
    let namespace = global.istio_namespace.as_str();
    let objects = generate(args, tag, is_printed, &cluster, namespace).await?;
    if !args.skip_confirmation
        && let Some(conflicts) = conflicts::of(&cluster, &objects, namespace).await?
    {
        eprintln!("creating tag would conflict, pass --skip-confirmation to proceed:\n{conflicts}");
        if !is_printed && !confirm("Apply anyways? [y/N]", out)? {
            return Ok(());
        }
    }
    if is_printed {
        let texts = objects.iter().map(text).collect::<anyhow::Result<Vec<_>>>()?;
        return Ok(out.write_all(texts.join("---\n").as_bytes())?);
    }
    if tag == DEFAULT {
        deactivate(&cluster).await?;
    }
    for object in &objects {
        cluster.apply(object).await.context("failed to apply tag")?;
    }
    Ok(writeln!(
        out,
        "Revision tag {tag:?} created, referencing control plane revision {:?}. To enable injection using this\n\
         revision tag, use 'kubectl label namespace <NAMESPACE> istio.io/rev={tag}'",
        args.revision
    )?)
}

async fn generate(
    args: &Set,
    tag: &str,
    is_printed: bool,
    cluster: &Kubernetes,
    namespace: &str,
) -> anyhow::Result<Vec<Value>> {
    let revision = args.revision.as_str();
    let of_revision = |revision: &str| format!("{REVISION}={revision},!{TAG}");
    let services = |revision: &str| format!("{},app=istiod", of_revision(revision));
    if !is_printed && !args.overwrite && tag != DEFAULT {
        let webhooks = cluster.list::<MutatingWebhookConfiguration>(&of_revision(tag)).await?;
        let planes = cluster.list_in::<Service>(Some(namespace), &services(tag)).await?;
        if !webhooks.is_empty() || !planes.is_empty() {
            bail!("cannot create revision tag {tag:?}: found existing control plane revision with same name");
        }
    }
    let planes = cluster.list_in::<Service>(Some(namespace), &services(revision)).await?;
    let injectors = cluster.list::<MutatingWebhookConfiguration>(&of_revision(revision)).await?;
    let injector = match (&injectors[..], planes.len()) {
        ([injector], 0 | 1) => injector,
        ([], 0) => bail!(
            "cannot modify tag: cannot find MutatingWebhookConfiguration or Service with revision {revision:?}; \
             kubectl get mutatingwebhookconfigurations -L {REVISION} shows which there are"
        ),
        ([], _) => {
            bail!("cannot modify tag: cannot find MutatingWebhookConfiguration with revision {revision:?}")
        }
        _ => bail!(
            "cannot modify tag: found multiple canonical webhooks or services with revision {revision:?}"
        ),
    };
    if !args.overwrite {
        let (webhooks, planes) = of_tag(cluster, tag, namespace).await?;
        if !webhooks.is_empty() || !planes.is_empty() {
            bail!("revision tag {tag:?} already exists, and --overwrite is false");
        }
    }
    let validator = cluster.find::<ValidatingWebhookConfiguration>(VALIDATOR).await?;
    let plan =
        Plan { tag, revision, name: &args.webhook_name, is_auto: args.auto_inject_namespaces, namespace };
    plan.objects(&Canonical { injector, service: planes.first(), validator: validator.as_ref() })
}

/// Configurations and Services of a tag.
async fn of_tag(
    cluster: &Kubernetes,
    tag: &str,
    namespace: &str,
) -> anyhow::Result<(Vec<MutatingWebhookConfiguration>, Vec<Service>)> {
    let labels = format!("{TAG}={tag}");
    Ok((cluster.list(&labels).await?, cluster.list_in(Some(namespace), &labels).await?))
}

fn text(object: &Value) -> anyhow::Result<String> {
    let text = serde_json::to_string(object)?;
    Ok(yaml::render(&serde_json::from_str(&text)?))
}

/// The injector of the revision `default` leaves its pods to the tag's.
async fn deactivate(cluster: &Kubernetes) -> anyhow::Result<()> {
    let found = cluster.list::<MutatingWebhookConfiguration>(&format!("{REVISION}={DEFAULT},!{TAG}")).await?;
    let injector = match &found[..] {
        [] => return Ok(()),
        [injector] => injector,
        _ => bail!(
            "failed deactivating existing default revision: expected a single webhook for default revision"
        ),
    };
    let never = json!({"matchLabels": {NEVER.0: NEVER.1}});
    let webhooks = injector.webhooks.iter().flatten().map(|webhook| {
        let mut webhook = serde_json::to_value(webhook)?;
        webhook["namespaceSelector"] = never.clone();
        webhook["objectSelector"] = never.clone();
        anyhow::Ok(webhook)
    });
    // The version makes sure that nothing is undone that somebody else writes now.
    let patch = json!({
        "metadata": {"resourceVersion": injector.metadata.resource_version},
        "webhooks": webhooks.collect::<anyhow::Result<Vec<_>>>()?,
    });
    let api = Api::<MutatingWebhookConfiguration>::all(cluster.client.clone());
    let patched = api.patch(&injector.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.context("failed deactivating existing default revision")?;
    Ok(())
}

/// A tag, as it is printed.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Listed {
    tag: String,
    revision: String,
    namespaces: Vec<String>,
}

async fn list(output: &str, global: &Global, out: &mut impl Write) -> Result {
    if !["table", "json", "yaml"].contains(&output) {
        return Err(anyhow!("unknown format: {output}; it is one of table, json and yaml").into());
    }
    let cluster = Kubernetes::open(global).await?;
    let injectors = cluster.list::<MutatingWebhookConfiguration>(REVISION).await?;
    let services = cluster.list_in::<Service>(Some(&global.istio_namespace), REVISION).await?;
    let namespaces = cluster.list::<Namespace>(REVISION).await?;
    let named = injectors.iter().map(pair).chain(services.iter().map(pair)).collect();
    let namespaces = namespaces.iter().map(|one| (label(one, REVISION), one.name_any())).collect();
    let text = shown(&rows(&named, &namespaces), output)?;
    Ok(out.write_all(text.as_bytes())?)
}

fn label(object: &impl Resource, name: &str) -> String {
    object.meta().labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

/// Revision and tag of an object.
fn pair(object: &impl Resource) -> (String, String) {
    (label(object, REVISION), label(object, TAG))
}

/// The tags by revision, and revisions that have none. Namespaces come with what they name.
fn rows(named: &BTreeSet<(String, String)>, namespaces: &BTreeSet<(String, String)>) -> Vec<Listed> {
    let tagged: BTreeSet<&String> =
        named.iter().filter(|(_, tag)| !tag.is_empty()).map(|(revision, _)| revision).collect();
    let told = named.iter().filter(|(revision, tag)| !tag.is_empty() || !tagged.contains(revision));
    told.map(|(revision, tag)| Listed {
        tag: tag.clone(),
        revision: revision.clone(),
        namespaces: namespaces
            .iter()
            .filter(|(named, _)| named == tag)
            .map(|(_, name)| name.clone())
            .collect(),
    })
    .collect()
}

fn shown(rows: &[Listed], output: &str) -> anyhow::Result<String> {
    if rows.is_empty() {
        return Ok("No Istio revision tags found.\n".into());
    }
    if output == "table" {
        let mut table = Table::new(NARROW);
        table.row(["TAG", "REVISION", "NAMESPACES"]);
        for Listed { tag, revision, namespaces } in rows {
            table.row([tag.clone(), revision.clone(), namespaces.join(",")]);
        }
        return Ok(table.render());
    }
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    rows.serialize(&mut serde_json::Serializer::with_formatter(&mut text, format))?;
    let mut text = String::from_utf8(text)?;
    if output == "yaml" {
        text = yaml::render(&serde_json::from_str(&text)?);
    }
    Ok(text + "\n")
}

async fn remove(tag: &str, is_sure: bool, global: &Global, out: &mut impl Write) -> Result {
    let cluster = Kubernetes::open(global).await?;
    let namespace = global.istio_namespace.as_str();
    let (injectors, services) = of_tag(&cluster, tag, namespace).await?;
    if injectors.is_empty() && services.is_empty() {
        return Err(anyhow!(
            "cannot remove tag {tag:?}: cannot find MutatingWebhookConfiguration or Service for tag; \
             istioctl tag list names the tags"
        )
        .into());
    }
    let named = cluster.list::<Namespace>(&format!("{REVISION}={tag}")).await?;
    if !named.is_empty() && !is_sure {
        let names: Vec<String> = named.iter().map(kube::ResourceExt::name_any).collect();
        let question = format!(
            "Caution, found {} namespace(s) still injected by tag {tag:?}: {}\nProceed with operation? [y/N]",
            names.len(),
            names.join(" ")
        );
        if !confirm(&question, out)? {
            return Ok(writeln!(out, "Aborting operation.")?);
        }
    }
    let params = DeleteParams::default();
    let all = Api::<MutatingWebhookConfiguration>::all(cluster.client.clone());
    for one in &injectors {
        all.delete(&one.name_any(), &params).await.with_context(|| format!("delete {}", one.name_any()))?;
    }
    let all = Api::<ValidatingWebhookConfiguration>::all(cluster.client.clone());
    for one in cluster.list::<ValidatingWebhookConfiguration>(&format!("{TAG}={tag}")).await? {
        all.delete(&one.name_any(), &params).await.with_context(|| format!("delete {}", one.name_any()))?;
    }
    let all = Api::<Service>::namespaced(cluster.client.clone(), namespace);
    for one in &services {
        all.delete(&one.name_any(), &params).await.with_context(|| format!("delete {}", one.name_any()))?;
    }
    Ok(writeln!(out, "Revision tag {tag} removed")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(all: &[(&str, &str)]) -> BTreeSet<(String, String)> {
        all.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
    }

    #[test]
    fn revisions_are_listed_by_their_tags() {
        let named = pairs(&[("canary", "prod"), ("canary", ""), ("default", ""), ("canary", "next")]);
        let rows = rows(&named, &pairs(&[("prod", "a"), ("prod", "b"), ("other", "c")]));
        assert_eq!(
            shown(&rows, "table").unwrap(),
            "TAG  REVISION NAMESPACES\nnext canary   \nprod canary   a,b\n     default  \n"
        );
        assert!(shown(&rows, "json").unwrap().starts_with(
            "[\n\t{\n\t\t\"tag\": \"next\",\n\t\t\"revision\": \"canary\",\n\t\t\"namespaces\": []\n"
        ));
        assert!(
            shown(&rows, "yaml").unwrap().starts_with("- namespaces: []\n  revision: canary\n  tag: next\n")
        );
        assert_eq!(shown(&[], "json").unwrap(), "No Istio revision tags found.\n");
    }

    #[test]
    fn a_tag_selects_nothing_else() {
        assert_eq!(valid("prod").unwrap(), "prod");
        for wrong in ["prod,a!=b", "prod,", "", "*"] {
            assert!(valid(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_is_about_one_tag() {
        let several = ["a".to_owned(), "b".to_owned()];
        assert_eq!(one(&several[..1], "removal", "removal").unwrap(), "a");
        assert!(
            one(&[], "removal", "removal")
                .unwrap_err()
                .to_string()
                .contains("must provide a tag for removal")
        );
        assert!(
            one(&several, "x", "creation").unwrap_err().to_string().contains("a single tag for creation")
        );
    }
}
