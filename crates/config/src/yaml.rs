//! Reads files of YAML documents into objects.
//!
//! Every problem names the file, the line and the field. A document that
//! cannot be used does not keep the others of its file from being read; what to
//! do about it is the caller's decision.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::validate::Checker;
use crate::{Key, Kind, Meta, Object, Position, Problem, Severity};

/// Largest file that is read.
pub const MAX_FILE: usize = 32 * 1024 * 1024;
const MAX_DOCUMENTS: usize = 100_000;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Objects that can be used, in order of appearance.
    pub objects: Vec<Object>,
    /// What is wrong; with an error the file is not as its author meant it.
    pub problems: Vec<Problem>,
}

impl Contents {
    /// Whether something could not be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Why the content of an object cannot be read.
#[derive(Debug)]
pub(crate) struct ReadError {
    field: String,
    message: String,
}

/// Reads one field of an object; a missing field is an empty one.
pub(crate) fn field<T: DeserializeOwned>(
    object: &Value,
    name: &str,
    unknown: &mut Vec<String>,
) -> Result<T, ReadError> {
    let empty = Value::Object(serde_json::Map::new());
    let content = object.get(name).filter(|content| !content.is_null()).unwrap_or(&empty);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(content, &mut track);
    let result =
        serde_ignored::deserialize(tracked, |path| unknown.push(format!("{name}{}", bracketed(&path))));
    result.map_err(|error: serde_json::Error| ReadError {
        field: join(name, &track.path().to_string()),
        message: error.to_string(),
    })
}

/// Reads the object as a whole.
pub(crate) fn whole<T: DeserializeOwned>(object: &Value) -> Result<T, ReadError> {
    serde_path_to_error::deserialize(object).map_err(
        |error: serde_path_to_error::Error<serde_json::Error>| ReadError {
            field: join("", &error.path().to_string()),
            message: error.inner().to_string(),
        },
    )
}

/// `http.0.timeout` as people write it: `.http[0].timeout`.
fn bracketed(path: &serde_ignored::Path<'_>) -> String {
    let parts = path.to_string();
    let part = |part: &str| match part.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        // An optional field adds a question mark of its own.
        Err(_) if part == "?" => String::new(),
        Err(_) => format!(".{part}"),
    };
    parts.split('.').map(part).collect()
}

fn join(name: &str, path: &str) -> String {
    match (name, path) {
        (_, "." | "") => name.to_owned(),
        ("", path) => path.to_owned(),
        (name, path) => format!("{name}.{path}"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<Meta>,
}

/// Reads a file's text; `file` is its name in problems.
#[must_use]
pub fn read(file: &str, text: &str) -> Contents {
    let mut reader = Reader { file: file.into(), contents: Contents::default() };
    if text.len() > MAX_FILE {
        reader.error(
            0,
            None,
            "",
            format!("the file has {} bytes, more than the {MAX_FILE} allowed", text.len()),
        );
        return reader.contents;
    }
    for (count, (line, document)) in documents(text).enumerate() {
        if count == MAX_DOCUMENTS {
            reader.error(line, None, "", format!("more than {MAX_DOCUMENTS} documents in one file"));
            break;
        }
        reader.document(line, document);
    }
    reader.contents
}

/// The documents of a file with the number of lines before each.
fn documents(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    let mut first_line = 0;
    let mut offset = 0;
    let mut line_number = 0;
    let mut parts = Vec::new();
    for line in text.split_inclusive('\n') {
        let end = offset + line.len();
        line_number += 1;
        let mark = line.trim_end();
        if mark == "---" || mark.starts_with("--- ") {
            parts.push((first_line, &text[start..offset]));
            // What follows the mark on its line belongs to the document.
            start = offset + 3;
            first_line = line_number - 1;
        }
        offset = end;
    }
    parts.push((first_line, &text[start..]));
    parts.into_iter().filter(|(_, part)| {
        part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    })
}

struct Reader {
    file: Arc<str>,
    contents: Contents,
}

impl Reader {
    fn problem(
        &mut self,
        severity: Severity,
        line: usize,
        object: Option<Key>,
        field: &str,
        message: String,
    ) {
        let position = Position { file: self.file.clone(), line };
        self.contents.problems.push(Problem { severity, object, position, field: field.into(), message });
    }

    fn error(&mut self, line: usize, object: Option<Key>, field: &str, message: String) {
        self.problem(Severity::Error, line, object, field, message);
    }

    fn document(&mut self, before: usize, text: &str) {
        let value: Value = match serde_saphyr::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                let line = error.location().map_or(0, |location| before + location.line() as usize);
                let message = error.without_snippet().to_string();
                return self.error(line, None, "", format!("not YAML: {}", first_line(&message)));
            }
        };
        self.object(before, text, &value);
    }

    fn object(&mut self, before: usize, text: &str, value: &Value) {
        let start = before + 1 + text.lines().take_while(|line| is_blank(line)).count();
        let find = |field: &str| line_of(text, field).map_or(start, |line| before + line);
        if value.is_null() {
            return;
        }
        if value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) {
            for item in value.get("items").and_then(Value::as_array).into_iter().flatten() {
                self.object(before, text, item);
            }
            return;
        }
        let header: Header = match whole(value) {
            Ok(header) => header,
            Err(ReadError { field, message }) => return self.error(find(&field), None, &field, message),
        };
        let (Some(api_version), Some(kind)) = (&header.api_version, &header.kind) else {
            let missing = if header.kind.is_none() { "kind" } else { "apiVersion" };
            return self.error(
                start,
                None,
                missing,
                "is missing: every object needs apiVersion and kind".into(),
            );
        };
        let kind = match Kind::find(api_version, kind) {
            Ok(Some(kind)) => kind,
            // Deployments and the like may lie in the same files.
            Ok(None) => return,
            Err(message) => return self.error(find("apiVersion"), None, "apiVersion", message),
        };
        let mut meta = header.metadata.unwrap_or_default();
        if meta.name.is_empty() {
            return self.error(
                start,
                None,
                "metadata.name",
                format!("is missing: every {kind} needs a name"),
            );
        }
        if !kind.is_namespaced() {
            meta.namespace.clear();
        } else if meta.namespace.is_empty() {
            meta.namespace = "default".into();
        }
        let key = Key { kind, namespace: meta.namespace.as_str().into(), name: meta.name.as_str().into() };

        let mut unknown = Vec::new();
        let spec = match kind.read(value, &mut unknown) {
            Ok(spec) => spec,
            Err(ReadError { field, message }) => {
                return self.error(find(&field), Some(key), &field, message);
            }
        };
        for field in unknown {
            let message = "no such field; it has no effect".to_owned();
            self.problem(Severity::Warning, find(&field), Some(key.clone()), &field, message);
        }
        let mut checker = Checker::default();
        spec.check(&mut checker);
        let failed = checker.has_errors();
        for finding in checker.findings {
            let field =
                if finding.field.is_empty() { "spec".into() } else { format!("spec.{}", finding.field) };
            self.problem(finding.severity, find(&field), Some(key.clone()), &field, finding.message);
        }
        if !failed {
            let position = Position { file: self.file.clone(), line: start };
            self.contents.objects.push(Object { key, meta, spec, position });
        }
    }
}

