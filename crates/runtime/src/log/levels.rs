//! Levels by scope.

use std::collections::BTreeMap;
use std::str::FromStr;

use tracing::Metadata;
use tracing::level_filters::LevelFilter;

/// Crates of the mesh; what others log is shown from `warn` on only.
const OURS: [&str; 11] =
    ["istiod", "istioctl", "names", "runtime", "pki", "xds", "mesh", "config", "pilot", "source", "proto"];
/// The names of the others begin so.
const OURS_BEGIN: &str = "istio_";

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

/// Scope of what names none.
pub(super) const DEFAULT: &str = "default";
/// Stands for every scope.
pub(super) const ALL: &str = "all";
/// Scope of the libraries that speak HTTP/2 and gRPC.
const GRPC: &str = "grpc";
/// Scope of what istiod and istioctl have to do with an API server.
const KUBE: &str = "kube";

impl Level {
    /// Its name, as it is given.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The level of each scope: `info` unless told otherwise. The level of `default`
/// is only that of lines without a scope, as in Istio.
#[derive(Clone, Debug)]
pub struct Levels {
    others: Level,
    scopes: BTreeMap<String, Level>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { others: Level::Info, scopes: BTreeMap::new() }
    }
}

impl FromStr for Levels {
    type Err = ParseError;

    /// Reads `default:info,ads:debug`; a level alone is that of `default`, and
    /// `all` stands for every scope.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut levels = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (scope, level) = part.split_once(':').unwrap_or((DEFAULT, part));
            levels.set(scope, level.parse().map_err(|_| ParseError(part.into()))?);
        }
        Ok(levels)
    }
}

impl Levels {
    /// Sets the level of a scope, or with `all` that of every scope.
    pub fn set(&mut self, scope: &str, level: Level) {
        if scope == ALL {
            self.others = level;
            self.scopes.clear();
        } else {
            self.scopes.insert(scope.into(), level);
        }
    }

    /// The level of a scope.
    #[must_use]
    pub fn of(&self, scope: &str) -> Level {
        self.scopes.get(scope).copied().unwrap_or(self.others)
    }

    /// The most that any scope shows.
    pub(super) fn most(&self) -> LevelFilter {
        match self.scopes.values().copied().fold(self.others, Level::max) {
            Level::None => LevelFilter::OFF,
            Level::Fatal | Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
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
            Some(scope) => self.of(scope),
            None if is_ours(metadata.target()) => self.of(DEFAULT),
            // It calls an error what its callers repeat, and tell once.
            None if metadata.target().starts_with("kube_") => return self.of(KUBE) == Level::Debug,
            None => self.scopes.get(GRPC).copied().unwrap_or(self.of(DEFAULT).min(Level::Warn)),
        };
        wanted <= level
    }
}

/// Whether a target is a path in one of this project's crates.
fn is_ours(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    OURS.contains(&root) || root.starts_with(OURS_BEGIN)
}

/// The scope that a target names; `None` for a module path.
pub(super) fn scope(target: &str) -> Option<&str> {
    let is_path = target.contains("::") || is_ours(target);
    (!is_path && !matches!(target, "h2" | "hyper" | "tonic" | "rustls" | "tower" | "log")).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_levels_by_scope() {
        let levels: Levels = "default:warn,ads:debug".parse().unwrap();
        assert_eq!((levels.of("default"), levels.of("ads")), (Level::Warn, Level::Debug));
        assert_eq!(levels.of("sds"), Level::Info, "others are not touched by default");
        assert_eq!(levels.most(), LevelFilter::DEBUG);
        assert_eq!("debug".parse::<Levels>().unwrap().of("default"), Level::Debug);
        let levels: Levels = "ads:debug,all:none,sds:error".parse().unwrap();
        assert_eq!((levels.of("ads"), levels.of("sds")), (Level::None, Level::Error));
        assert_eq!(levels.most(), LevelFilter::ERROR);
        let error = "ads:loud".parse::<Levels>().unwrap_err().to_string();
        assert!(error.contains("\"ads:loud\""), "{error}");
    }

    #[test]
    fn tells_scopes_from_modules() {
        assert_eq!(scope("ads"), Some("ads"));
        assert_eq!(scope("xdsproxy"), Some("xdsproxy"), "not the crate that it begins with");
        assert_eq!((scope("xds::frame"), scope("istio_agent")), (None, None));
        assert_eq!(scope("istiod::app"), None);
        assert_eq!(scope("istiod"), None);
        assert_eq!(scope("h2::codec"), None);
    }
}
