//! What is secret is taken out of whatever is in the report: keys, tokens, passwords,
//! wherever they stand.
//!
//! What can be parsed is cleaned by what it is and by its names, and so are JSON and
//! YAML inside of its texts. Below the name of a secret nothing stays but what names
//! something. The rest is text: it is cleaned line by line, by the same names and by
//! what keys and tokens look like.

mod encoded;
mod kubernetes;
mod lines;
mod names;
mod text;

use regex::Regex;
use serde_json::Value;

use crate::render::yaml;
use lines::Lines;

/// Stands in the place of what was taken out.
pub(super) const REMOVED: &str = "[redacted]";
/// In the place of a file that has Secrets and cannot be read.
const UNREADABLE: &str =
    "# [redacted]: this document seems to have a Secret or a ConfigMap, and cannot be read: it is left out\n";
/// So deep may texts be inside of texts.
const DEEPEST: usize = 6;
/// How often what is read of a line in vain may be as long as the line.
const BUDGET: usize = 4;
/// Names of maps of variables.
const ENVIRONMENTS: [&str; 6] =
    ["env", "envVars", "extraEnv", "extraEnvVars", "proxyMetadata", "proxy_metadata"];
/// Fields of Envoy's data sources that hold what they are of.
const INLINE: [&str; 4] = ["inline_string", "inlineString", "inline_bytes", "inlineBytes"];
/// Fields that name what the other fields of an object are of.
const NAMED: [&str; 5] = ["name", "key", "headerName", "header_name", "header"];
/// Members of a JSON web key that are not public.
const PRIVATE: [&str; 8] = ["k", "d", "p", "q", "dp", "dq", "qi", "oth"];
/// Flags that take `USER:PASSWORD`.
const USERS: [&str; 4] = ["-u", "--user", "--proxy-user", "-U"];
/// Values of any name that are none, or say only what follows.
const WORDS: [&str; 6] = ["", "bearer", "basic", "digest", "negotiate", "apikey"];

/// A pattern that is known to be one.
#[expect(clippy::expect_used, reason = "the patterns are constant")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is constant")
}

/// Takes out what is secret.
#[derive(Clone, Debug)]
pub(super) struct Redactor {
    /// Namespace of the control plane, whose settings are in the report; without it
    /// nothing is taken out.
    istio: Option<String>,
}

impl Redactor {
    /// One that knows which ConfigMaps are those of the control plane in a namespace.
    pub(super) fn new(istio: &str) -> Self {
        Self { istio: Some(istio.to_owned()) }
    }

    /// One that leaves everything as it is.
    pub(super) const fn off() -> Self {
        Self { istio: None }
    }

    /// Whether it leaves everything as it is.
    pub(super) const fn is_off(&self) -> bool {
        self.istio.is_none()
    }

    /// A page or a log.
    pub(super) fn text(&self, text: &str) -> String {
        if self.is_off() {
            return text.to_owned();
        }
        if text.trim_start().starts_with(['{', '['])
            && let Ok(mut value) = serde_json::from_str(text)
        {
            self.open(&mut value, "", 0);
            return format!("{value:#}\n");
        }
        self.running(text, 0)
    }

    /// An object.
    pub(super) fn object(&self, object: &mut Value) {
        if !self.is_off() {
            self.open(object, "", 0);
        }
    }

    /// A Secret of Kubernetes, whatever its kind says: what it is called, and what it has.
    pub(super) fn secret(&self, object: &mut Value) {
        if !self.is_off()
            && let Some(fields) = object.as_object_mut()
        {
            self.secret_object(fields, 0);
        }
    }

    /// A file of objects in YAML or JSON, one by one; what cannot be read as text.
    pub(super) fn documents(&self, text: &str) -> String {
        if self.is_off() {
            return text.to_owned();
        }
        let mut all = Vec::new();
        for document in text.split("\n---") {
            match serde_saphyr::from_str::<Value>(document) {
                Ok(Value::Null) => {}
                Ok(mut value) => {
                    self.open(&mut value, "", 0);
                    all.push(rendered(&value));
                }
                Err(_) if kubernetes::is_about_secrets(document) => all.push(UNREADABLE.to_owned()),
                Err(_) => all.push(self.running(document, 0)),
            }
        }
        all.join("---\n")
    }

    /// Text that is read line by line; some of them may be JSON.
    fn running(&self, text: &str, depth: usize) -> String {
        let is_clean = |inner: &str| {
            depth < DEEPEST && {
                let (inner, clean) = (inner.trim(), self.string(inner, depth + 1));
                // What is only written another way is the same.
                clean.trim() == inner || !clean.contains(REMOVED)
            }
        };
        let text = encoded::clean(text, &is_clean);
        if !text.contains('\n') {
            let mut clean = String::with_capacity(text.len());
            self.line(&text, depth, &mut clean);
            return clean;
        }
        let mut lines = Lines::default();
        let mut clean = String::with_capacity(text.len());
        for whole in text.split_inclusive('\n') {
            let line = whole.strip_suffix('\n').unwrap_or(whole);
            match lines.take(line) {
                Some(line) => clean += &line,
                None => self.line(line, depth, &mut clean),
            }
            clean += &whole[line.len()..];
        }
        clean
    }

