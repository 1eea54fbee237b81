//! Levels by scope.

use std::collections::BTreeMap;
use std::str::FromStr;

use tracing::Metadata;

/// Crates of the mesh; what others log is shown from `warn` on only.
const OURS: [&str; 12] = [
    "istio_", "istiod", "istioctl", "names", "runtime", "pki", "xds", "mesh", "config", "pilot", "source",
    "proto",
];

/// How much to log. `fatal` shows nothing but what ends the program, which is
/// logged as an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Only what ends the program.
    Fatal,
    /// What failed.
    Error,
    /// What may fail.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
}

/// The text names no level or is no list of `SCOPE:LEVEL`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("log level {0:?}: expected SCOPE:LEVEL,... with a level of debug, info, warn, error, fatal, none")]
pub struct ParseError(String);

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(match text {
            "none" => Self::None,
            "fatal" => Self::Fatal,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return Err(ParseError(text.into())),
        })
    }
}

/// The level of each scope.
#[derive(Clone, Debug)]
pub struct Levels {
    default: Level,
    scopes: BTreeMap<String, Level>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { default: Level::Info, scopes: BTreeMap::new() }
    }
}

impl FromStr for Levels {
    type Err = ParseError;

    /// Reads `default:info,ads:debug`; a level alone is that of all scopes.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut levels = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (scope, level) = part.split_once(':').unwrap_or(("default", part));
            levels.set(scope, level.parse().map_err(|_| ParseError(part.into()))?);
        }
        Ok(levels)
    }
}

impl Levels {
    /// Sets the level of a scope; `default` and `all` are those without one of their own.
    pub fn set(&mut self, scope: &str, level: Level) {
        match scope {
            "default" => self.default = level,
            "all" => {
                self.default = level;
                self.scopes.clear();
            }
            _ => {
                self.scopes.insert(scope.into(), level);
            }
        }
    }

    pub(super) fn allow(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = match *metadata.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => return false,
        };
        let level = match scope(metadata.target()) {
            Some(scope) => self.scopes.get(scope).copied().unwrap_or(self.default),
            None if OURS.iter().any(|name| metadata.target().starts_with(name)) => self.default,
            None => self.default.min(Level::Warn),
        };
        wanted <= level
    }
}

/// The scope that a target names; `None` for a module path.
pub(super) fn scope(target: &str) -> Option<&str> {
    let is_path = target.contains("::") || OURS.iter().any(|name| target.starts_with(name));
    (!is_path && !matches!(target, "h2" | "hyper" | "tonic" | "rustls" | "tower" | "log")).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_levels_by_scope() {
        let levels: Levels = "default:warn,ads:debug".parse().unwrap();
        assert_eq!((levels.default, levels.scopes["ads"]), (Level::Warn, Level::Debug));
        assert_eq!("debug".parse::<Levels>().unwrap().default, Level::Debug);
        let error = "ads:loud".parse::<Levels>().unwrap_err().to_string();
        assert!(error.contains("\"ads:loud\""), "{error}");
    }

    #[test]
    fn tells_scopes_from_modules() {
        assert_eq!(scope("ads"), Some("ads"));
        assert_eq!(scope("istiod::app"), None);
        assert_eq!(scope("istiod"), None);
        assert_eq!(scope("h2::codec"), None);
    }
}
