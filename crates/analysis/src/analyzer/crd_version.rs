//! Definitions of the Gateway API that are too old for their objects to count.

use super::Report;
use crate::{Code, Kind, World};

/// Annotation with the version of the Gateway API that a definition is of.
const VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// The first versions that count.
const MINIMUM: &[(&str, [u64; 3])] = &[
    ("grpcroutes.gateway.networking.k8s.io", [1, 1, 0]),
    ("backendtlspolicies.gateway.networking.k8s.io", [1, 4, 0]),
    ("tlsroutes.gateway.networking.k8s.io", [1, 5, 0]),
    ("tcproutes.gateway.networking.k8s.io", [1, 6, 0]),
];

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for one in world.of(Kind::CustomResourceDefinition) {
        let Some((name, minimum)) = MINIMUM.iter().find(|(name, _)| **name == *one.name) else { continue };
        let Some((numbers, text)) = one.annotations.get(VERSION).and_then(version) else { continue };
        if numbers < *minimum {
            let minimum = minimum.map(|number| number.to_string()).join(".");
            report.add(Code::GatewayAPICRDVersionBelowMinimum, one, &[name, &text, &minimum]);
        }
    }
}

/// The numbers of a version, and the version with all three of them.
fn version(text: &str) -> Option<([u64; 3], String)> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (plain, rest) = text.split_at(end);
    let mut numbers = [0; 3];
    let parts: Vec<&str> = plain.split('.').collect();
    if parts.len() > numbers.len() {
        return None;
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().ok()?;
    }
    Some((numbers, format!("{}{rest}", numbers.map(|number| number.to_string()).join("."))))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_have_three_numbers() {
        assert_eq!(version("v1.4"), Some(([1, 4, 0], "1.4.0".into())));
        assert_eq!(version("1.5.0-rc.1"), Some(([1, 5, 0], "1.5.0-rc.1".into())));
        assert_eq!(version("main"), None);
        assert_eq!(version("1.2.3.4"), None);
    }
}
