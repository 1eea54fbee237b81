//! Reads files of objects, for which they are only to be looked at: what cannot
//! be read is told, and does not keep the others from being read.

mod items;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use config::yaml::{self, Lines};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::resource::{Source, Text, Unreadable};
use crate::{Kind, Resource, Scope};
use items::Cut;

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

/// Gives parts of the text of files, by their names and bytes, when lines of fields are
/// looked for.
#[derive(Clone)]
pub struct Parts(Arc<Part>);

type Part = dyn Fn(&str, Range<usize>) -> Option<String> + Send + Sync;

impl Parts {
    /// By a function, which may read a file again: its text takes memory that its
    /// objects do not need.
    #[must_use]
    pub fn new(part: impl Fn(&str, Range<usize>) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(part))
    }

    pub(crate) fn get(&self, file: &str, range: Range<usize>) -> Option<String> {
        (self.0)(file, range)
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

/// Reads a file, whose text is kept; `name` is what the user calls it.
#[must_use]
pub fn file(name: impl Into<Arc<str>>, text: String, options: &Options<'_>) -> Contents {
    let text = Arc::new(text);
    let own = text.clone();
    again(name, &text, &Parts::new(move |_, range| own.get(range).map(str::to_owned)), options)
}

/// Reads a file whose text can be had again.
#[must_use]
pub fn again(name: impl Into<Arc<str>>, text: &str, parts: &Parts, options: &Options<'_>) -> Contents {
    let mut reader = Reader { file: name.into(), options, contents: Contents::default() };
    let is_json = reader.file.ends_with(".json");
    let begins_so = text.trim_start().starts_with('{');
    if begins_so && reader.json(serde_json::Deserializer::from_str(text)) {
        // One line of JSON may hold everything: its number says nothing.
        return reader.contents;
    }
    reader.contents = Contents::default();
    reader.yaml(text, parts, is_json);
    reader.contents
}

/// Reads a file of JSON without its whole text in memory; `None` when it is none.
pub fn json(name: impl Into<Arc<str>>, text: impl io::Read, options: &Options<'_>) -> Option<Contents> {
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
    range: Range<usize>,
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

    fn yaml(&mut self, text: &str, parts: &Parts, is_json: bool) {
        for (index, document) in documents(text).into_iter().enumerate() {
            let part = &text[document.range.clone()];
            if let Some(cut) = items::cut(part)
                && let Some(result) = self.items(part, &cut, &document, parts, is_json)
            {
                if let Err(why) = result {
                    self.problem(index, why.0);
                }
                continue;
            }
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
            let result = if is_list(&value) {
                self.list(value, lines, document.before, is_json)
            } else {
                let line = if is_json { 0 } else { document.line };
                let Document { range, before, .. } = document;
                let lookup = Text::Part { parts: parts.clone(), range, before, is_item: false };
                self.add(value, Source { file: self.file.clone(), line, text: lookup })
            };
            if let Err(why) = result {
                self.problem(index, why.0);
            }
        }
    }

    /// Reads a list an item after the other; `None` when it must be read as a whole.
    fn items(
        &mut self,
        part: &str,
        cut: &Cut,
        document: &Document,
        parts: &Parts,
        is_json: bool,
    ) -> Option<Result<(), Unreadable>> {
        let (head, _) = yaml::document(&cut.head).ok().filter(|(head, _)| is_list(head))?;
        let whole = Whole::of(head);
        let known = self.contents.resources.len();
        let mut result = Ok(());
        for item in &cut.items {
            let read = yaml::document(&part[item.range.clone()]).ok();
            let Some((Value::Array(mut values), lines)) = read.filter(|(values, _)| is_one(values)) else {
                self.contents.resources.truncate(known);
                return None;
            };
            // What follows something of another form is not looked at, but must be YAML.
            let (Some(value), Ok(())) = (values.pop(), &result) else { continue };
            let before = document.before + item.before;
            let line = if is_json { 0 } else { before + lines.of("[0]") };
            let range = document.range.start + item.range.start..document.range.start + item.range.end;
            let lookup = Text::Part { parts: parts.clone(), range, before, is_item: true };
            result = self.add(whole.filled(value), Source { file: self.file.clone(), line, text: lookup });
        }
        Some(result)
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

fn is_list(value: &Value) -> bool {
    let kind = value.get("kind").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with("List")) && value.get("items").is_some()
}

fn is_one(values: &Value) -> bool {
    values.as_array().is_some_and(|values| values.len() == 1)
}

/// The documents of a file. A line of three dashes stands between two.
fn documents(text: &str) -> Vec<Document> {
    let mut all = Vec::new();
    let (mut start, mut before, mut offset) = (0, 0, 0);
    let mut first = None;
    let mut push = |range: Range<usize>, before: usize, first: Option<usize>| {
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
    fn objects(mut self) -> Vec<Value> {
        if !self.is_list {
            return vec![Value::Object(self.fields)];
        }
        let items = std::mem::take(&mut self.items);
        items.into_iter().map(|item| self.filled(item)).collect()
    }

    /// An item with the kind that the list says, if it says one.
    fn filled(&self, mut item: Value) -> Value {
        let word = |name: &str| self.fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let of = word("kind").strip_suffix("List").unwrap_or_default();
        if let Some(item) = item.as_object_mut().filter(|_| !of.is_empty()) {
            item.entry("apiVersion").or_insert_with(|| word("apiVersion").into());
            item.entry("kind").or_insert_with(|| of.into());
        }
        item
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
