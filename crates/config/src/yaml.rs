//! Reads files of YAML documents into objects.
//!
//! Every problem names the file, the line and the field. A document that
//! cannot be used does not keep the others of its file from being read; what to
//! do about it is the caller's decision.

pub(crate) mod content;
mod oneof;
mod tree;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::kind::{Found, metadata};
use crate::validate::{Checker, Finding, is_dns_label, is_dns_subdomain, nearest};
use crate::{Key, Kind, Meta, Object, Position, Problem, Severity, Spec};
use content::ReadError;
pub use tree::Lines;
use tree::Located;

/// Largest file that is read.
pub const MAX_FILE: usize = 32 * 1024 * 1024;
const MAX_DOCUMENTS: usize = 100_000;

/// What is said of a field inside an object that its kind does not have.
pub const NO_SUCH_FIELD: &str = "no such field; it has no effect";

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Objects that can be used, in order of appearance.
    pub objects: Vec<Object>,
    /// What is wrong; with an error the file is not as its author meant it.
    pub problems: Vec<Problem>,
    /// Whether something does not fit into the type of its kind at all.
    pub is_unreadable: bool,
}

impl Contents {
    /// Whether something could not be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    metadata: Meta,
}

/// Reads a file's text; `file` is its name in problems.
#[must_use]
pub fn read(file: &str, text: &str) -> Contents {
    read_all(Reader::new(file.into(), false), text)
}

/// Reads a file's text and keeps objects that the rules of their kind refuse:
/// such may come from an API server without our webhook, and must do no harm.
#[must_use]
pub fn read_unchecked(file: &str, text: &str) -> Contents {
    read_all(Reader::new(file.into(), true), text)
}

/// Reads an object that an API server gave: it keeps what the rules of its kind
/// refuse, too. `source` stands before problems in place of a file.
#[must_use]
pub fn read_live(source: &Arc<str>, kind: Kind, value: Value) -> Contents {
    Reader::new(source.clone(), true).api_object(kind, value)
}

/// Reads an object that an API server asks about before it takes it. The API
/// server itself checks names, which may be missing still, and knows which
/// versions there are.
#[must_use]
pub fn read_asked(source: &Arc<str>, kind: Kind, value: Value) -> Contents {
    let mut reader = Reader::new(source.clone(), false);
    reader.has_checked_names = true;
    reader.api_object(kind, value)
}

/// Reads one document of a file as a value, with the lines of its fields.
///
/// # Errors
/// What makes it no YAML, with the line in the document if that is known.
pub fn document(text: &str) -> Result<(Value, Lines), (String, Option<usize>)> {
    let Located { value, lines } = tree::read(text).map_err(|error| {
        let line = error.location().and_then(|location| usize::try_from(location.line()).ok());
        (reason(&error.to_string()), line)
    })?;
    Ok((value, lines))
}

/// Reads what an object of a kind says, by no rule but those of its type. What
/// is null in it is taken out.
///
/// # Errors
/// The field that does not fit, and why.
pub fn spec(kind: Kind, object: &mut Value) -> Result<Spec, (String, String)> {
    drop_nulls(object);
    kind.read(object, &mut Vec::new()).map_err(|error| (error.field, error.message))
}

fn read_all(mut reader: Reader, text: &str) -> Contents {
    if text.len() > MAX_FILE {
        let message = format!("the file has {} bytes, more than the {MAX_FILE} allowed", text.len());
        reader.error(0, None, "", message);
        return reader.contents;
    }
    // Windows editors begin a file with a mark that says how it is encoded.
    for (count, (line, document)) in documents(text.trim_start_matches('\u{feff}')).enumerate() {
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
    let mut parts = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mark = line.trim_end();
        if mark == "---" || mark.starts_with("--- ") || mark == "..." {
            parts.push((first_line, &text[start..offset]));
            // What follows the mark on its line belongs to the document.
            start = offset + 3;
            first_line = number;
        }
        offset += line.len();
    }
    parts.push((first_line, &text[start..]));
    // Directives (`%YAML 1.2`) stand before the mark, and say nothing that matters here.
    let is_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with(['#', '%']);
    parts.into_iter().filter(move |(_, part)| part.lines().any(is_content))
}

struct Reader {
    file: Arc<str>,
    contents: Contents,
    keeps_refused: bool,
    /// Whether somebody else looks at names.
    has_checked_names: bool,
}

