//! JSON of others, read no deeper than there is a use for. What lies below is
//! an error, or is skipped without a trace but a mark.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a value, down to some level.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Levels below this one.
    left: usize,
    /// Set when something was skipped; without it, what is too deep is an error.
    cut: Option<&'a Cell<bool>>,
    /// Whether an object that has a name twice is an error.
    is_unique: bool,
}

impl<'a> Reader<'a> {
    /// One for which containers below `depth` others, and objects that have a name
    /// twice, are errors: parsers differ there.
    #[must_use]
    pub fn strict(depth: usize) -> Self {
        Self { left: depth, cut: None, is_unique: true }
    }

    /// One that skips what is below `depth` levels, and says so.
    #[must_use]
    pub fn cutting(depth: usize, cut: &'a Cell<bool>) -> Self {
        Self { left: depth, cut: Some(cut), is_unique: false }
    }

    fn below<E: serde::de::Error>(self) -> Result<Self, E> {
        let left = self.left.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { left, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.cut {
            Some(cut) if self.left == 0 => {
                // Skipping needs no stack, however deep it goes.
                cut.set(true);
                deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut all = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if self.is_unique && all.contains_key(&name) {
                return Err(A::Error::custom(format!("two values for {name:?}")));
            }
            all.insert(name, fields.next_value_seed(below)?);
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: Reader<'_>, text: &str) -> Result<Value, serde_json::Error> {
        reader.deserialize(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn a_strict_reader_refuses_what_parsers_differ_in() {
        let strict = |text: &str| read(Reader::strict(2), text).map_err(|error| error.to_string());
        assert_eq!(strict(r#"{"a":[1,-2,2.5,"x",true,null]}"#).unwrap()["a"][3], "x");
        assert!(strict("[[[]]]").unwrap_err().contains("nested too deeply"));
        assert!(strict(r#"{"a":1,"a":2}"#).unwrap_err().contains("two values for \"a\""));
    }

    #[test]
    fn a_cutting_reader_skips_what_is_deep() {
        let cut = Cell::new(false);
        let cutting = |text: &str| read(Reader::cutting(2, &cut), text).unwrap().to_string();
        assert_eq!(cutting(r#"{"a":1,"a":2}"#), r#"{"a":2}"#);
        assert!(!cut.get());
        assert_eq!(cutting(r#"{"a":[1,{"b":[]}]}"#), r#"{"a":[null,null]}"#);
        assert!(cut.get());
    }
}
