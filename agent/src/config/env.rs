//! The environment: every variable that the agent reads, in one table
//! (`env/table.rs`), read once. `proxyMetadata` of the ProxyConfig fills in what is not set.

pub mod help;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use table::*;

/// Variables of the process at its start.
#[must_use]
pub fn snapshot() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A variable: name, default, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Value when it is not set.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// Prefix of variables that become node metadata.
pub const META: &str = "ISTIO_META_";
/// Prefix of variables that hold JSON objects for the node metadata.
pub const META_JSON: &str = "ISTIO_METAJSON_";
/// Prefix of variables that become headers of calls to the CA.
pub const CA_HEADER: &str = "CA_HEADER_";
/// Prefix of variables that become headers of xDS streams.
pub const XDS_HEADER: &str = "XDS_HEADER_";

/// Reads variables and remembers every error.
#[derive(Debug)]
pub struct Reader<'a> {
    env: &'a BTreeMap<String, String>,
    metadata: &'a BTreeMap<String, String>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of `env`, with `metadata` for what is not set there.
    #[must_use]
    pub fn new(env: &'a BTreeMap<String, String>, metadata: &'a BTreeMap<String, String>) -> Self {
        Self { env, metadata, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The errors so far.
    #[must_use]
    pub fn into_errors(self) -> Vec<String> {
        self.errors
    }

    /// The text of a variable, or its default.
    #[must_use]
    pub fn text(&self, variable: Variable) -> &'a str {
        self.set(variable).unwrap_or(variable.default)
    }

    /// The text of a variable if it is set to something.
    #[must_use]
    pub fn set(&self, variable: Variable) -> Option<&'a str> {
        let value = self.env.get(variable.name).or_else(|| self.metadata.get(variable.name));
        value.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The text of a variable if it is set, even to nothing.
    #[must_use]
    pub fn given(&self, variable: Variable) -> Option<&'a str> {
        self.env.get(variable.name).or_else(|| self.metadata.get(variable.name)).map(String::as_str)
    }

    /// All variables with that prefix, without it; the environment wins.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (name, value) in self.metadata.iter().chain(self.env) {
            if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
                found.insert(rest.to_owned(), value.clone());
            }
        }
        found
    }

    /// Notes something that is worth knowing and keeps nothing from working.
    pub fn warning(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The warnings so far.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Notes an error of another source.
    pub fn error(&mut self, text: String) {
        self.errors.push(text);
    }

    /// The value of a variable; its default when it cannot be read, with an error noted.
    pub fn parse<T>(&mut self, variable: Variable, expected: &str) -> T
    where
        T: FromStr + Default,
    {
        self.parse_with(variable, expected, |text| text.parse().ok())
    }

    /// The same with a parser of one's own.
    pub fn parse_with<T: Default>(
        &mut self,
        variable: Variable,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let text = self.text(variable);
        if let Some(value) = parse(text) {
            return value;
        }
        self.invalid(variable, text, expected);
        parse(variable.default).unwrap_or_default()
    }

    /// Notes that a variable has an unusable value.
    pub fn invalid(&mut self, variable: Variable, value: &str, expected: impl fmt::Display) {
        let error = format!("{}={value:?}: expected {expected}", variable.name);
        // A variable that is read more than once is wrong once.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// A boolean.
    pub fn flag(&mut self, variable: Variable) -> bool {
        self.parse_with(variable, "true or false", |text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        })
    }

    /// A length of time.
    pub fn duration(&mut self, variable: Variable) -> Duration {
        self.parse_with(variable, "a duration such as 30s, 10m or 24h", |text| {
            text.parse::<proto::wkt::Duration>().ok()?.to_std()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn the_environment_wins_over_proxy_metadata() {
        let env = map(&[("SECRET_TTL", "1h"), ("ISTIO_META_A", "env")]);
        let metadata = map(&[
            ("SECRET_TTL", "2h"),
            ("TRUST_DOMAIN", "td"),
            ("ISTIO_META_A", "x"),
            ("ISTIO_META_B", "y"),
        ]);
        let mut reader = Reader::new(&env, &metadata);
        assert_eq!(reader.duration(SECRET_TTL), Duration::from_secs(3600));
        assert_eq!(reader.text(TRUST_DOMAIN), "td");
        assert_eq!(reader.text(POD_NAMESPACE), "default");
        assert_eq!(reader.with_prefix(META), map(&[("A", "env"), ("B", "y")]));
        assert!(reader.into_errors().is_empty());
    }

    #[test]
    fn errors_name_variable_value_and_fix() {
        let env = map(&[("SECRET_TTL", "soon"), ("DISABLE_ENVOY", "maybe")]);
        let none = BTreeMap::new();
        let mut reader = Reader::new(&env, &none);
        assert_eq!(reader.duration(SECRET_TTL), Duration::from_secs(86400));
        assert!(!reader.flag(DISABLE_ENVOY));
        let errors = reader.into_errors();
        assert_eq!(errors[0], "SECRET_TTL=\"soon\": expected a duration such as 30s, 10m or 24h");
        assert_eq!(errors[1], "DISABLE_ENVOY=\"maybe\": expected true or false");
    }

    #[test]
    fn every_default_is_readable() {
        let none = BTreeMap::new();
        let mut reader = Reader::new(&none, &none);
        for variable in [SECRET_TTL, MINIMUM_DRAIN_DURATION] {
            reader.duration(variable);
        }
        for variable in [ISTIO_DELTA_XDS, DISABLE_ENVOY, EXIT_ON_ZERO_ACTIVE_CONNECTIONS] {
            reader.flag(variable);
        }
        assert!(reader.into_errors().is_empty());
        let mut all = GROUPS.iter().flat_map(|group| group.variables);
        assert!(all.all(|variable| variable.doc.ends_with('.')));
    }
}