    /// A line: what is JSON in it is cleaned as such.
    fn line(&self, line: &str, depth: usize, clean: &mut String) {
        let (mut from, mut at) = (0, 0);
        // What was cut ends nowhere: it is not read again from each of its brackets.
        let mut budget = BUDGET.saturating_mul(line.len());
        while let Some(found) = line[at..].find(['{', '[']) {
            let begin = at + found;
            at = begin + 1;
            if !line[at..].trim_start().starts_with(['"', '{', '[']) || depth >= DEEPEST || budget == 0 {
                continue;
            }
            let mut values = serde_json::Deserializer::from_str(&line[begin..]).into_iter::<Value>();
            let mut value = match values.next() {
                Some(Ok(value)) => value,
                Some(Err(error)) => {
                    budget = budget.saturating_sub(error.column());
                    continue;
                }
                None => continue,
            };
            let before = &line[from..begin];
            *clean += &text::line(before);
            if text::awaits_secret(before) {
                self.seal(&mut value, "", depth + 1);
            } else {
                self.open(&mut value, "", depth + 1);
            }
            *clean += &value.to_string();
            at = begin + values.byte_offset();
            from = at;
        }
        *clean += &text::line(&line[from..]);
    }

    /// A text inside of something: JSON and YAML in it are cleaned as such.
    fn string(&self, said: &str, depth: usize) -> String {
        let trimmed = said.trim();
        if trimmed.is_empty() {
            return said.to_owned();
        }
        if encoded::is_packed(trimmed) || depth >= DEEPEST && is_structure(trimmed) {
            return REMOVED.to_owned();
        }
        if trimmed.starts_with(['{', '['])
            && let Ok(mut value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(trimmed)
        {
            self.open(&mut value, "", depth + 1);
            return if trimmed.contains('\n') { format!("{value:#}") } else { value.to_string() };
        }
        if is_structure(trimmed) {
            match serde_saphyr::from_multiple::<Value>(said) {
                Ok(mut values) if values.iter().all(|value| value.is_object() || value.is_array()) => {
                    let before = values.clone();
                    values.iter_mut().for_each(|value| self.open(value, "", depth + 1));
                    if values != before {
                        return values.iter().map(rendered).collect::<Vec<_>>().join("---\n");
                    }
                    // What has no secret keeps its form.
                    return if values.is_empty() { self.running(said, depth) } else { commented(said) };
                }
                Err(_) if kubernetes::is_about_secrets(said) => return REMOVED.to_owned(),
                _ => {}
            }
        }
        self.running(said, depth)
    }

    /// A value in a field, or in an array of it.
    fn open(&self, value: &mut Value, field: &str, depth: usize) {
        match value {
            Value::Object(fields) => self.fields(fields, field, depth),
            Value::Array(items) => {
                let is_environment = ENVIRONMENTS.contains(&field);
                if is_environment {
                    items.iter_mut().for_each(variable);
                }
                arguments(items);
                let field = if is_environment { "" } else { field };
                items.iter_mut().for_each(|item| self.open(item, field, depth));
            }
            Value::String(said) if field == "auth" && !said.is_empty() => REMOVED.clone_into(said),
            Value::String(said) => *said = self.string(said, depth),
            _ => {}
        }
    }

    fn fields(&self, fields: &mut serde_json::Map<String, Value>, field: &str, depth: usize) {
        self.kubernetes(fields, field);
        if kubernetes::is_secret(fields) {
            return self.secret_object(fields, depth);
        }
        if kubernetes::is_config_map(fields) {
            return self.config_map(fields, depth);
        }
        self.rename(fields, depth);
        if fields.get("kty").is_some_and(Value::is_string) {
            fields
                .iter_mut()
                .filter(|(name, _)| PRIVATE.contains(&name.as_str()))
                .for_each(|(_, value)| hide(value));
        }
        if ENVIRONMENTS.contains(&field) {
            let others = fields.iter_mut().filter(|(name, _)| !names::is_setting(name));
            others.for_each(|(_, value)| hide_variable(value));
        }
        // `{name: x-api-key, string_match: {exact: x}}`, `{key: authorization, value: x}`.
        let says_name = |name: &str| fields.get(name).and_then(Value::as_str).is_some_and(names::is_secret);
        let is_named = !field.ends_with("Ref") && NAMED.iter().any(|name| says_name(name));
        let is_thing = is_named && fields.keys().any(|name| names::is_of_thing(name));
        for (name, value) in fields {
            let name = name.as_str();
            let is_count = value.is_number() && names::is_plural(name);
            // `{name: x-api-key, key: x}`.
            let is_name = NAMED.contains(&name)
                && (name != "key" || is_thing || value.as_str().is_none_or(names::is_secret));
            let is_of_named = is_named && !is_name && (!is_thing || names::is_value(name));
            let is_users = name == "users"
                && value
                    .as_object()
                    .is_some_and(|source| INLINE.iter().any(|name| source.contains_key(*name)));
            if is_users || (names::is_secret(name) && !is_envoy(value) || is_of_named) && !is_count {
                if names::is_naming(name) || names::is_public(name) {
                    self.open(value, name, depth);
                } else {
                    self.seal(value, name, depth);
                }
            } else {
                self.open(value, name, depth);
            }
        }
    }

    /// What is below the name of a secret: nothing stays but what names something.
    fn seal(&self, value: &mut Value, field: &str, depth: usize) {
        match value {
            Value::Object(fields) => {
                self.rename(fields, depth);
                // Which part of a Secret is in which file.
                let is_item = field == "items" && fields.contains_key("path");
                for (name, value) in fields {
                    let is_leaf = !value.is_object() && !value.is_array();
                    let is_readable = names::is_naming(name) || is_item && name == "key";
                    if names::is_public(name) || is_envoy(value) || is_readable && is_leaf {
                        self.open(value, name, depth);
                    } else {
                        self.seal(value, name, depth);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.seal(item, field, depth)),
            other => hide(other),
        }
    }

    /// Names that are secrets themselves.
    fn rename(&self, fields: &mut serde_json::Map<String, Value>, depth: usize) {
        let may_be_secret = |name: &&String| name.len() >= 16 || name.contains([':', '=', '@', ' ', '?']);
        let changed: Vec<(String, String)> = fields
            .keys()
            .filter(may_be_secret)
            .map(|name| (name.clone(), self.running(name, depth)))
            .filter(|(name, clean)| name != clean)
            .collect();
        for (name, mut clean) in changed {
            if let Some(value) = fields.remove(&name) {
                while fields.contains_key(&clean) {
                    clean.push('+');
                }
                fields.insert(clean, value);
            }
        }
    }
}

/// A text that is hidden, unless it says nothing.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if WORDS.contains(&text.trim().to_ascii_lowercase().as_str()) => {}
        Value::String(text) => REMOVED.clone_into(text),
        Value::Number(_) => *value = REMOVED.into(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, value)| hide(value)),
        Value::Bool(_) | Value::Null => {}
    }
}

