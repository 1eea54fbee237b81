//! Pods by their labels: looking at all pods for each selector would take too
//! long where there are many of both.

use std::collections::HashMap;

use crate::Resource;

/// Indexes of pods by what selectors ask for.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    all: Vec<usize>,
    namespaces: HashMap<Box<str>, Vec<usize>>,
    labels: HashMap<Box<str>, HashMap<Box<str>, Vec<usize>>>,
}

impl Pods {
    pub(crate) fn new<'a>(pods: impl Iterator<Item = (usize, &'a Resource)>) -> Self {
        let mut index = Self::default();
        for (at, pod) in pods {
            index.all.push(at);
            index.namespaces.entry(pod.namespace.clone()).or_default().push(at);
            for (name, value) in pod.labels.iter() {
                let values = match index.labels.get_mut(name) {
                    Some(values) => values,
                    None => index.labels.entry(name.into()).or_default(),
                };
                match values.get_mut(value) {
                    Some(list) => list.push(at),
                    None => drop(values.insert(value.into(), vec![at])),
                }
            }
        }
        index
    }

    /// The shortest list that has all pods that are meant, and maybe others.
    pub(crate) fn candidates<'a>(
        &self,
        namespace: Option<&str>,
        wanted: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> &[usize] {
        let of_namespace = match namespace {
            None => &self.all[..],
            Some(name) => self.namespaces.get(name).map_or(&[][..], |list| list),
        };
        let lists = wanted.map(|(name, value)| {
            self.labels.get(name).and_then(|values| values.get(value)).map_or(&[][..], |list| list)
        });
        lists.fold(of_namespace, |best, list| if list.len() < best.len() { list } else { best })
    }
}
