//! `version`: in the forms that Istio's agent prints, for programs that read them.

use anyhow::bail;

use crate::config::ISTIO_VERSION;
use crate::config::args::Version;

/// What was built, and as which release of Istio it behaves.
#[derive(Clone, Copy, Debug)]
struct Build {
    /// Release of Istio.
    version: &'static str,
    /// Version of this program.
    revision: &'static str,
    /// Language, where Istio's has Go's version.
    language: &'static str,
}

const BUILD: Build = Build {
    version: ISTIO_VERSION,
    revision: concat!("istio-agent-", env!("CARGO_PKG_VERSION")),
    language: concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
};
/// What is not recorded, so that builds can be repeated.
const UNKNOWN: &str = "unknown";

/// Prints the version.
///
/// # Errors
/// When there is no such form, or it cannot be printed.
pub fn run(args: &Version) -> anyhow::Result<()> {
    super::print(text(args, BUILD)?.as_bytes())
}

fn text(args: &Version, build: Build) -> anyhow::Result<String> {
    let Build { version, revision, language } = build;
    Ok(match (args.output.as_str(), args.short) {
        ("", true) => format!("client version: {version}\n"),
        ("", false) => format!(
            "client version: version.BuildInfo{{Version:{version:?}, GitRevision:{revision:?}, \
             GolangVersion:{language:?}, BuildStatus:{UNKNOWN:?}, GitTag:{UNKNOWN:?}}}\n"
        ),
        ("json", _) => format!(
            "{{\n  \"clientVersion\": {{\n    \"version\": {version:?},\n    \"revision\": {revision:?},\n    \
             \"golang_version\": {language:?},\n    \"status\": {UNKNOWN:?},\n    \"tag\": {UNKNOWN:?}\n  }}\n}}\n"
        ),
        ("yaml", _) => format!(
            "clientVersion:\n  golang_version: {language}\n  revision: {revision}\n  status: {UNKNOWN}\n  \
             tag: {UNKNOWN}\n  version: {version}\n\n"
        ),
        _ => bail!("--output must be 'yaml' or 'json'"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(short: bool, output: &str) -> anyhow::Result<String> {
        let build = Build { version: "1.2.3", revision: "r", language: "l" };
        text(&Version { short, output: output.into() }, build)
    }

    #[test]
    fn the_forms_are_those_of_istio() {
        assert_eq!(shown(true, "").unwrap(), "client version: 1.2.3\n");
        assert_eq!(
            shown(false, "").unwrap(),
            "client version: version.BuildInfo{Version:\"1.2.3\", GitRevision:\"r\", GolangVersion:\"l\", \
             BuildStatus:\"unknown\", GitTag:\"unknown\"}\n"
        );
        let json: serde_json::Value = serde_json::from_str(&shown(true, "json").unwrap()).unwrap();
        let expected = serde_json::json!({"clientVersion": {"version": "1.2.3", "revision": "r",
            "golang_version": "l", "status": "unknown", "tag": "unknown"}});
        assert_eq!(json, expected);
        assert!(shown(false, "yaml").unwrap().ends_with("  tag: unknown\n  version: 1.2.3\n\n"));
        assert_eq!(shown(false, "xml").unwrap_err().to_string(), "--output must be 'yaml' or 'json'");
    }
}