/// The value of a variable of which nothing is known.
fn hide_variable(value: &mut Value) {
    let is_switch = value.as_str().is_some_and(|text| ["true", "false"].contains(&text));
    // What names where the value is, is an object.
    if !is_switch && !value.is_object() {
        hide(value);
    }
}

/// A variable of a container.
fn variable(item: &mut Value) {
    let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
    if names::is_setting(name) {
        return;
    }
    match item {
        Value::Object(fields) => {
            if let Some(value) = fields.get_mut("value") {
                hide_variable(value);
            }
        }
        // `NAME=VALUE`.
        Value::String(text) => {
            if let Some((name, value)) = text.split_once('=')
                && !names::is_setting(name)
                && !value.is_empty()
            {
                *text = format!("{name}={REMOVED}");
            }
        }
        _ => {}
    }
}

/// Arguments of a command line, one of which may be the value of the one before.
fn arguments(items: &mut [Value]) {
    let mut is_next = false;
    let mut is_user = false;
    for item in items {
        let Value::String(said) = item else {
            is_next = false;
            continue;
        };
        let is_flag = said.starts_with('-');
        if is_next && !said.starts_with("--") || is_user && said.contains(':') {
            REMOVED.clone_into(said);
            (is_next, is_user) = (false, false);
            continue;
        }
        is_user = USERS.contains(&said.as_str());
        is_next = false;
        let bare = said.trim_start_matches('-');
        match bare.split_once('=') {
            Some((name, value))
                if !value.is_empty() && names::is_secret(name) && !name.contains(char::is_whitespace) =>
            {
                let dashes = &said[..said.len() - bare.len()];
                *said = format!("{dashes}{name}={REMOVED}");
            }
            None => is_next = is_flag && names::is_secret(bare),
            _ => {}
        }
    }
}

/// Whether it is a Secret of Envoy: its fields tell what is secret in it.
fn is_envoy(value: &Value) -> bool {
    value.get("@type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with(".Secret"))
}

/// Whether a text may be YAML that has fields.
fn is_structure(text: &str) -> bool {
    text.starts_with(['{', '[']) || text.contains('\n') && (text.contains(": ") || text.contains(":\n"))
}

/// YAML of which only the comments can have a secret.
fn commented(said: &str) -> String {
    let clean = |line: &str| match line.split_once('#') {
        Some((before, comment)) => format!("{before}#{}", text::line(comment)),
        None => line.to_owned(),
    };
    said.split_inclusive('\n').map(clean).collect()
}

fn rendered(value: &Value) -> String {
    let json = value.to_string();
    serde_json::from_str(&json).map_or(json.clone(), |value| yaml::render(&value))
}

#[cfg(test)]
mod tests;
