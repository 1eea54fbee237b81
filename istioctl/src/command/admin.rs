//! `admin log`: what istiod logs, by its page `/scopej`.

use std::io::Write;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::args::admin::{Action, Admin, Log as Args};
use crate::failure::Result;
use crate::proxies::admin::send;
use crate::proxies::{Mesh, Proxy};
use crate::render::table::Table;
use crate::render::yaml;

/// Where scopes are.
const PAGE: &str = "scopej";
/// Label of the revision of a control plane.
const REVISION: &str = "istio.io/rev";
/// Stands for every scope.
const ALL: &str = "all";
/// Levels that a scope may have.
const LEVELS: [&str; 5] = ["none", "error", "warn", "info", "debug"];
/// Blanks between columns.
const PADDING: usize = 3;

/// A scope, as istiod tells it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Scope {
    name: String,
    description: String,
    output_level: String,
    stack_trace_level: String,
    log_callers: bool,
}

/// A scope, as it is printed.
#[derive(Serialize)]
struct Shown<'a> {
    scope_name: &'a str,
    log_level: &'a str,
    stack_trace_level: &'a str,
    description: &'a str,
}

/// A change of a scope.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Change {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    output_level: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stack_trace_level: String,
    /// Istio's istiod takes a change that does not name it as one that unsets it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    log_callers: bool,
}

/// Shows or changes levels.
///
/// # Errors
/// When there is no istiod, it does not answer, or there is no such scope or level.
pub async fn run(args: &Admin, global: &Global, out: &mut impl Write) -> Result {
    let Action::Log(log) = &args.command;
    if !["short", "json", "yaml"].contains(&log.output.as_str()) {
        return Err(anyhow::anyhow!("output format {:?} not supported", log.output).into());
    }
    let wanted = Wanted::of(log)?;
    let mesh = Mesh::open(global).await?;
    let pods = pods(args, log, &mesh, global).await?;
    let Some(first) = pods.first() else {
        return Err(anyhow::anyhow!(
            "no pods found: no istiod runs in {:?} with the labels {}; name its namespace with -i, its revision with -r",
            global.istio_namespace,
            labels(args, log)
        )
        .into());
    };
    if wanted.is_empty() {
        if pods.len() > 1 {
            eprintln!("Warning: there are {} istiods; shown is {first}. Name another one", pods.len());
        }
        let scopes = scopes(&mesh, first, log.port).await?;
        return Ok(out.write_all(shown(&scopes, &log.output)?.as_bytes())?);
    }
    for pod in &pods {
        let known = scopes(&mesh, pod, log.port).await?;
        for change in wanted.changes(&known)? {
            put(&mesh, pod, log.port, &change).await?;
        }
    }
    Ok(())
}

fn labels(args: &Admin, log: &Args) -> String {
    let revision = if log.revision.is_empty() { "default" } else { &log.revision };
    let own = format!("{REVISION}={revision}");
    if args.selector.is_empty() { own } else { format!("{},{own}", args.selector) }
}

async fn pods(args: &Admin, log: &Args, mesh: &Mesh, global: &Global) -> anyhow::Result<Vec<Proxy>> {
    match &log.pod {
        None => mesh.istiods(&labels(args, log)).await,
        Some(name) => {
            // It may be named with its namespace, as a proxy is.
            let own = format!(".{}", global.istio_namespace);
            let name = name.strip_suffix(&own).unwrap_or(name);
            Ok(vec![Proxy { name: name.to_owned(), namespace: global.istio_namespace.clone() }])
        }
    }
}

async fn scopes(mesh: &Mesh, pod: &Proxy, port: u16) -> anyhow::Result<Vec<Scope>> {
    let text = ask(mesh, pod, port, Method::GET, &format!("{PAGE}/"), Bytes::new()).await?;
    let mut scopes: Vec<Scope> =
        serde_json::from_str(&text).with_context(|| format!("{pod}: its port {port} tells no scopes"))?;
    scopes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scopes)
}

async fn put(mesh: &Mesh, pod: &Proxy, port: u16, change: &Change) -> anyhow::Result<()> {
    let body = serde_json::to_vec(change)?;
    let path = format!("{PAGE}/{}", change.name);
    ask(mesh, pod, port, Method::PUT, &path, body.into()).await.map(drop)
}

