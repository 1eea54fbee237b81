//! Texts of several lines: logs, files of settings, pages that are no JSON.

use std::sync::LazyLock;

use regex::Regex;

use super::names::{is_naming, is_secret, is_setting, is_value};
use super::{ENVIRONMENTS, REMOVED, pattern, text};

/// A field of YAML or JSON on a line of its own: what is before its value, its name,
/// and the value.
static FIELD: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"^([ \t]*(?:- +)*["']?([A-Za-z0-9_.-]+)["']?[ \t]*:(?:[ \t]+|$))(.*)$"#));
/// The last flag of a command line that is a list: its value is the next item.
static FLAG: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"^[ \t]*(?:- +)?["']?--?([A-Za-z0-9_.-]+)["']?,?[ \t]*$"#));
/// An item of a list.
static ITEM: LazyLock<Regex> = LazyLock::new(|| pattern(r#"^([ \t]*(?:- +)?)["']?[^-"' \t]"#));
/// Fields that name what their neighbors are of.
const NAMED: [&str; 4] = ["name", "key", "header", "headerName"];
/// Fields with values of anything, in Secrets and ConfigMaps.
const DATA: [&str; 3] = ["binaryData", "data", "stringData"];

/// What the lines before one tell of it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// How deep the name is below which all is secret.
    secret: Option<usize>,
    /// How deep the name is below which there are variables.
    variables: Option<usize>,
    /// Whether what was named last is secret.
    is_named: bool,
    /// Whether the last line was a flag whose value is secret.
    is_flag: bool,
}

impl Lines {
    /// A line in the place of one whose secret the lines before it tell; `None` for
    /// all others.
    pub(super) fn take(&mut self, line: &str) -> Option<String> {
        let depth = line.len() - line.trim_start_matches([' ', '\t']).len();
        let said = line.trim();
        let is_below =
            |block: &usize| depth > *block || depth == *block && said.starts_with("- ") || said.is_empty();
        if let Some(block) = self.secret {
            if is_below(&block) {
                return Some(below(line, depth));
            }
            self.secret = None;
        }
        self.variables = self.variables.filter(is_below);
        if std::mem::take(&mut self.is_flag)
            && let Some(item) = ITEM.captures(line)
        {
            return Some(format!("{}{REMOVED}", &item[1]));
        }
        self.is_flag = FLAG.captures(line).is_some_and(|flag| is_secret(&flag[1]));
        let field = FIELD.captures(line)?;
        self.field(&field[2], field[3].trim(), depth).then(|| format!("{}{REMOVED}", &field[1]))
    }

    /// Takes a field; whether its value is secret by what was said before.
    fn field(&mut self, name: &str, value: &str, depth: usize) -> bool {
        let is_open = value.is_empty() || value.chars().all(|letter| "|>+-[{(".contains(letter));
        let is_variable = self.variables.is_some() && !NAMED.contains(&name) && !is_value(name);
        let is_unknown = is_variable && name == name.to_ascii_uppercase() && !is_setting(name);
        let is_of_named = self.is_named && is_value(name);
        if is_open {
            if is_secret(name) || DATA.contains(&name) || is_of_named || is_unknown {
                self.secret = Some(depth);
            } else if ENVIRONMENTS.contains(&name) {
                self.variables = Some(depth);
            }
            // Envoy's list of users, in a source of data.
            self.is_named = name == "users";
            return false;
        }
        if NAMED.contains(&name) {
            let called = value.trim_matches(['"', '\'', ',']);
            if name == "key" && self.is_named && !is_secret(called) {
                return true;
            }
            self.is_named = is_secret(called) || self.variables.is_some() && !is_setting(called);
            return false;
        }
        is_of_named || is_unknown
    }
}

/// A line below a name that is secret.
fn below(line: &str, depth: usize) -> String {
    if line.trim().chars().all(|letter| "[]{}(),".contains(letter)) {
        return line.to_owned();
    }
    match FIELD.captures(line) {
        Some(field) if field[3].trim().is_empty() => line.to_owned(),
        Some(field) if is_naming(&field[2]) => text::line(line),
        Some(field) => format!("{}{REMOVED}", &field[1]),
        None => format!("{}{REMOVED}", &line[..depth]),
    }
}
