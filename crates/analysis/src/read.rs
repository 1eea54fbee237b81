//! Reads files of objects, for which they are only to be looked at: what cannot
//! be read is told, and does not keep the others from being read.

use std::fmt;
use std::io;
use std::sync::Arc;

use config::yaml::{self, Lines};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::resource::{Source, Text, Unreadable};
use crate::{Kind, Resource, Scope};

/// What is read of files, and how.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Namespace of objects that name none.
    pub namespace: &'a str,
    /// Which kinds count.
    pub scope: Scope,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Objects, in order of appearance.
    pub resources: Vec<Resource>,
    /// What could not be read, by the index of the document.
    pub problems: Vec<(usize, String)>,
}

/// Reads a file; `name` is what the user calls it.
#[must_use]
pub fn file(name: &str, text: String, options: &Options<'_>) -> Contents {
    let mut reader = Reader { file: name.into(), options, contents: Contents::default() };
    let is_json = name.ends_with(".json");
    let begins_so = text.trim_start().starts_with('{');
    if begins_so && reader.json(serde_json::Deserializer::from_str(&text)) {
        // One line of JSON may hold everything: its number says nothing.
        return reader.contents;
    }
    reader.contents = Contents::default();
    reader.yaml(&Arc::new(text), is_json);
    reader.contents
}

/// Reads a file of JSON without its whole text in memory; `None` when it is none.
pub fn json(name: &str, text: impl io::Read, options: &Options<'_>) -> Option<Contents> {
    let mut reader = Reader { file: name.into(), options, contents: Contents::default() };
    reader.json(serde_json::Deserializer::from_reader(text)).then_some(reader.contents)
}

struct Reader<'a> {
    file: Arc<str>,
    options: &'a Options<'a>,
    contents: Contents,
}

/// A document of a file.
struct Document {
    /// Where its text is.
    range: std::ops::Range<usize>,
    /// Its first line with content, counted from 1.
    line: usize,
    /// Lines of the file before its text.
    before: usize,
}

impl Reader<'_> {
    /// Adds an object. Kinds that nobody looks at are left out.
    fn add(&mut self, object: Value, source: Source) -> Result<(), Unreadable> {
        let word = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        if word("kind").is_empty() && word("apiVersion").is_empty() {
            return Err(Unreadable("unable to parse resource with no group, version and kind".into()));
        }
        let Some(kind) = Kind::find(word("apiVersion"), word("kind")) else { return Ok(()) };
        if !self.options.scope.has(kind) {
            return Ok(());
        }
        let mut resource = Resource::read(kind, object, self.options.namespace)?;
        resource.source = Some(source);
        self.contents.resources.push(resource);
        Ok(())
    }

    fn problem(&mut self, document: usize, why: String) {
        self.contents.problems.push((document, why));
    }

    /// Reads JSON, an object of a list after the other: a value of the whole
    /// would take many times the memory of the text. `false` when it is none.
    fn json<'de>(
        &mut self,
        mut deserializer: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
    ) -> bool {
        let line = usize::from(!self.file.ends_with(".json"));
        let source = Source { file: self.file.clone(), line, text: Text::Unknown };
        let mut told = Vec::new();
        let mut each = |item: Value| told.extend(self.add(item, source.clone()).err());
        let whole = match (Top { each: &mut each }).deserialize(&mut deserializer) {
            Ok(whole) if deserializer.end().is_ok() => whole,
            _ => return false,
        };
        whole.objects().into_iter().for_each(each);
        for why in told {
            self.problem(0, why.0);
        }
        true
    }

    fn yaml(&mut self, text: &Arc<String>, is_json: bool) {
        for (index, document) in documents(text).into_iter().enumerate() {
            let part = &text[document.range.clone()];
            let (value, lines) = match yaml::document(part) {
                Ok(read) => read,
                Err((why, line)) => {
                    let place =
                        line.map_or_else(String::new, |line| format!("line {}: ", line + document.before));
                    self.problem(index, format!("failed converting YAML to JSON: {place}{why}"));
                    continue;
                }
            };
            if value.is_null() {
                continue;
            }
            let is_list =
                value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
            let result = if is_list && value.get("items").is_some() {
                self.list(value, lines, document.before, is_json)
            } else {
                let line = if is_json { 0 } else { document.line };
                let lookup = Text::Document {
                    file: text.clone(),
                    range: document.range.clone(),
                    before: document.before,
                };
                self.add(value, Source { file: self.file.clone(), line, text: lookup })
            };
            if let Err(why) = result {
                self.problem(index, why.0);
            }
        }
    }

    fn list(&mut self, value: Value, lines: Lines, before: usize, is_json: bool) -> Result<(), Unreadable> {
        let lines = Arc::new(lines);
        let items = Whole::of(value).objects();
        for (index, item) in items.into_iter().enumerate() {
            let line = if is_json { 0 } else { before + lines.of(&format!("items[{index}]")) };
            let lookup = Text::Item { lines: lines.clone(), index, before };
            self.add(item, Source { file: self.file.clone(), line, text: lookup })?;
        }
        Ok(())
    }
}

