//! Labels, annotations and what selects by them. Objects have few of them:
//! sorted pairs take a fraction of the memory of a map.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Names with values, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether there is a value of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All pairs by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has all of these pairs; none fit all.
    pub fn fits<'a>(&self, mut wanted: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        wanted.all(|(name, value)| self.get(name) == Some(value))
    }

    fn new(mut pairs: Vec<(Box<str>, Box<str>)>) -> Self {
        // Of several values of a name the last one counts.
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        Self(pairs.into_boxed_slice())
    }

    /// Those of a JSON value.
    ///
    /// # Errors
    /// When it is no map of texts.
    pub(crate) fn read(value: Option<&Value>) -> Result<Self, serde_json::Error> {
        value.map_or_else(|| Ok(Self::default()), Self::deserialize)
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(map: &BTreeMap<String, String>) -> Self {
        Self(map.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = entries.next_entry::<Box<str>, Option<Box<str>>>()? {
                    pairs.push((name, value.unwrap_or_default()));
                }
                Ok(Labels::new(pairs))
            }
        }

        deserializer.deserialize_any(Pairs)
    }
}

/// The pairs of a map as [`Labels`] and the index of pods want them.
pub(crate) fn pairs(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> + Clone {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// A selector as people know it from `kubectl -l`: `a=b,c=d`.
pub(crate) fn selector<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_found_and_compared() {
        let labels = Labels::read(Some(&json!({"b": "2", "a": "1", "c": null}))).unwrap();
        assert_eq!((labels.get("a"), labels.get("c"), labels.get("d")), (Some("1"), Some(""), None));
        assert!(labels.fits([("a", "1"), ("b", "2")].into_iter()) && labels.fits(std::iter::empty()));
        assert!(!labels.fits([("a", "2")].into_iter()) && !labels.fits([("d", "")].into_iter()));
        assert_eq!(selector(labels.iter()), "a=1,b=2,c=");
        assert!(Labels::read(Some(&json!({"a": 1}))).is_err());
    }
}
