//! What analyzers find, and how it is told.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{Code, Level, Resource};

/// Annotation that keeps codes from being told of an object.
const SUPPRESS: &str = "galley.istio.io/analyze-suppress";

/// Something that an analyzer found.
#[derive(Clone, Debug)]
pub struct Finding<'a> {
    /// What it is about.
    pub code: Code,
    /// What it says.
    pub text: String,
    /// The object, when it is about one.
    pub resource: Option<&'a Resource>,
    /// The line of the field in its file, when it is about one.
    pub line: Option<usize>,
}

/// A finding as people and programs see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub code: Code,
    /// What it says.
    pub text: String,
    /// The object, `Gateway default/web`.
    pub origin: Option<String>,
    /// File and line.
    pub reference: Option<String>,
    /// The cluster; told when there are several.
    pub cluster: Option<String>,
}

/// A code that is not told of some objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// The code.
    pub code: String,
    /// The objects, `Pod *.testing` or `Pod testing/*`; `*` stands for any text.
    pub resource: String,
}

impl Suppression {
    /// Whether it is for a finding.
    fn is_for(&self, code: Code, resource: &Resource) -> bool {
        let Resource { kind, namespace, name, .. } = resource;
        let documented = format!("{kind} {name}.{namespace}");
        self.code == code.as_str()
            && (fits(&self.resource, &resource.friendly_name())
                || !namespace.is_empty() && fits(&self.resource, &documented))
    }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.split_once(part) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(last)
}

fn is_suppressed(finding: &Finding<'_>, suppressions: &[Suppression]) -> bool {
    let Some(resource) = finding.resource else { return false };
    let own = resource.annotations.get(SUPPRESS).unwrap_or_default();
    own.split(',').any(|code| code == "*" || code == finding.code.as_str())
        || suppressions.iter().any(|one| one.is_for(finding.code, resource))
}

/// What is to be told of findings: those of a namespace (all without one) that
/// nobody suppresses, sorted, each once. The worst stand first.
#[must_use]
pub fn messages(
    findings: &[Finding<'_>],
    namespace: Option<&str>,
    suppressions: &[Suppression],
) -> Vec<Message> {
    let is_meant = |finding: &&Finding<'_>| {
        let home = finding.resource.map_or("", Resource::home);
        let is_here = namespace.is_none_or(|namespace| home.is_empty() || home == namespace);
        is_here && !is_suppressed(finding, suppressions)
    };
    let mut all = BTreeMap::new();
    for finding in findings.iter().filter(is_meant) {
        let place = finding.resource.map(|one| (one.kind.as_str(), &*one.name, &*one.namespace));
        let cluster = finding.resource.map_or("", |one| &one.cluster);
        let message = Message {
            code: finding.code,
            text: finding.text.clone(),
            origin: finding.resource.map(Resource::friendly_name),
            reference: finding
                .resource
                .and_then(|one| one.source.as_ref())
                .map(|source| source.reference(finding.line)),
            cluster: (!cluster.is_empty()).then(|| cluster.to_owned()),
        };
        let level = Reverse(finding.code.level());
        let key = (cluster, level, finding.code.as_str(), place, message.to_string());
        all.entry(key).or_insert(message);
    }
    all.into_values().collect()
}

impl Message {
    /// How bad it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.code.level()
    }

    /// Object and place as they stand in a line of text; with a blank before.
    #[must_use]
    pub fn place(&self) -> String {
        let Some(origin) = &self.origin else { return String::new() };
        let cluster = self.cluster.as_ref().map(|name| format!(" [cluster-{name}]"));
        let reference = self.reference.as_ref().map(|place| format!(" {place}"));
        format!("{} ({origin}{})", cluster.unwrap_or_default(), reference.unwrap_or_default())
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]{} {}", self.level(), self.code, self.place(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, want) in [
            ("Pod a/b", "Pod a/b", true),
            ("Pod *", "Pod a/b", true),
            ("*/b", "Pod a/b", true),
            ("P*a*b", "Pod a/b", true),
            ("*", "", true),
            ("Pod *c", "Pod a/b", false),
            ("Pod a", "Pod a/b", false),
            ("*ab*ab", "ab", false),
        ] {
            assert_eq!(fits(pattern, text), want, "{pattern} {text}");
        }
    }
}
