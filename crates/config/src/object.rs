//! One object: what it is called, where it was written, what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::{Kind, Spec};

/// Names one object of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without one.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The metadata of an object, as far as the mesh uses it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace; `default` when a namespaced object names none.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, RFC 3339 in UTC. Objects without it count as oldest.
    pub creation_timestamp: Option<String>,
    /// What its name was made from, if the API server made it.
    pub generate_name: String,
    /// What made it.
    pub owner_references: Vec<OwnerReference>,
}

/// An object that made another.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct OwnerReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether it is the one that manages the object.
    pub controller: bool,
}

/// Where something was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The file, as the user knows it.
    pub file: Arc<str>,
    /// Line, counted from 1; 0 when it is not known.
    pub line: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// An object in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its name and kind.
    pub key: Key,
    /// Its metadata.
    pub meta: Meta,
    /// What it says.
    pub spec: Spec,
    /// Where it was written.
    pub position: Position,
}

impl Object {
    /// Orders objects by age, the oldest first; those of the same age by name,
    /// then namespace, as Istio does.
    #[must_use]
    pub fn by_age(&self, other: &Self) -> std::cmp::Ordering {
        let age = |object: &Self| {
            (object.meta.creation_timestamp.clone(), object.key.name.clone(), object.key.namespace.clone())
        };
        age(self).cmp(&age(other))
    }
}
