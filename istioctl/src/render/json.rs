//! JSON with four blanks a level, in the ways that Istio's command prints it.

use std::fmt::Write as _;

use crate::json::{Number, Shape, Value};

/// How lines are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As Go's `encoding/json`: the resources of a proxy.
    Plain,
    /// As Go's first printer of protobuf: maps are indented twice, an empty message has an
    /// empty line. Of whole messages: bootstrap, secrets, states of proxies, differences.
    Message,
    /// As Go's second printer of protobuf: nothing but control characters is escaped. Extensions.
    Extension,
}

/// One level.
const INDENT: &str = "    ";

/// The text of a value, without an end of line.
#[must_use]
pub fn render(value: &Value<'_>, style: Style) -> String {
    let mut text = String::new();
    write(&mut text, value, style, 0);
    text
}

/// Appends a value whose first line begins after what is there, at a depth.
pub fn write(text: &mut String, value: &Value<'_>, style: Style, depth: usize) {
    match value {
        Value::Null => *text += "null",
        Value::Bool(value) => *text += if *value { "true" } else { "false" },
        Value::Number(value) => *text += &number(*value),
        Value::String(value) => string(text, value, style != Style::Extension),
        Value::List(shape, items) => {
            block(text, ('[', ']'), items.iter(), style, *shape, depth, |text, item, depth| {
                write(text, item, style, depth);
            })
        }
        Value::Object(shape, fields) => {
            block(text, ('{', '}'), fields.iter(), style, *shape, depth, |text, (name, value), depth| {
                string(text, name, style != Style::Extension);
                *text += ": ";
                write(text, value, style, depth);
            });
        }
    }
}

/// The lines between two brackets.
fn block<T>(
    text: &mut String,
    (open, close): (char, char),
    items: impl ExactSizeIterator<Item = T>,
    style: Style,
    shape: Shape,
    depth: usize,
    write: impl Fn(&mut String, T, usize),
) {
    // Where the items are, what is inside of them, and where the end is.
    let (deeper, inside, end) = match (style, shape) {
        (Style::Message, Shape::Free) => (depth + 2, depth + 3, depth + 1),
        _ => (depth + 1, depth + 1, depth),
    };
    let is_empty = items.len() == 0;
    text.push(open);
    for (index, item) in items.enumerate() {
        *text += if index == 0 { "\n" } else { ",\n" };
        indent(text, deeper);
        write(text, item, inside);
    }
    if !is_empty || style == Style::Message {
        if is_empty && shape == Shape::Message {
            text.push('\n');
        }
        text.push('\n');
        indent(text, end);
    }
    text.push(close);
}

/// Begins a line.
pub fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n(INDENT, depth));
}

/// Appends a quoted text. Go escapes what could end a script in HTML, too.
pub fn string(text: &mut String, value: &str, is_for_html: bool) {
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' => *text += "\\\"",
            '\\' => *text += "\\\\",
            '\n' => *text += "\\n",
            '\r' => *text += "\\r",
            '\t' => *text += "\\t",
            '\u{8}' => *text += "\\b",
            '\u{c}' => *text += "\\f",
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if is_for_html => {
                // Writing to text cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(letter));
            }
            '\0'..='\x1f' => {
                let _ = write!(text, "\\u{:04x}", u32::from(letter));
            }
            _ => text.push(letter),
        }
    }
    text.push('"');
}

/// A number as Go's `encoding/json` writes it.
#[must_use]
pub fn number(value: Number) -> String {
    match value {
        Number::Negative(value) => value.to_string(),
        Number::Positive(value) => value.to_string(),
        Number::Double(value) => decimal(value.abs(), format!("{value}"), format!("{value:e}")),
        Number::Float(value) => decimal(f64::from(value.abs()), format!("{value}"), format!("{value:e}")),
    }
}

/// An exponent is written only where the number would be long without it.
fn decimal(size: f64, plain: String, scientific: String) -> String {
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        if scientific.contains("e-") { scientific } else { scientific.replace('e', "e+") }
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Value<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn resources_are_indented_and_escaped_as_go_does() {
        let value = parse(r#"{"a": [], "b": [{}, "<\u0001é"], "c": 1.50}"#);
        let wanted = "{\n    \"a\": [],\n    \"b\": [\n        {},\n        \"\\u003c\\u0001é\"\n    ],\n    \"c\": 1.5\n}";
        assert_eq!(render(&value, Style::Plain), wanted);
        assert!(render(&value, Style::Extension).contains("\"<\\u0001é\""));
    }

    #[test]
    fn maps_of_messages_are_indented_twice() {
        let map = parse(r#"{"a": {"b": 1}}"#);
        let empty = |shape| Value::Object(shape, Vec::new());
        let message = Value::Object(
            Shape::Message,
            vec![("m".into(), map), ("n".into(), empty(Shape::Message)), ("s".into(), empty(Shape::Free))],
        );
        let wanted = [
            "{",
            "    \"m\": {",
            "            \"a\": {",
            "                        \"b\": 1",
            "                    }",
            "        },",
            "    \"n\": {",
            "",
            "    },",
            "    \"s\": {",
            "        }",
            "}",
        ];
        let text = render(&message, Style::Message);
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted, "{text}");
    }

    #[test]
    fn numbers_have_an_exponent_only_when_long() {
        for (number_, wanted) in
            [(100.0, "100"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-7, "1e-7"), (0.25, "0.25")]
        {
            assert_eq!(number(Number::Double(number_)), wanted);
        }
        assert_eq!(number(Number::Float(0.1)), "0.1");
    }
}