/// The documents of a file. A line of three dashes stands between two.
fn documents(text: &str) -> Vec<Document> {
    let mut all = Vec::new();
    let (mut start, mut before, mut offset) = (0, 0, 0);
    let mut first = None;
    let mut push = |range: std::ops::Range<usize>, before: usize, first: Option<usize>| {
        if let Some(line) = first {
            all.push(Document { range, line, before });
        }
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mark = line.trim_end();
        if mark == "---" || mark.starts_with("--- ") {
            push(start..offset, before, first.take());
            start = offset + line.len();
            before = number + 1;
            // What follows the mark on its line belongs to the document.
            if mark.len() > 3 {
                (start, before, first) = (offset + 3, number, Some(number + 1));
            }
        } else if first.is_none() && !mark.is_empty() {
            first = Some(number + 1);
        }
        offset += line.len();
    }
    push(start..text.len(), before, first.take());
    all
}

/// An object of JSON, without the items that were read already.
#[derive(Default)]
struct Whole {
    fields: Map<String, Value>,
    /// Items that leave their kind to the list.
    items: Vec<Value>,
    is_list: bool,
}

impl Whole {
    fn of(value: Value) -> Self {
        let Value::Object(mut fields) = value else { return Self::default() };
        let items = match fields.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        Self { fields, items, is_list: true }
    }

    /// The objects: itself, or its items with the kind that the list says.
    fn objects(self) -> Vec<Value> {
        let word = |name: &str| self.fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if !self.is_list {
            return vec![Value::Object(self.fields)];
        }
        let (version, kind) = (word("apiVersion"), word("kind"));
        let of = kind.strip_suffix("List").unwrap_or_default();
        let filled = |mut item: Value| {
            if let Some(item) = item.as_object_mut().filter(|_| !of.is_empty()) {
                item.entry("apiVersion").or_insert_with(|| version.clone().into());
                item.entry("kind").or_insert_with(|| of.into());
            }
            item
        };
        self.items.into_iter().map(filled).collect()
    }
}

/// Reads the top of a file of JSON.
struct Top<'a> {
    each: &'a mut dyn FnMut(Value),
}

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = Whole;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Whole, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Whole, A::Error> {
        let mut whole = Whole::default();
        while let Some(name) = entries.next_key::<String>()? {
            if name == "items" {
                whole.is_list = true;
                whole.items = entries.next_value_seed(Items { each: self.each })?;
            } else {
                whole.fields.insert(name, entries.next_value()?);
            }
        }
        Ok(whole)
    }
}

/// Reads items, and keeps those that do not say their kind.
struct Items<'a> {
    each: &'a mut dyn FnMut(Value),
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Value>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Value>, A::Error> {
        let mut kept = Vec::new();
        while let Some(item) = items.next_element::<Value>()? {
            if item.get("kind").is_some() { (self.each)(item) } else { kept.push(item) }
        }
        Ok(kept)
    }
}
