//! One log line of one event.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::Event;
use tracing::field::{Field, Visit};

use super::levels::scope;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A message and its fields, gathered from an event.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.into();
        } else {
            self.fields.push((field.name(), value.into()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn parts(event: &Event<'_>) -> Parts {
    let mut parts = Parts::default();
    event.record(&mut parts);
    parts
}

fn level(event: &Event<'_>) -> &'static str {
    match *event.metadata().level() {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
    }
}

fn stamp(now: OffsetDateTime) -> String {
    // The format holds only numbers, which always can be written.
    now.format(TIME).unwrap_or_default()
}

/// The text form, with its line end.
pub(super) fn text(event: &Event<'_>, now: OffsetDateTime) -> String {
    let Parts { message, fields } = parts(event);
    let mut line = format!("{}\t{}", stamp(now), level(event));
    if let Some(scope) = scope(event.metadata().target()) {
        line.push('\t');
        line.push_str(scope);
    }
    line.push('\t');
    push_one_line(&mut line, &message);
    for (name, value) in fields {
        // Writing to a String cannot fail.
        let _ = write!(line, "\t{name}=");
        if value.contains([' ', '\t', '"']) {
            let _ = write!(line, "{value:?}");
        } else {
            push_one_line(&mut line, &value);
        }
    }
    line.push('\n');
    line
}

/// What others send us must not look like a line of its own.
fn push_one_line(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

/// The JSON form, with its line end.
pub(super) fn json(event: &Event<'_>, now: OffsetDateTime) -> String {
    let Parts { message, fields } = parts(event);
    let mut object = Map::new();
    object.insert("level".into(), level(event).into());
    object.insert("time".into(), stamp(now).into());
    if let Some(scope) = scope(event.metadata().target()) {
        object.insert("scope".into(), scope.into());
    }
    object.insert("msg".into(), message.into());
    for (name, value) in fields {
        object.insert(name.into(), value.into());
    }
    format!("{}\n", Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let mut line = String::new();
        push_one_line(&mut line, "a\nb\u{1b}[0m\tc");
        assert_eq!(line, "a\\nb\\u{1b}[0m\tc");
    }
}
