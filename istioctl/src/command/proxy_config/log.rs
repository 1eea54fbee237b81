//! What proxies log.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, bail};

use super::Source;
use crate::args::proxy_config::Log as Args;
use crate::failure::Result;
use crate::proxies::Mesh;

/// Means all loggers.
const ALL: &str = "level";
/// What Envoy is started with, unless told otherwise.
const DEFAULT: &str = "warning";
const LEVELS: [&str; 7] = ["trace", "debug", "info", "warning", "error", "critical", "off"];

pub(super) async fn run(args: &Args, source: &Source<'_>, out: &mut impl Write) -> Result {
    check(args)?;
    let mesh = Mesh::open(source.global).await?;
    let proxies = match &args.proxy {
        Some(name) if args.selector.is_empty() => mesh.proxies(name).await?,
        _ => mesh.selected(&args.selector).await?,
    };
    let mut changes = Vec::new();
    if args.reset {
        changes.push((ALL.to_owned(), mesh.log_level().await.unwrap_or_else(|| DEFAULT.into())));
    }
    let mut failed = Vec::new();
    for proxy in &proxies {
        let admin = mesh.admin(proxy, source.port);
        let attempt = async {
            let known = admin.post("logging").await?;
            let mut answer = known.clone();
            let wanted = if args.reset { changes.clone() } else { wanted(&args.level, &known)? };
            for (logger, level) in wanted {
                answer = admin.post(&format!("logging?{logger}={level}")).await?;
            }
            anyhow::Ok(answer)
        };
        match attempt.await {
            Ok(answer) => write!(out, "{proxy}:\n{answer}")?,
            Err(error) => failed.push(error.context(format!("log level of {proxy}"))),
        }
    }
    let mut failed = failed.into_iter();
    match failed.next() {
        None => Ok(()),
        Some(first) => Err(failed.fold(first, |all, error| anyhow::anyhow!("{all:#}; {error:#}")).into()),
    }
}

fn check(args: &Args) -> anyhow::Result<()> {
    if args.proxy.is_none() && args.selector.is_empty() {
        bail!("log requires pod name or --selector");
    }
    if args.reset && !args.level.is_empty() {
        bail!("--level cannot be combined with --reset");
    }
    if args.output != "short" && !args.output.is_empty() {
        bail!("--output is not applicable for this command");
    }
    Ok(())
}

/// Which loggers get which level, all of them first.
fn wanted(text: &str, known: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut all = None;
    let mut some = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        // What comes before two colons once was a namespace.
        let part = part.rsplit("::").next().unwrap_or(part);
        match part.split_once([':', '=']) {
            None | Some((ALL, _)) => {
                all = Some(level(part.split_once([':', '=']).map_or(part, |(_, level)| level))?);
            }
            Some((logger, name)) => {
                let is_known = known
                    .lines()
                    .any(|line| line.trim().split_once(':').is_some_and(|(name, _)| name == logger));
                if !is_known {
                    bail!("unrecognized logger name: {logger}; the names are shown without --level");
                }
                some.insert(logger.to_owned(), level(name)?);
            }
        }
    }
    Ok(all.map(|level| (ALL.to_owned(), level)).into_iter().chain(some).collect())
}

fn level(name: &str) -> anyhow::Result<String> {
    let name = if name == "warn" { DEFAULT } else { name };
    let known = LEVELS.iter().find(|known| **known == name);
    let known = known
        .with_context(|| format!("unrecognized logging level: {name}; it is one of {}", LEVELS.join(", ")))?;
    Ok((*known).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_loggers_come_before_single_ones() {
        let known = "active loggers:\n  http: warning\n  rbac: warning\n";
        let told = wanted("rbac:debug,info,istio::http=warn", known).unwrap();
        let told: Vec<String> = told.into_iter().map(|(logger, level)| format!("{logger}={level}")).collect();
        assert_eq!(told, ["level=info", "http=warning", "rbac=debug"]);
        assert!(wanted("", known).unwrap().is_empty());
        assert!(wanted("level:off", known).unwrap()[0].1 == "off");
        for (wrong, what) in
            [("loud", "level: loud"), ("http:loud", "level: loud"), ("nosuch:info", "name: nosuch")]
        {
            assert!(wanted(wrong, known).unwrap_err().to_string().contains(what), "{wrong}");
        }
    }
}