/// The reason without the place, which counts lines from the start of the document.
fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or(text);
    line.split(" at line ").next().unwrap_or(line)
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---"
}

/// The line, counted from 1, where a field such as `spec.http[1].route` is
/// written in block style; the line of its nearest parent when it is not.
fn line_of(text: &str, field: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = None;
    // Lines that belong to the field found so far.
    let mut range = 0..lines.len();
    for step in steps(field) {
        let next = match step {
            Step::Name(name) => child(&lines, range.clone(), name),
            Step::Index(index) => item(&lines, range.clone(), index),
        };
        let Some((line, inside)) = next else { break };
        found = Some(line + 1);
        range = inside;
    }
    found
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

fn steps(field: &str) -> impl Iterator<Item = Step<'_>> {
    field.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| {
        let part = part.trim_end_matches(']');
        part.parse().map_or(Step::Name(part), Step::Index)
    })
}

/// Columns before the content of a line, a list dash counted as blank.
fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '-']).len()
}

fn child(
    lines: &[&str],
    range: std::ops::Range<usize>,
    name: &str,
) -> Option<(usize, std::ops::Range<usize>)> {
    let content = || range.clone().filter(|&index| !is_blank(lines[index]));
    let level = content().map(|index| indent(lines[index])).min()?;
    let is_it = |index: &usize| {
        let key = lines[*index].trim_start_matches([' ', '-']).trim_start_matches(['"', '\'']);
        indent(lines[*index]) == level
            && key
                .strip_prefix(name)
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
    };
    let line = content().find(is_it)?;
    let end = content()
        .find(|&index| index > line && indent(lines[index]) <= level && !is_item_of(lines, line, index))
        .unwrap_or(range.end);
    Some((line, line + 1..end))
}

/// A list may stand as far left as the key that it belongs to.
fn is_item_of(lines: &[&str], key: usize, index: usize) -> bool {
    let left = |line: &str| line.len() - line.trim_start().len();
    lines[index].trim_start().starts_with("- ") && left(lines[index]) >= left(lines[key])
}

fn item(
    lines: &[&str],
    range: std::ops::Range<usize>,
    number: usize,
) -> Option<(usize, std::ops::Range<usize>)> {
    let left = |index: usize| lines[index].len() - lines[index].trim_start().len();
    let is_dash = |index: &usize| lines[*index].trim_start().starts_with('-');
    let level = range.clone().filter(is_dash).map(left).min()?;
    let mut items = range.clone().filter(|index| is_dash(index) && left(*index) == level);
    let line = items.nth(number)?;
    let end = items.next().unwrap_or(range.end);
    Some((line, line..end))
}

#[cfg(test)]
mod tests;
