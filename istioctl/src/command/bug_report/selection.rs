//! Which pods are in the report.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use super::pattern::{fits, fits_one};

/// Parts of a selection, at most.
const PARTS: usize = 6;

/// `NAMESPACES/DEPLOYMENTS/PODS/LABELS/ANNOTATIONS/CONTAINERS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) namespaces: Vec<String>,
    deployments: Vec<String>,
    pods: Vec<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    containers: Vec<String>,
}

/// A container that may be selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject<'a> {
    pub(super) namespace: &'a str,
    /// What owns its pod; empty without an owner.
    pub(super) deployment: &'a str,
    pub(super) pod: &'a str,
    pub(super) labels: Option<&'a BTreeMap<String, String>>,
    pub(super) annotations: Option<&'a BTreeMap<String, String>>,
    pub(super) container: &'a str,
}

impl Selection {
    /// Reads it.
    ///
    /// # Errors
    /// When it has too many parts, or a label is no label.
    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > PARTS {
            bail!("selection {text:?}: write NAMESPACES/DEPLOYMENTS/PODS/LABELS/ANNOTATIONS/CONTAINERS");
        }
        let part = |index: usize| parts.get(index).map_or("", |part| part.trim());
        let list = |index: usize| -> Vec<String> {
            let all = part(index).split(',').map(str::trim).filter(|one| !one.is_empty() && *one != "*");
            all.map(ToOwned::to_owned).collect()
        };
        let map = |index: usize| -> anyhow::Result<BTreeMap<String, String>> {
            let all = part(index).split(',').map(str::trim).filter(|one| !one.is_empty() && *one != "*");
            all.map(|one| {
                let (name, value) = one.split_once('=').with_context(|| {
                    format!("bad label/annotation selection {one}, must have format key=value")
                })?;
                if name.contains('*') {
                    bail!("bad label/annotation selection {one}, key cannot have '*' wildcards");
                }
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect()
        };
        Ok(Self {
            namespaces: list(0),
            deployments: list(1),
            pods: list(2),
            labels: map(3)?,
            annotations: map(4)?,
            containers: list(5),
        })
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it selects a container.
    pub(super) fn selects(&self, subject: &Subject<'_>) -> bool {
        let has = |wanted: &BTreeMap<String, String>, there: Option<&BTreeMap<String, String>>| {
            wanted.iter().all(|(name, pattern)| {
                there.and_then(|there| there.get(name)).is_some_and(|value| fits(pattern, value))
            })
        };
        fits_one(&self.namespaces, subject.namespace)
            && fits_one(&self.deployments, subject.deployment)
            && fits_one(&self.pods, subject.pod)
            && fits_one(&self.containers, subject.container)
            && has(&self.labels, subject.labels)
            && has(&self.annotations, subject.annotations)
    }
}

/// What is in and what is not.
#[derive(Clone, Debug, Default)]
pub(super) struct Selections {
    pub(super) include: Vec<Selection>,
    pub(super) exclude: Vec<Selection>,
}

impl Selections {
    /// Whether a container is in the report.
    pub(super) fn has(&self, subject: &Subject<'_>) -> bool {
        let excluded = self.exclude.iter().any(|one| !one.is_empty() && one.selects(subject));
        let included = self.include.is_empty() || self.include.iter().any(|one| one.selects(subject));
        !excluded && included
    }

    /// The only namespaces that anything is of; none where all may be.
    pub(super) fn namespaces(&self) -> Vec<&str> {
        let all: Vec<&str> =
            self.include.iter().flat_map(|one| &one.namespaces).map(String::as_str).collect();
        let is_open = |one: &Selection| {
            one.namespaces.is_empty() || one.namespaces.iter().any(|namespace| namespace.contains('*'))
        };
        if self.include.iter().any(is_open) { Vec::new() } else { all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_part_must_fit() {
        let (labels, annotations) = (map(&[("app", "web"), ("v", "1")]), map(&[("a", "b")]));
        let subject = Subject {
            namespace: "shop",
            deployment: "web",
            pod: "web-0",
            labels: Some(&labels),
            annotations: Some(&annotations),
            container: "istio-proxy",
        };
        for (text, wanted) in [
            ("", true),
            ("shop", true),
            ("s*,other", true),
            ("other", false),
            ("shop/web/web-*/app=w*,v=1/a=b/istio-*", true),
            ("//web-1", false),
            ("/*/web-0", true),
            ("///app=w*,v=2", false),
            ("///none=*", false),
            ("////a=c", false),
            ("/////app", false),
        ] {
            assert_eq!(Selection::read(text).unwrap().selects(&subject), wanted, "{text}");
        }
        for (wrong, what) in
            [("a/b/c/d", "key=value"), ("///*=x", "wildcards"), ("a/b/c///f/g", "CONTAINERS")]
        {
            assert!(Selection::read(wrong).unwrap_err().to_string().contains(what), "{wrong}");
        }
    }

    #[test]
    fn what_is_excluded_is_out_whatever_includes_it() {
        let read = |all: &[&str]| all.iter().map(|one| Selection::read(one).unwrap()).collect();
        let all = Selections { include: read(&["shop,stock//web*"]), exclude: read(&["//web-1", ""]) };
        let has = |namespace, pod| all.has(&Subject { namespace, pod, ..Subject::default() });
        assert!(
            has("shop", "web-0") && !has("shop", "web-1") && !has("shop", "db") && !has("other", "web-0")
        );
        assert_eq!(all.namespaces(), ["shop", "stock"]);
        assert!(Selections { include: read(&["shop", "s*"]), exclude: Vec::new() }.namespaces().is_empty());
        assert!(
            Selections::default().has(&Subject::default()) && Selections::default().namespaces().is_empty()
        );
    }
}