/// Where an object stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Lines of the file before the document.
    before: usize,
    lines: &'a Lines,
}

impl Place<'_> {
    fn line(self, field: &str) -> usize {
        self.before + self.lines.of(field)
    }
}

impl Reader {
    fn new(file: Arc<str>, keeps_refused: bool) -> Self {
        Self { file, contents: Contents::default(), keeps_refused, has_checked_names: false }
    }

    /// An object of a kind that is known already.
    fn api_object(mut self, kind: Kind, mut value: Value) -> Contents {
        // Lists of an API server leave the kind of their items out.
        if let Some(object) = value.as_object_mut() {
            let version = kind.versions().first().copied().unwrap_or_default();
            let group = kind.group();
            let api_version =
                if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            object.insert("apiVersion".into(), api_version.into());
            object.insert("kind".into(), kind.as_str().into());
        }
        self.object(Place { before: 0, lines: &Lines::default() }, value);
        self.contents
    }

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
        match tree::read(text) {
            Ok(Located { value, lines }) => self.object(Place { before, lines: &lines }, value),
            Err(error) => {
                let line = error.location().map_or(0, |location| before + location.line() as usize);
                self.error(line, None, "", format!("not YAML: {}", reason(&error.to_string())));
            }
        }
    }

    fn object(&mut self, place: Place<'_>, mut value: Value) {
        let start = place.line("");
        if value.is_null() {
            return;
        }
        if !value.is_object() {
            return self.error(start, None, "", "is no object: expected apiVersion, kind and so on".into());
        }
        let word = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        if let Some(of) = kind.strip_suffix("List") {
            match value.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => return self.list(place, &api_version, of, items),
                _ if of.is_empty() => {
                    return self.error(start, None, "items", "is missing: a List has items".into());
                }
                _ => {}
            }
        }
        drop_nulls(&mut value);
        let header: Header = match content::whole(&value, &mut Vec::new()) {
            Ok(header) => header,
            Err(ReadError { field, message }) => {
                self.contents.is_unreadable = true;
                return self.error(place.line(&field), None, &field, message);
            }
        };
        let (Some(api_version), Some(kind)) = (&header.api_version, &header.kind) else {
            let missing = if header.kind.is_none() { "kind" } else { "apiVersion" };
            let message = "is missing: every object needs apiVersion and kind";
            return self.error(start, None, missing, message.into());
        };
        let kind = match Kind::find(api_version, kind) {
            Found::Kind(kind) => kind,
            // Deployments and the like may lie in the same files.
            Found::Foreign => return,
            Found::Problem { severity, field, message } => {
                return self.problem(severity, place.line(field), None, field, message);
            }
        };
        let mut meta = header.metadata;
        if !kind.is_namespaced() {
            meta.namespace.clear();
        } else if meta.namespace.is_empty() {
            meta.namespace = "default".into();
        }
        if let Err((field, message)) = check_names(kind, &meta)
            && !self.has_checked_names
        {
            return self.error(place.line(field), None, field, message);
        }
        let key = Key { kind, namespace: meta.namespace.as_str().into(), name: meta.name.as_str().into() };
        self.content(place, &value, key, meta);
    }

    /// The items of a list, which may leave their kind to it.
    fn list(&mut self, place: Place<'_>, api_version: &str, of: &str, items: Vec<Value>) {
        for (index, mut item) in items.into_iter().enumerate() {
            let Some(lines) = place.lines.item("items", index) else { continue };
            if let Some(item) = item.as_object_mut().filter(|_| !of.is_empty()) {
                item.entry("apiVersion").or_insert_with(|| api_version.into());
                item.entry("kind").or_insert_with(|| of.into());
            }
            self.object(Place { lines, ..place }, item);
        }
    }

    fn content(&mut self, place: Place<'_>, value: &Value, key: Key, meta: Meta) {
        let kind = key.kind;
        let mut failed = false;
        let mut unknown = Vec::new();
        let spec = match kind.read(value, &mut unknown) {
            Ok(spec) => spec,
            Err(ReadError { field, message }) => {
                self.contents.is_unreadable = true;
                return self.error(place.line(&field), Some(key), &field, message);
            }
        };
        for (field, hint) in top_level(kind, value) {
            // As Istio has it: what stands beside `spec` was meant to be in force.
            let severity = if kind.is_istio() { Severity::Error } else { Severity::Warning };
            failed |= kind.is_istio();
            let message = format!("no such field{hint}");
            self.problem(severity, place.line(&field), Some(key.clone()), &field, message);
        }
        for field in unknown.into_iter().filter(|field| kind.is_told_when_unknown(field)) {
            let message = NO_SUCH_FIELD.to_owned();
            self.problem(Severity::Warning, place.line(&field), Some(key.clone()), &field, message);
        }
        let mut checker = Checker::default();
        spec.check(&mut checker);
        failed |= checker.has_errors();
        for finding in checker.findings {
            let field = match (kind.is_in_spec(), finding.field.as_str()) {
                (false, field) => field.to_owned(),
                (true, "") => "spec".to_owned(),
                (true, field) => format!("spec.{field}"),
            };
            self.problem(finding.severity, place.line(&field), Some(key.clone()), &field, finding.message);
        }
        if kind.is_istio() {
            let mut checker = Checker::default();
            metadata::check(value, &meta, &spec, &mut checker);
            failed |= checker.has_errors();
            for Finding { severity, field, message } in checker.findings {
                self.problem(severity, place.line(&field), Some(key.clone()), &field, message);
            }
        }
        if !failed || self.keeps_refused {
            let position = Position { file: self.file.clone(), line: place.line("") };
            self.contents.objects.push(Object { key, meta, spec, position });
        }
    }
}