async fn ask(
    mesh: &Mesh,
    pod: &Proxy,
    port: u16,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<String> {
    let asked = async { send(mesh.connect(pod, port).await?, method, path, body).await };
    let (status, text) = asked.await.with_context(|| {
        format!("{pod} on its port {port}: does it run there (istiod --ctrlz_port, --ctrlz_address)?")
    })?;
    if !status.is_success() {
        bail!("{pod}: /{path}: {status}: {}", text.trim());
    }
    Ok(text)
}

/// What is to be changed.
#[derive(Debug, Default)]
struct Wanted {
    /// Scopes with their levels, in the order in which they were given.
    levels: Vec<(String, String)>,
    traces: Vec<(String, String)>,
}

impl Wanted {
    fn of(log: &Args) -> anyhow::Result<Self> {
        let default = |is_wanted: bool, level: &str| {
            if is_wanted { vec![(ALL.to_owned(), level.to_owned())] } else { Vec::new() }
        };
        let mut wanted = Self {
            levels: default(log.reset || log.log_reset, "info"),
            traces: default(log.reset || log.stack_trace_reset, "none"),
        };
        wanted.levels.extend(pairs("--level", &log.level)?);
        wanted.traces.extend(pairs("--stack-trace-level", &log.stack_trace_level)?);
        Ok(wanted)
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.traces.is_empty()
    }

    /// One change of each scope that is named.
    fn changes(&self, known: &[Scope]) -> anyhow::Result<Vec<Change>> {
        let all = self.levels.iter().chain(&self.traces).map(|(scope, _)| scope);
        for scope in all.filter(|scope| *scope != ALL) {
            if !known.iter().any(|one| one.name == *scope) {
                let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
                bail!("unknown scope name: {scope}; there are {}", names.join(", "));
            }
        }
        let level = |of: &[(String, String)], name: &str| {
            // The last one counts.
            let fits = of.iter().rev().find(|(scope, _)| scope == name || scope == ALL);
            fits.map(|(_, level)| level.clone()).unwrap_or_default()
        };
        let changes = known.iter().map(|scope| Change {
            output_level: level(&self.levels, &scope.name),
            stack_trace_level: level(&self.traces, &scope.name),
            log_callers: scope.log_callers,
            name: scope.name.clone(),
        });
        Ok(changes
            .filter(|change| !change.output_level.is_empty() || !change.stack_trace_level.is_empty())
            .collect())
    }
}

/// Reads `SCOPE:LEVEL,...`.
fn pairs(flag: &str, text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once(':') {
            Some((scope, level)) if !scope.is_empty() && LEVELS.contains(&level) => {
                pairs.push((scope.to_owned(), level.to_owned()));
            }
            _ => bail!("{flag} {part:?}: write SCOPE:LEVEL with a level of {}", LEVELS.join(", ")),
        }
    }
    Ok(pairs)
}

fn shown(scopes: &[Scope], output: &str) -> anyhow::Result<String> {
    if output == "short" {
        let mut table = Table::new(PADDING);
        table.row(["ACTIVE SCOPE", "DESCRIPTION", "LOG LEVEL", "STACK TRACE LEVEL"]);
        for Scope { name, description, output_level, stack_trace_level, .. } in scopes {
            table.row([name, description, output_level, stack_trace_level].map(String::as_str));
        }
        return Ok(table.render());
    }
    let rows: Vec<Shown<'_>> = scopes
        .iter()
        .map(|scope| Shown {
            scope_name: &scope.name,
            log_level: &scope.output_level,
            stack_trace_level: &scope.stack_trace_level,
            description: &scope.description,
        })
        .collect();
    let text = serde_json::to_string_pretty(&rows)? + "\n";
    Ok(if output == "yaml" { yaml::render(&serde_json::from_str(&text)?) } else { text })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn known() -> Vec<Scope> {
        let scope = |name: &str| Scope {
            name: name.into(),
            description: format!("about {name}"),
            output_level: "info".into(),
            stack_trace_level: "none".into(),
            log_callers: name == "ca",
        };
        vec![scope("ads"), scope("ca")]
    }

    fn wanted(flags: &[&str]) -> anyhow::Result<Wanted> {
        let args = ["istioctl", "admin", "log"].iter().chain(flags);
        let Command::Admin(admin) = Cli::try_parse_from(args)?.command else { bail!("another command") };
        let Action::Log(log) = admin.command;
        Wanted::of(&log)
    }

    fn changes(flags: &[&str]) -> Vec<String> {
        let changes = wanted(flags).unwrap().changes(&known()).unwrap();
        changes.iter().map(|change| serde_json::to_string(change).unwrap()).collect()
    }

    #[test]
    fn the_last_level_of_a_scope_counts() {
        assert_eq!(changes(&["--level", "ads:debug"]), [r#"{"name":"ads","output_level":"debug"}"#]);
        assert_eq!(
            changes(&["--level", "all:debug,ads:none"]),
            [
                r#"{"name":"ads","output_level":"none"}"#,
                r#"{"name":"ca","output_level":"debug","log_callers":true}"#
            ]
        );
        assert_eq!(
            changes(&["--reset"])[0],
            r#"{"name":"ads","output_level":"info","stack_trace_level":"none"}"#
        );
        assert_eq!(changes(&["--stack-trace-reset"])[0], r#"{"name":"ads","stack_trace_level":"none"}"#);
        assert!(wanted(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (flags, what) in [
            (&["--level", "ads"][..], "--level \"ads\""),
            (&["--level", "ads:loud"], "debug"),
            (&["--level", "ads:debugx"], "ads:debugx"),
            (&["--stack-trace-level", ":info"], "--stack-trace-level \":info\""),
            (&["--level", "ads:info", "--reset"], "--reset"),
        ] {
            assert!(wanted(flags).unwrap_err().to_string().contains(what), "{flags:?}");
        }
        let error = wanted(&["--level", "nosuch:info"]).unwrap().changes(&known()).unwrap_err().to_string();
        assert!(error.contains("unknown scope name: nosuch; there are ads, ca"), "{error}");
    }

    #[test]
    fn scopes_are_shown_as_istio_shows_them() {
        assert_eq!(
            shown(&known(), "short").unwrap(),
            "ACTIVE SCOPE   DESCRIPTION   LOG LEVEL   STACK TRACE LEVEL\n\
             ads            about ads     info        none\n\
             ca             about ca      info        none\n"
        );
        assert!(shown(&known(), "json").unwrap().starts_with(
            "[\n  {\n    \"scope_name\": \"ads\",\n    \"log_level\": \"info\",\n    \"stack_trace_level\": \"none\",\n"
        ));
        assert!(
            shown(&known(), "yaml").unwrap().starts_with("- description: about ads\n  log_level: info\n")
        );
    }
}
