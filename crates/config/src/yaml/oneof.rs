//! Fields of Istio's messages of which one only can be given.

use proto::reflect;
use serde_json::{Map, Value};

/// Why a field cannot stand in a map: another one of the same group is there.
/// `None` when it stands there twice itself.
pub(super) fn explain(field: &str, map: &Map<String, Value>) -> Option<String> {
    let messages = reflect::pool().all_messages().filter(|message| message.full_name().starts_with("istio."));
    let mut best: Option<(Vec<String>, String)> = None;
    for oneof in messages.flat_map(|message| message.oneofs().collect::<Vec<_>>()) {
        let names: Vec<String> = oneof.fields().map(|field| field.json_name().to_owned()).collect();
        if !names.iter().any(|name| name == field) {
            continue;
        }
        let is_given = |one: &prost_reflect::FieldDescriptor| {
            map.contains_key(one.json_name()) || map.contains_key(one.name())
        };
        let given: Vec<String> =
            oneof.fields().filter(is_given).map(|field| field.json_name().to_owned()).collect();
        // The name alone does not tell the message: the one of which most is there is meant.
        if given.len() > 1 && best.as_ref().is_none_or(|(known, _)| known.len() < given.len()) {
            let what = format!("{} takes one of {}", camel(oneof.name()), names.join(", "));
            best = Some((given, what));
        }
    }
    best.map(|(given, what)| format!("{} exclude each other: {what}", given.join(" and ")))
}

/// `hash_key` as people know fields: `hashKey`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        let (head, tail) = part.split_at(part.len().min(1));
        all + &head.to_ascii_uppercase() + tail
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_exclude_each_other_are_named_with_their_group() {
        let map = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        assert_eq!(
            explain("useSourceIp", &map(&["httpHeaderName", "use_source_ip"])).unwrap(),
            "httpHeaderName and useSourceIp exclude each other: hashKey takes one of httpHeaderName, \
             httpCookie, useSourceIp, httpQueryParameterName"
        );
        let simple = explain("simple", &map(&["simple", "consistentHash"])).unwrap();
        assert!(simple.starts_with("simple and consistentHash exclude each other: lbPolicy"), "{simple}");
        assert_eq!(explain("httpHeaderName", &map(&["httpHeaderName", "http_header_name"])), None);
        assert_eq!(explain("noSuchField", &map(&["a", "b"])), None);
    }
}
