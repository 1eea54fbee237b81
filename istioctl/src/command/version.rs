//! `version`: of this program, of control planes, and of proxies.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::bail;
use proto::envoy::service::status::v3::ClientConfig;
use serde_json::{Value, json};

use super::proxy_status::metadata;
use crate::args::Global;
use crate::args::xds::Version as Args;
use crate::failure::Result;
use crate::render::plain::plain;
use crate::render::yaml;
use crate::xds::{self, Identifier, Info, Question, SYNCZ, identifier};

/// What is known of others.
#[derive(Debug, Default)]
struct Remote {
    planes: Vec<Identifier>,
    /// Names and versions.
    proxies: Vec<(String, String)>,
}

/// Tells the versions. When no control plane answers, that is told on standard error.
///
/// # Errors
/// When the form is unknown.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let output = args.output.as_str();
    if !["", "json", "yaml"].contains(&output) {
        return Err(anyhow::anyhow!("--output must be 'yaml' or 'json'").into());
    }
    let remote = if args.remote {
        match remote(args, global).await {
            Ok(remote) => Some(remote),
            Err(error) => {
                eprintln!("Istio is not present in the cluster: {}", plain(&format!("{error:#}")));
                None
            }
        }
    } else {
        None
    };
    let text = if output.is_empty() {
        plain(&lines(args.short, remote.as_ref())).into_owned()
    } else {
        let value = whole(remote.as_ref());
        let text = serde_json::to_string_pretty(&value)?;
        if output == "yaml" { yaml::render(&serde_json::from_str(&text)?) } else { text }
    };
    Ok(writeln!(out, "{}", text.trim_end_matches('\n'))?)
}

/// Ours.
fn own() -> Info {
    Info {
        version: env!("CARGO_PKG_VERSION").into(),
        tag: env!("CARGO_PKG_VERSION").into(),
        ..Info::default()
    }
}

async fn remote(args: &Args, global: &Global) -> anyhow::Result<Remote> {
    let answers = xds::ask(global, &args.xds, Question { type_url: SYNCZ, names: &[] }).await?;
    if answers.is_empty() {
        bail!("no running Istio pods in namespace {:?}", global.istio_namespace);
    }
    let mut remote = Remote { planes: answers.iter().map(identifier).collect(), ..Remote::default() };
    for resource in answers.iter().flat_map(|answer| &answer.resources) {
        let config: ClientConfig = resource.unpack()?;
        let name = config.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
        remote.proxies.push((name, metadata(&config, "ISTIO_VERSION").to_owned()));
    }
    Ok(remote)
}

fn lines(is_short: bool, remote: Option<&Remote>) -> String {
    let long = |info: &Info| if is_short { info.version.clone() } else { go(info) };
    let mut text = format!("client version: {}\n", long(&own()));
    let Some(Remote { planes, proxies }) = remote else { return text };
    let is_same = planes.windows(2).all(|pair| pair[0].info.version == pair[1].info.version);
    match planes.first() {
        Some(first) if is_same && is_short => {
            text += &format!("control plane version: {}\n", first.info.version)
        }
        _ => {
            for plane in planes {
                text += &format!("{} version: {}\n", plane.id, long(&plane.info));
            }
        }
    }
    if is_short {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, version) in proxies {
            *counts.entry(version).or_default() += 1;
        }
        let counts: Vec<String> =
            counts.iter().map(|(version, count)| format!("{version} ({count} proxies)")).collect();
        text += &format!(
            "data plane version: {}\n",
            if counts.is_empty() { "none".into() } else { counts.join(", ") }
        );
    } else {
        for (name, version) in proxies {
            text +=
                &format!("data plane version: version.ProxyInfo{{ID:{name:?}, IstioVersion:{version:?}}}\n");
        }
    }
    text
}

/// As Go shows a value, and so Istio a version.
fn go(info: &Info) -> String {
    let Info { version, revision, golang_version, status, tag } = info;
    format!(
        "version.BuildInfo{{Version:{version:?}, GitRevision:{revision:?}, GolangVersion:{golang_version:?}, \
         BuildStatus:{status:?}, GitTag:{tag:?}}}"
    )
}

fn whole(remote: Option<&Remote>) -> Value {
    let mut value = json!({ "clientVersion": own() });
    if let Some(Remote { planes, proxies }) = remote {
        let plane =
            |plane: &Identifier| json!({"Component": plane.component, "Revision": "", "Info": plane.info});
        value["meshVersion"] = planes.iter().map(plane).collect();
        value["dataPlaneVersion"] =
            proxies.iter().map(|(name, version)| json!({"ID": name, "IstioVersion": version})).collect();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_differ_are_told_of_each() {
        let plane = |id: &str, version: &str| Identifier {
            component: "istiod".into(),
            id: id.into(),
            info: Info { version: version.into(), ..Info::default() },
        };
        let proxies =
            vec![("a".to_owned(), "1".to_owned()), ("b".into(), "1".into()), ("c".into(), "2".into())];
        let mut remote = Remote { planes: vec![plane("x", "1"), plane("y", "1")], proxies };
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(
            lines(true, Some(&remote)),
            format!(
                "client version: {own}\ncontrol plane version: 1\ndata plane version: 1 (2 proxies), 2 (1 proxies)\n"
            )
        );
        remote.planes = vec![plane("x", "1"), plane("y", "2")];
        assert!(lines(true, Some(&remote)).contains("x version: 1\ny version: 2\n"));
        assert!(
            lines(false, Some(&remote))
                .contains("data plane version: version.ProxyInfo{ID:\"a\", IstioVersion:\"1\"}\n")
        );
        assert!(lines(false, None).starts_with(&format!(
            "client version: version.BuildInfo{{Version:\"{own}\", GitRevision:\"\", GolangVersion:\"\", BuildStatus:\"\", GitTag:\"{own}\"}}\n"
        )));
        assert_eq!(lines(true, None), format!("client version: {own}\n"));
        assert_eq!(whole(Some(&remote))["dataPlaneVersion"][2]["IstioVersion"], "2");
    }
}
