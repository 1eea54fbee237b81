//! Messages as text, JSON and YAML.

use std::io::{self, IsTerminal as _};

use analysis::{Level, Message};

use crate::json::{Shape, Value};
use crate::render::plain::plain;
use crate::render::{json, yaml};

/// Whether standard output takes colors.
pub(in crate::command) fn has_colors(terminal: Option<&str>) -> bool {
    io::stdout().is_terminal() && !terminal.is_some_and(|kind| kind.eq_ignore_ascii_case("dumb"))
}

pub(in crate::command) fn write(
    messages: &[&Message],
    format: &str,
    is_colored: bool,
    out: &mut impl io::Write,
) -> io::Result<()> {
    match format {
        "json" => as_json(messages, out),
        "yaml" => {
            let list = messages.iter().map(|message| {
                let fields = fields(message).into_iter();
                let fields = fields.map(|(name, value)| (name.into(), Value::String(value.into())));
                Value::Object(Shape::Free, fields.collect())
            });
            writeln!(out, "{}", yaml::render(&Value::List(Shape::Free, list.collect())))
        }
        _ => {
            for (index, message) in messages.iter().enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                let (on, off) = if is_colored { (color(message.level()), "\x1b[0m") } else { ("", "") };
                let (level, code, place) = (message.level(), message.code, message.place());
                write!(out, "{on}{level}{off} [{code}]{} {}", plain(&place), plain(&message.text))?;
            }
            writeln!(out)
        }
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::Info => "",
        Level::Warning => "\x1b[33m",
        Level::Error => "\x1b[1;31m",
    }
}

/// Names and values, by name.
fn fields(message: &Message) -> Vec<(&'static str, String)> {
    let all = [
        ("cluster", message.cluster.clone()),
        ("code", Some(message.code.to_string())),
        ("documentationUrl", Some(message.code.documentation())),
        ("level", Some(message.level().to_string())),
        ("message", Some(message.text.clone())),
        ("origin", message.origin.clone()),
        ("reference", message.reference.clone()),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn as_json(messages: &[&Message], out: &mut impl io::Write) -> io::Result<()> {
    if messages.is_empty() {
        return writeln!(out, "[]");
    }
    let mut text = String::from("[");
    for (index, message) in messages.iter().enumerate() {
        text += if index > 0 { ",\n\t{" } else { "\n\t{" };
        for (index, (name, value)) in fields(message).iter().enumerate() {
            text += if index > 0 { ",\n\t\t" } else { "\n\t\t" };
            json::string(&mut text, name, true);
            text += ": ";
            json::string(&mut text, value, true);
        }
        text += "\n\t}";
    }
    writeln!(out, "{text}\n]")
}
