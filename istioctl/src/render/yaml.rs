//! YAML as Kubernetes' tools write it: names sorted, two blanks a level, lists
//! not indented, text quoted only where it could be read as something else.

mod scalar;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io;

use serde_json::value::RawValue;

use crate::json::{Number, Text, Value};
use scalar::Scalar;

/// Lines of text with blanks in it are broken after this column.
const WIDTH: usize = 80;
/// Levels of a text that are not read as a whole: those above the resources of a dump.
const LEVELS: usize = 4;
/// Text that is kept before it is printed, in bytes.
const KEPT: usize = 1 << 16;

/// The text of a value, with the end of its last line.
#[must_use]
pub fn render(value: &Value<'_>) -> String {
    let mut writer = Writer::default();
    // Only text that is printed on the way can fail.
    let _ = writer.node(&Node::Tree(value), 0, false);
    writer.finish()
}

/// Prints JSON as YAML, piece by piece.
///
/// # Errors
/// When it is no JSON, or cannot be printed.
pub fn stream(text: &str, sink: &mut dyn io::Write) -> io::Result<()> {
    let raw: &RawValue = serde_json::from_str(text)?;
    let mut writer = Writer { sink: Some(sink), ..Writer::default() };
    writer.node(&Node::Text(raw, LEVELS), 0, false)?;
    let rest = writer.finish();
    sink.write_all(rest.as_bytes())
}

/// A value, or the text of one that is read only when it is printed.
enum Node<'b, 'a> {
    Tree(&'b Value<'a>),
    Text(&'a RawValue, usize),
}

/// What is inside of a node.
enum Parts<'b, 'a> {
    Object(Vec<(Cow<'b, str>, Node<'b, 'a>)>),
    List(Vec<Node<'b, 'a>>),
    Other(Value<'b>),
}

impl<'b, 'a: 'b> Node<'b, 'a> {
    /// Whether it has lines of its own.
    fn is_block(&self) -> bool {
        match self {
            Self::Tree(Value::Object(_, fields)) => !fields.is_empty(),
            Self::Tree(Value::List(_, items)) => !items.is_empty(),
            Self::Tree(_) => false,
            Self::Text(raw, _) => {
                let mut inside = raw.get().chars();
                let first = inside.next();
                matches!(first, Some('{' | '['))
                    && !matches!(inside.find(|letter| !letter.is_whitespace()), Some('}' | ']'))
            }
        }
    }

    fn is_object(&self) -> bool {
        match self {
            Self::Tree(value) => matches!(value, Value::Object(..)),
            Self::Text(raw, _) => raw.get().starts_with('{'),
        }
    }

    fn parts(&self) -> serde_json::Result<Parts<'b, 'a>> {
        Ok(match self {
            Self::Tree(Value::Object(_, fields)) => Parts::Object(
                fields
                    .iter()
                    .map(|(name, value)| (Cow::Borrowed(name.as_ref()), Node::Tree(value)))
                    .collect(),
            ),
            Self::Tree(Value::List(_, items)) => Parts::List(items.iter().map(Node::Tree).collect()),
            Self::Tree(value) => Parts::Other((*value).clone()),
            Self::Text(raw, levels) if self.is_block() && self.is_object() => {
                let Fields(fields) = serde_json::from_str(raw.get())?;
                let fields = fields.into_iter().map(|(name, raw)| (name, Node::Text(raw, levels - 1)));
                Parts::Object(fields.collect())
            }
            Self::Text(raw, levels) if self.is_block() => {
                let items: Vec<&RawValue> = serde_json::from_str(raw.get())?;
                Parts::List(items.into_iter().map(|raw| Node::Text(raw, levels - 1)).collect())
            }
            Self::Text(raw, _) => Parts::Other(serde_json::from_str(raw.get())?),
        })
    }
}

/// The fields of an object, each still as text.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> serde::de::Visitor<'de> for Entries {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), raw)) = map.next_entry()? {
                    fields.push((name, raw));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[derive(Default)]
struct Writer<'s> {
    text: String,
    column: usize,
    sink: Option<&'s mut dyn io::Write>,
}

impl Writer<'_> {
    fn put(&mut self, text: &str) {
        self.text += text;
        self.column += text.chars().count();
    }

