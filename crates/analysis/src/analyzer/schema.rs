//! What the rules of a kind say of each object alone.

mod unreachable;

use config::validate::Checker;
use config::{Severity, Spec};

use super::Report;
use crate::{Body, Code, Finding, Kind, World};

pub(super) fn run<'a>(kind: Kind, world: &'a World, report: &mut Report<'a>) {
    for one in world.of(kind) {
        match &one.body {
            Body::Istio(content) => {
                for (code, what) in &content.told {
                    report.findings.push(Finding {
                        code: *code,
                        text: what.clone(),
                        resource: Some(one),
                        line: None,
                    });
                }
            }
            Body::Mesh(mesh) => {
                for what in mesh.warnings() {
                    report.add(Code::SchemaWarning, one, &[&what]);
                }
            }
            Body::Networks(networks) => {
                for what in &networks.warnings {
                    report.add(Code::SchemaWarning, one, &[what]);
                }
            }
            _ => {}
        }
    }
}

/// What the rules of its kind say of an object.
pub(crate) fn check(spec: &Spec) -> Vec<(Code, String)> {
    let mut told = Vec::new();
    let mut checker = Checker::default();
    spec.check(&mut checker);
    let is_route = matches!(spec, Spec::VirtualService(_));
    // Codes of their own say so of rules of a VirtualService.
    let is_told = |message: &str| is_route && message.starts_with("is never reached");
    for finding in checker.findings.into_iter().filter(|finding| !is_told(&finding.message)) {
        // Objects with a status say the whole path.
        let field = match (spec, finding.field.as_str()) {
            (Spec::ServiceEntry(_) | Spec::WorkloadEntry(_), field) => field.to_owned(),
            (_, "") => "spec".to_owned(),
            (_, field) => format!("spec.{field}"),
        };
        let code = match finding.severity {
            Severity::Error => Code::SchemaValidationError,
            Severity::Warning => Code::SchemaWarning,
        };
        told.push((code, code.fill(&[&format!("{field}: {}", finding.message)])));
    }
    if let Spec::VirtualService(service) = spec {
        unreachable::check(service, &mut told);
    }
    told
}
