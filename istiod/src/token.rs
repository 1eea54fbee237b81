//! `istiod token`: a token for a workload without Kubernetes.

use std::time::SystemTime;

use anyhow::Context as _;

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
    let issuer = Issuer::open(&StateDir::open(&args.state_dir)?)?;
    Ok(issuer.issue(&namespace, &name, &args.audience, ttl, SystemTime::now())?)
}