    fn end_line(&mut self) {
        self.text.push('\n');
        self.column = 0;
    }

    fn finish(&mut self) -> String {
        if self.column > 0 {
            self.end_line();
        }
        std::mem::take(&mut self.text)
    }

    /// Begins a line, or stays behind the dash of a list.
    fn indent(&mut self, indent: usize, is_after_dash: bool) {
        if !is_after_dash {
            if self.column > 0 {
                self.end_line();
            }
            self.put(&" ".repeat(indent));
        }
    }

    /// A value at an indentation; its first line may begin behind a dash.
    fn node<'b, 'a: 'b>(
        &mut self,
        node: &Node<'b, 'a>,
        indent: usize,
        is_after_dash: bool,
    ) -> io::Result<()> {
        if let Node::Text(raw, 0) = node {
            let value: Value<'_> = serde_json::from_str(raw.get())?;
            self.node(&Node::Tree(&value), indent, is_after_dash)?;
            if let Some(sink) = self.sink.as_mut().filter(|_| self.text.len() > KEPT) {
                sink.write_all(self.text.as_bytes())?;
                self.text.clear();
            }
            return Ok(());
        }
        match node.parts()? {
            Parts::Object(mut fields) if !fields.is_empty() => {
                fields.sort_by(|(one, _), (other, _)| order(one, other));
                for (index, (name, value)) in fields.iter().enumerate() {
                    self.indent(indent, is_after_dash && index == 0);
                    Scalar::of(name).write(self, indent + 2, true);
                    self.put(":");
                    if value.is_block() {
                        self.node(value, if value.is_object() { indent + 2 } else { indent }, false)?;
                    } else {
                        self.put(" ");
                        self.node(value, indent, true)?;
                    }
                }
            }
            Parts::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    self.indent(indent, is_after_dash && index == 0);
                    self.put("- ");
                    self.node(item, if item.is_block() { indent + 2 } else { indent }, true)?;
                }
            }
            Parts::Object(_) | Parts::Other(Value::Object(..)) => self.put("{}"),
            Parts::List(_) | Parts::Other(Value::List(..)) => self.put("[]"),
            Parts::Other(Value::Null) => self.put("null"),
            Parts::Other(Value::Bool(value)) => self.put(if value { "true" } else { "false" }),
            Parts::Other(Value::Number(value)) => self.put(&number(value)),
            Parts::Other(Value::String(value)) => Scalar::of(&value).write(self, indent + 2, false),
        }
        Ok(())
    }
}

/// A number as Go's `%g` writes it, with all its digits.
fn number(value: Number) -> String {
    let (size, plain, scientific) = match value {
        Number::Negative(value) => return value.to_string(),
        Number::Positive(value) => return value.to_string(),
        Number::Double(value) => (value.abs(), format!("{value}"), format!("{value:e}")),
        Number::Float(value) => (f64::from(value.abs()), format!("{value}"), format!("{value:e}")),
    };
    if size == 0.0 || (1e-4..1e6).contains(&size) {
        return plain;
    }
    // The exponent has a sign and two digits.
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The order of names: letters by code, after everything else; numbers by value.
fn order(one: &str, other: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else { return a.len().cmp(&b.len()) };
    let (x, y) = (a[at], b[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => x.cmp(&y),
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let is_inside = (x == '0' || y == '0')
                && a[..at].iter().rev().take_while(|letter| letter.is_numeric()).any(|digit| *digit != '0');
            let start = u64::from(is_inside);
            let run = |text: &[char]| {
                let digits = text[at..].iter().map_while(|letter| letter.to_digit(10));
                digits.fold((start, 0), |(sum, count), digit| {
                    (sum.wrapping_mul(10).wrapping_add(u64::from(digit)), count + 1)
                })
            };
            run(&a).cmp(&run(&b)).then(x.cmp(&y))
        }
    }
}

#[cfg(test)]
mod tests;
