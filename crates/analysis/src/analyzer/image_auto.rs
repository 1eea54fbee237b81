//! Pods that wait for an injector that is not for them.

use super::Report;
use super::mesh::PROXY;
use crate::kube::{PodSpec, Webhook};
use crate::{Body, Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let configurations = world.of(Kind::MutatingWebhookConfiguration);
    let all = configurations.filter_map(|one| match &one.body {
        Body::Webhooks(all) => Some(&all.webhooks),
        _ => None,
    });
    let injectors: Vec<&Webhook> = all.flatten().filter(|one| one.name.ends_with("istio.io")).collect();
    for (one, spec) in world.pods() {
        // The injector would have replaced it.
        if waits(spec) {
            report.add(Code::ImageAutoWithoutInjectionError, one, &["Pod", &one.name]);
        }
    }
    for (one, deployment) in world.deployments() {
        let template = &deployment.template;
        if !waits(&template.spec) {
            continue;
        }
        let namespace = if one.namespace.is_empty() { "default" } else { &one.namespace };
        let around = world.namespace_labels(namespace);
        let is_injected = injectors.iter().any(|webhook| {
            let here = webhook.namespace_selector.as_ref();
            let object = webhook.object_selector.as_ref();
            here.is_none_or(|wanted| wanted.selects(|name| around?.get(name)))
                && object.is_none_or(|wanted| wanted.selects(|name| template.metadata.labels.get(name)))
        });
        if !is_injected {
            report.add(Code::ImageAutoWithoutInjectionWarning, one, &["Deployment", &one.name]);
        }
    }
}

fn waits(spec: &PodSpec) -> bool {
    spec.containers.iter().any(|one| *one.name == *PROXY && *one.image == *"auto")
}