/// Names as the API server allows them; others do not fit into those of Envoy's
/// resources.
fn check_names(kind: Kind, meta: &Meta) -> Result<(), (&'static str, String)> {
    if meta.name.is_empty() {
        return Err(("metadata.name", format!("is missing: every {kind} needs a name")));
    }
    if !is_dns_subdomain(&meta.name) || kind == Kind::Service && !is_dns_label(&meta.name) {
        let expected = "expected lower-case letters, digits and hyphens, such as reviews-v1";
        return Err(("metadata.name", format!("{:?} is not a name: {expected}", meta.name)));
    }
    if kind.is_namespaced() && !is_dns_label(&meta.namespace) {
        let expected = "expected lower-case letters, digits and hyphens";
        return Err(("metadata.namespace", format!("{:?} is not a namespace: {expected}", meta.namespace)));
    }
    Ok(())
}

/// Fields of the object itself, and of its metadata, that do not exist, each
/// with a hint of what may have been meant.
fn top_level(kind: Kind, value: &Value) -> Vec<(String, String)> {
    const HEADER: [&str; 3] = ["apiVersion", "kind", "metadata"];
    const METADATA: [&str; 15] = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "creationTimestamp",
        "ownerReferences",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "managedFields",
        "finalizers",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ];
    let fields: Vec<&str> = HEADER.iter().chain(kind.fields()).copied().collect();
    let mut unknown = Vec::new();
    for (at, content, known) in
        [("", Some(value), &fields[..]), ("metadata.", value.get("metadata"), &METADATA)]
    {
        for name in content.and_then(Value::as_object).into_iter().flat_map(|map| map.keys()) {
            if !known.contains(&name.as_str()) {
                let hint = nearest(name, known.iter().copied())
                    .map_or_else(|| "; remove it".to_owned(), |near| format!(": did you mean {near}?"));
                unknown.push((format!("{at}{name}"), hint));
            }
        }
    }
    unknown
}

/// Takes out fields that are null, which is how some tools write absent ones.
/// In maps of strings null is an empty string, as the API server reads it.
pub fn drop_nulls(object: &mut Value) {
    for pointer in ["/metadata/labels", "/metadata/annotations", "/spec/selector"] {
        let map = object.pointer_mut(pointer).and_then(Value::as_object_mut);
        for value in map.into_iter().flat_map(|map| map.values_mut()).filter(|value| value.is_null()) {
            *value = Value::String(String::new());
        }
    }
    drop_inner_nulls(object);
}

fn drop_inner_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_inner_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_inner_nulls),
        _ => {}
    }
}

/// The reason without the place, which counts lines from the start of the document.
fn reason(text: &str) -> String {
    let line = text.lines().next().unwrap_or(text);
    let line = [" at line ", ", set DuplicateKeyPolicy"]
        .iter()
        .fold(line, |line, end| line.split(end).next().unwrap_or(line));
    if line.contains("budget") || line.contains("replay") {
        return format!("{line}: it is nested too deeply, or aliases make it too large");
    }
    line.to_owned()
}

#[cfg(test)]
mod tests;
