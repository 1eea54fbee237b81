//! Which ConfigMaps there are, and which must be written.

use std::collections::BTreeMap;

use source::kubernetes::{Event, Selectors};

use super::Sight;

/// Namespaces of the cluster itself, in which no workload of the mesh runs.
const EXCEPT: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];

/// What matters of a namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    pub(super) labels: BTreeMap<String, String>,
    /// Whether it is being deleted, when nothing can be made in it.
    pub(super) is_ending: bool,
}

/// What matters of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The value of the one key.
    pub(super) value: Option<String>,
    pub(super) has_label: bool,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct State {
    namespaces: Option<BTreeMap<String, Namespace>>,
    maps: Option<BTreeMap<String, Seen>>,
}

impl State {
    pub(super) fn see(&mut self, sight: Sight) {
        match sight {
            Sight::Namespaces(event) => {
                apply(&mut self.namespaces, event);
                // Nothing outlasts its namespace; one of the same name begins anew.
                if let (Some(namespaces), Some(maps)) = (&self.namespaces, &mut self.maps) {
                    maps.retain(|name, _| namespaces.contains_key(name));
                }
            }
            Sight::Maps(event) => apply(&mut self.maps, event),
        }
    }

    /// What was written is there, until something else is seen.
    pub(super) fn wrote(&mut self, namespace: &str, value: &str) {
        let seen = Seen { value: Some(value.to_owned()), has_label: true };
        self.maps.get_or_insert_default().insert(namespace.to_owned(), seen);
    }

    /// Namespaces where the ConfigMap is not as it must be; none as long as it is not
    /// known what there is.
    pub(super) fn todo(&self, value: &str, selectors: &Selectors) -> Vec<String> {
        let (Some(namespaces), Some(maps)) = (&self.namespaces, &self.maps) else { return Vec::new() };
        let is_member = |labels| selectors.is_empty() || selectors.iter().any(|one| one.matches(labels));
        let wrong = namespaces.iter().filter(|(name, namespace)| {
            let is_right = match maps.get(*name) {
                Some(seen) => seen.has_label && seen.value.as_deref() == Some(value),
                None => value.is_empty(),
            };
            !is_right
                && !namespace.is_ending
                && !EXCEPT.contains(&name.as_str())
                && is_member(&namespace.labels)
        });
        wrong.map(|(name, _)| name.clone()).collect()
    }
}

fn apply<T>(all: &mut Option<BTreeMap<String, T>>, event: Event<(String, T)>) {
    match event {
        Event::Listed(now) => *all = Some(now.into_iter().collect()),
        Event::Set((name, one)) => drop(all.get_or_insert_default().insert(name, one)),
        Event::Gone((name, _)) => drop(all.get_or_insert_default().remove(&name)),
    }
}

#[cfg(test)]
mod tests {
    use source::kubernetes::Selector;

    use super::*;

    fn namespaces(names: &[&str]) -> Sight {
        let one = |name: &&str| {
            let labels = BTreeMap::from([("name".to_owned(), (*name).to_owned())]);
            ((*name).to_owned(), Namespace { labels, is_ending: *name == "ending" })
        };
        Sight::Namespaces(Event::Listed(names.iter().map(one).collect()))
    }

    fn seen(value: &str, has_label: bool) -> Seen {
        Seen { value: Some(value.into()), has_label }
    }

    #[test]
    fn every_namespace_of_the_mesh_has_it() {
        let mut state = State::default();
        state.see(namespaces(&["a", "b", "ending", "kube-public", "kube-node-lease", "kube-system"]));
        assert!(state.todo("r", &Vec::new()).is_empty(), "what there is is not known");
        state.see(Sight::Maps(Event::Listed(vec![("a".into(), seen("r", true))])));
        assert_eq!(state.todo("r", &Vec::new()), ["b", "kube-system"]);
        let selector = Selector { labels: [("name".into(), "b".into())].into(), ..Selector::default() };
        assert_eq!(state.todo("r", &vec![selector]), ["b"]);
        state.wrote("b", "r");
        state.wrote("kube-system", "r");
        assert!(state.todo("r", &Vec::new()).is_empty());
        assert_eq!(state.todo("other", &Vec::new()), ["a", "b", "kube-system"]);
    }

    #[test]
    fn what_somebody_changes_is_mended() {
        let mut state = State::default();
        state.see(namespaces(&["a", "b", "c"]));
        let all = ["a", "b", "c"].map(|name| (name.to_owned(), seen("r", true)));
        state.see(Sight::Maps(Event::Listed(all.into())));
        assert!(state.todo("r", &Vec::new()).is_empty());
        state.see(Sight::Maps(Event::Set(("a".into(), seen("x", true)))));
        state.see(Sight::Maps(Event::Set(("b".into(), seen("r", false)))));
        state.see(Sight::Maps(Event::Gone(("c".into(), seen("r", true)))));
        assert_eq!(state.todo("r", &Vec::new()), ["a", "b", "c"]);
    }

    #[test]
    fn without_a_value_none_is_made_and_one_that_is_there_is_emptied() {
        let mut state = State::default();
        state.see(namespaces(&["a", "b"]));
        state.see(Sight::Maps(Event::Listed(vec![("a".into(), seen("r", true))])));
        assert_eq!(state.todo("", &Vec::new()), ["a"]);
    }
}
