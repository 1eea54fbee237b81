//! Injectors that are for the same pods, or that nobody serves.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use crate::kube::{LabelSelector, Webhook};
use crate::resource::full_name;
use crate::{Body, Code, Kind, Resource, World};

/// Labels of a namespace or a pod, as injectors ask for them.
type Labels<'a> = Vec<(&'a str, &'a str)>;

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let mut webhooks: BTreeMap<String, (&'a Resource, &'a Webhook)> = BTreeMap::new();
    let mut revisions: BTreeSet<&str> = BTreeSet::new();
    for one in world.of(Kind::MutatingWebhookConfiguration) {
        let Body::Webhooks(all) = &one.body else { continue };
        let found = named_revisions(one, &all.webhooks);
        if found.is_empty() && !all.webhooks.iter().any(|webhook| webhook.name.ends_with("istio.io")) {
            continue;
        }
        revisions.extend(found);
        webhooks.extend(
            all.webhooks
                .iter()
                .map(|webhook| (format!("{}/{}", one.full_name(), webhook.name), (one, webhook))),
        );
    }
    let namespaces = labels("istio-injection", ["enabled", "disabled"], &revisions);
    let objects = labels("sidecar.istio.io/inject", ["true", "false"], &revisions);
    for namespace in &namespaces {
        for object in &objects {
            let is_for = |(_, webhook): &&(&Resource, &Webhook)| {
                selects(webhook.namespace_selector.as_ref(), namespace)
                    && selects(webhook.object_selector.as_ref(), object)
            };
            let hits: Vec<&String> =
                webhooks.iter().filter(|(_, one)| is_for(one)).map(|(name, _)| name).collect();
            for name in hits.iter().filter(|_| hits.len() > 1) {
                let others: Vec<&&String> = hits.iter().filter(|other| other != &name).collect();
                let what = format!(
                    "Webhook overlaps with others: {}. This may cause injection to occur twice.",
                    crate::message::list(&others)
                );
                if let Some((one, _)) = webhooks.get(*name) {
                    report.add(Code::InvalidWebhook, one, &[&what]);
                }
            }
        }
    }
    for (one, webhook) in webhooks.values() {
        let Some(service) = &webhook.client_config.service else { continue };
        if world.find(Kind::Service, &service.namespace, &service.name).is_none() {
            let name = full_name(&service.namespace, &service.name);
            let what = format!("Injector refers to a control plane service that does not exist: {name}.");
            report.add(Code::InvalidWebhook, one, &[&what]);
        }
    }
}

fn named_revisions<'a>(one: &'a Resource, webhooks: &'a [Webhook]) -> BTreeSet<&'a str> {
    let selectors =
        webhooks.iter().flat_map(|webhook| [&webhook.namespace_selector, &webhook.object_selector]);
    let named = selectors.flatten().flat_map(|selector| selector.values_of(names::label::REVISION));
    one.labels.get(names::label::REVISION).into_iter().chain(named).collect()
}

/// All ways to label a namespace or a pod that matter.
fn labels<'a>(name: &'a str, values: [&'a str; 2], revisions: &BTreeSet<&'a str>) -> Vec<Labels<'a>> {
    let own = || [vec![], vec![(name, values[0])], vec![(name, values[1])]];
    let with = |revision: &&'a str| {
        own().map(|labels| labels.into_iter().chain([(names::label::REVISION, *revision)]).collect())
    };
    own().into_iter().chain(revisions.iter().flat_map(with)).collect()
}

fn selects(selector: Option<&LabelSelector>, labels: &Labels<'_>) -> bool {
    let get = |name: &str| labels.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    selector.is_none_or(|selector| selector.selects(get))
}
