//! What tests begin with: objects from text.

use std::sync::Arc;

use config::{Store, yaml};

use crate::{Settings, Snapshot};

/// The objects of a text, none of which is refused.
pub(crate) fn store(text: &str) -> Store {
    let contents = yaml::read("mesh.yaml", text);
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    store
}

/// The snapshot of them, with every switch at its default.
pub(crate) fn snapshot(text: &str) -> Snapshot {
    Snapshot::build(&store(text), &Settings::new(Arc::default(), "Kubernetes"))
}
