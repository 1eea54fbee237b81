//! `istiod token`: a token for a workload without Kubernetes.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};

use crate::auth::local::Issuer;
use crate::config::args::Token;
use crate::config::env::parse_duration;
use crate::state_dir::StateDir;

/// Makes the token that the flags describe.
///
/// # Errors
/// When a flag is wrong or the signing key cannot be used.
pub fn issue(args: &Token) -> anyhow::Result<String> {
    let wrong = || {
        format!(
            "--service-account={:?}: expected NAMESPACE/NAME, such as default/bookinfo-reviews",
            args.service_account
        )
    };
    let (namespace, name) = args.service_account.split_once('/').with_context(wrong)?;
    let namespace = namespace.parse().with_context(wrong)?;
    let name = name.parse().with_context(wrong)?;
    let ttl = parse_duration("--ttl", &args.ttl)?;
    // Times in a token are whole seconds.
    ensure!(
        ttl >= Duration::from_secs(1),
        "--ttl={:?}: the token would have expired when it is printed; use 1s or more",
        args.ttl
    );
    ensure!(
        !args.audience.trim().is_empty(),
        "--audience={:?}: nobody accepts a token without an audience; use istio-ca, or one of istiod's \
         TOKEN_AUDIENCES",
        args.audience
    );
    let issuer = Issuer::open(&StateDir::open(&args.state_dir)?)?;
    Ok(issuer.issue(&namespace, &name, &args.audience, ttl, SystemTime::now())?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::args::{Cli, Command};

    fn run(dir: &std::path::Path, flags: &[&str]) -> Result<String, String> {
        let dir = dir.display().to_string();
        let args = ["istiod", "token", "--service-account", "default/web", "--state-dir", &dir];
        let cli = Cli::try_parse_from(args.iter().chain(flags)).unwrap();
        let Command::Token(args) = cli.command else { panic!() };
        issue(&args).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn refuses_to_print_a_token_that_nobody_accepts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(run(dir.path(), &["--ttl", "1s"]).is_ok());
        for (flags, says) in [
            (["--ttl", "500ms"], "--ttl=\"500ms\""),
            (["--ttl", "0s"], "--ttl=\"0s\""),
            (["--audience", ""], "--audience=\"\""),
            (["--audience", " "], "--audience=\" \""),
        ] {
            let error = run(dir.path(), &flags).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
