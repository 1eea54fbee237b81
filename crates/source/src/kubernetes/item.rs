//! One object of a list or a watch as JSON, so deep as the mesh has a use for.
//!
//! The API server takes objects that are nested thousands of levels deep where a
//! kind has free-form fields. Nobody may end the reading of a whole kind by one.

use std::cell::Cell;

use config::json::Reader;
use serde::de::{DeserializeSeed as _, Deserializer};
use serde_json::Value;

/// Levels that are read; well below where the reader of JSON itself gives up.
const DEPTH: usize = 96;

/// An object, whole unless it is nested too deep.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    /// It; of one that is nested too deep, what says which it is.
    pub(super) value: Value,
    /// Whether it is nested too deep.
    pub(super) is_cut: bool,
}

impl<'de> serde::Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_cut = Cell::new(false);
        let mut value = Reader::cutting(DEPTH, &is_cut).deserialize(deserializer)?;
        let is_cut = is_cut.get();
        if is_cut && let Some(fields) = value.as_object_mut() {
            fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
        }
        Ok(Self { value, is_cut })
    }
}

#[cfg(test)]
mod tests {
    use kube::api::WatchEvent;

    use super::*;

    fn nested(levels: usize) -> String {
        let (open, close) = ("{\"a\":[".repeat(levels), "]}".repeat(levels));
        format!("{{\"metadata\":{{\"name\":\"x\"}},\"spec\":{open}1{close}}}")
    }

    #[test]
    fn an_object_is_read_as_it_is() {
        let text = r#"{"metadata":{"name":"x"},"spec":{"a":[1,-2,2.5,"é",true,null,{}]}}"#;
        let item: Item = serde_json::from_str(text).unwrap();
        assert_eq!((item.value, item.is_cut), (serde_json::from_str(text).unwrap(), false));
        assert!(!serde_json::from_str::<Item>(&nested(40)).unwrap().is_cut);
    }

    #[test]
    fn of_one_that_is_nested_too_deep_the_name_is_left() {
        for levels in [60, 5000] {
            let text = format!("[{},{}]", nested(levels), nested(1));
            let items: Vec<Item> = serde_json::from_str(&text).unwrap();
            assert_eq!(items[0].value.to_string(), r#"{"metadata":{"name":"x"}}"#);
            assert!(items[0].is_cut && !items[1].is_cut);
        }
    }

    #[test]
    fn an_event_may_be_about_one_that_is_nested_too_deep() {
        let text = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}", nested(5000));
        let WatchEvent::Modified(item) = serde_json::from_str::<WatchEvent<Item>>(&text).unwrap() else {
            panic!("another event");
        };
        assert!(item.is_cut);
        assert_eq!(item.value["metadata"]["name"], "x");
    }
}
