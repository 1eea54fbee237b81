//! A YAML document as a value, with the line of everything in it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Error, Spanned};

/// Containers in each other.
const DEPTH: usize = 64;

/// Where a value stands, and everything in it.
#[derive(Debug, Default)]
pub struct Lines {
    /// Line in the document, counted from 1; of the key if there is one.
    line: usize,
    inside: Inside,
}

#[derive(Debug, Default)]
enum Inside {
    #[default]
    Nothing,
    Map(BTreeMap<String, Lines>),
    List(Vec<Lines>),
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) value: Value,
    pub(super) lines: Lines,
}

/// Reads one document. What it may cost follows from its length, so that a
/// short text cannot become a large value.
pub(super) fn read(text: &str) -> Result<Located, Error> {
    let length = text.len().saturating_add(1000);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: length,
            max_events: length.saturating_mul(4),
            max_depth: DEPTH,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
}

impl Lines {
    /// The line of a field such as `spec.http[1].route`; that of its nearest
    /// parent when it is not written.
    #[must_use]
    pub fn of(&self, field: &str) -> usize {
        self.find(field).0.line
    }

    /// The line of a field that has a single value; `None` when it is not
    /// written, or has more inside.
    #[must_use]
    pub fn of_value(&self, field: &str) -> Option<usize> {
        let (found, rest) = self.find(field);
        (rest.is_empty() && matches!(found.inside, Inside::Nothing)).then_some(found.line)
    }

    fn find<'a>(&self, field: &'a str) -> (&Self, &'a str) {
        let (mut here, mut rest) = (self, field);
        while let Some((child, after)) = here.step(rest) {
            (here, rest) = (child, after);
        }
        (here, rest)
    }

    /// Those of an item of the list `field`.
    pub(super) fn item(&self, field: &str, index: usize) -> Option<&Self> {
        let Inside::Map(map) = &self.inside else { return None };
        let Inside::List(list) = &map.get(field)?.inside else { return None };
        list.get(index)
    }

    /// The child that a path begins with, and what is left of the path.
    fn step<'a>(&self, path: &'a str) -> Option<(&Self, &'a str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        match &self.inside {
            Inside::Nothing => None,
            Inside::List(list) => {
                let (index, after) = path.strip_prefix('[')?.split_once(']')?;
                Some((list.get(index.parse::<usize>().ok()?)?, after))
            }
            // Keys may have dots: the longest one that fits is meant.
            Inside::Map(map) => {
                let ends = path.char_indices().filter(|(_, c)| ['.', '['].contains(c)).map(|(at, _)| at);
                let mut ends: Vec<usize> = ends.chain([path.len()]).collect();
                ends.reverse();
                ends.into_iter().find_map(|end| {
                    let (key, after) = path.split_at(end);
                    Some((map.get(key)?, after))
                })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value: Raw(mut located), referenced, .. } = Spanned::deserialize(deserializer)?;
        located.lines.line = usize::try_from(referenced.line()).unwrap_or_default();
        Ok(located)
    }
}

/// A value whose own line is not known yet.
struct Raw(Located);

impl Raw {
    fn leaf(value: impl Into<Value>) -> Self {
        Self(Located { value: value.into(), lines: Lines::default() })
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::leaf(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::leaf(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::leaf(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Raw::leaf(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::leaf(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::leaf(value))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let (mut values, mut lines) = (Vec::new(), Vec::new());
        while let Some(item) = items.next_element::<Located>()? {
            values.push(item.value);
            lines.push(item.lines);
        }
        let lines = Lines { line: 0, inside: Inside::List(lines) };
        Ok(Raw(Located { value: Value::Array(values), lines }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let (mut values, mut lines) = (Map::new(), BTreeMap::new());
        while let Some(Spanned { value: key, referenced, .. }) = entries.next_key::<Spanned<String>>()? {
            let mut entry: Located = entries.next_value()?;
            entry.lines.line = usize::try_from(referenced.line()).unwrap_or_default();
            lines.insert(key.clone(), entry.lines);
            if values.insert(key.clone(), entry.value).is_some() {
                return Err(A::Error::custom(format!("{key:?} stands twice")));
            }
        }
        let lines = Lines { line: 0, inside: Inside::Map(lines) };
        Ok(Raw(Located { value: Value::Object(values), lines }))
    }
}
