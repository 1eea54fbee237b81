//! Labels, annotations and what selects by them. Objects have few of them: one text
//! of all takes a fraction of the memory of a map.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Names with values, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Names and values, without anything between them.
    text: Box<str>,
    /// Where each ends: of a name, of its value, of the next name and so on.
    ends: Box<[u32]>,
}

impl Labels {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Whether there is a value of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All pairs by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        let mut part = move |end: u32| {
            let end = end as usize;
            self.text.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()
        };
        self.ends.as_chunks::<2>().0.iter().map(move |[name, value]| (part(*name), part(*value)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
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
        pairs.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    /// Those of a JSON value.
    ///
    /// # Errors
    /// When it is no map of texts.
    pub(crate) fn read(value: Option<&Value>) -> Result<Self, serde_json::Error> {
        value.map_or_else(|| Ok(Self::default()), Self::deserialize)
    }
}

/// Of pairs in the order of their names.
impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for part in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
            text.push_str(part);
            // Files and objects are far shorter.
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self { text: text.into(), ends: ends.into() }
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(map: &BTreeMap<String, String>) -> Self {
        pairs(map).collect()
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
