//! What is wanted, from flags and a file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::logs::Range;
use super::redact::Redactor;
use super::selection::{Selection, Selections};
use crate::args::bug_report::BugReport as Args;
use crate::args::{self, Global};

/// Questions at once, unless told otherwise.
const CONCURRENCY: usize = 32;

/// All that is wanted.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) selections: Selections,
    pub(super) range: Range,
    /// Lines of each log; all without it.
    pub(super) tail: Option<u64>,
    pub(super) critical: Vec<String>,
    pub(super) ignored: Vec<String>,
    /// Takes out what is secret.
    pub(super) redactor: Redactor,
    pub(super) has_cluster: bool,
    pub(super) has_analysis: bool,
    pub(super) has_proxies: bool,
    pub(super) admin_port: u16,
    pub(super) timeout: Duration,
    pub(super) concurrency: usize,
    pub(super) is_dry: bool,
}

/// The file of `--filename`, whose fields go over flags.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    kube_config_path: Option<std::path::PathBuf>,
    context: Option<String>,
    istio_namespace: Option<String>,
    dry_run: Option<bool>,
    full_secrets: Option<bool>,
    proxy_admin_port: Option<u16>,
    command_timeout: Option<String>,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    start_time: Option<String>,
    end_time: Option<String>,
    since: Option<String>,
    critical_errors: Option<Vec<String>>,
    ignored_errors: Option<Vec<String>>,
    request_concurrency: Option<usize>,
    tail_lines: Option<u64>,
    skip_cluster_dump: Option<bool>,
    skip_analyze: Option<bool>,
    skip_proxy_debug: Option<bool>,
    /// Nothing is left out by it, nor by the next.
    #[serde(rename = "skipNetstat")]
    _skip_netstat: Option<bool>,
    #[serde(rename = "skipCoredumps")]
    _skip_coredumps: Option<bool>,
}

impl Settings {
    /// Reads them; where the mesh is goes into what all commands know.
    ///
    /// # Errors
    /// When the file cannot be read, or something is none of what is expected.
    pub(super) fn read(args: &Args, global: &mut Global, now: OffsetDateTime) -> anyhow::Result<Self> {
        let file = args.filename.as_deref().map(file).transpose()?.unwrap_or_default();
        global.kubeconfig = file.kube_config_path.or_else(|| global.kubeconfig.clone());
        global.context = file.context.or_else(|| global.context.clone());
        if let Some(namespace) = file.istio_namespace.or_else(|| args.control_plane.clone()) {
            global.istio_namespace = namespace;
        }
        let time = |name: &str, text: Option<String>, flag: &Duration| match text {
            Some(text) => args::duration(&text).map_err(|why| anyhow::anyhow!("{name}: {why}")),
            None => Ok(*flag),
        };
        let since = file
            .since
            .filter(|text| !text.is_empty())
            .map(|text| time("since", Some(text), &Duration::ZERO))
            .transpose()?;
        let range = range(
            &file.start_time.unwrap_or_else(|| args.start_time.clone()),
            &file.end_time.unwrap_or_else(|| args.end_time.clone()),
            since.or(args.duration),
            now,
        )?;
        let selections = |name: &str, all: &[String]| -> anyhow::Result<Vec<Selection>> {
            let read = |one: &String| Selection::read(one).with_context(|| format!("--{name}"));
            all.iter().map(read).collect()
        };
        let port = file.proxy_admin_port.filter(|port| *port > 0).unwrap_or(args.proxy_admin_port);
        let tail = file.tail_lines.unwrap_or(args.tail);
        let concurrency = file.request_concurrency.unwrap_or(args.rq_concurrency);
        let has_secrets = file.full_secrets.unwrap_or(args.full_secrets);
        Ok(Self {
            redactor: if has_secrets { Redactor::off() } else { Redactor::new(&global.istio_namespace) },
            selections: Selections {
                include: selections("include", file.include.as_deref().unwrap_or(&args.include))?,
                exclude: selections("exclude", file.exclude.as_deref().unwrap_or(&args.exclude))?,
            },
            range,
            tail: (tail > 0).then_some(tail),
            critical: file.critical_errors.unwrap_or_else(|| args.critical_errs.clone()),
            ignored: file.ignored_errors.unwrap_or_else(|| args.ignore_errs.clone()),
            has_cluster: !file.skip_cluster_dump.unwrap_or(args.skip_cluster_dump),
            has_analysis: !file.skip_analyze.unwrap_or(args.skip_analyze),
            has_proxies: !file.skip_proxy_debug.unwrap_or(args.skip_proxy_debug),
            admin_port: port,
            timeout: time(
                "commandTimeout",
                file.command_timeout.filter(|text| !text.is_empty()),
                &args.timeout,
            )?,
            concurrency: if concurrency > 0 { concurrency } else { CONCURRENCY },
            is_dry: file.dry_run.unwrap_or(args.dry_run),
        })
    }
}

fn file(path: &Path) -> anyhow::Result<File> {
    let what = || format!("--filename {}", path.display());
    let text = source::file::read_named(path).with_context(what)?;
    serde_saphyr::from_str(&text).with_context(what)
}

fn range(start: &str, end: &str, duration: Option<Duration>, now: OffsetDateTime) -> anyhow::Result<Range> {
    let parse = |name: &str, text: &str| -> anyhow::Result<Option<OffsetDateTime>> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = OffsetDateTime::parse(text, &Rfc3339);
        let parsed = parsed.with_context(|| {
            format!("bad format for {name}: {text}, expect RFC3339 e.g. 2006-01-02T15:04:05Z")
        })?;
        Ok(Some(parsed))
    };
    let (start, end) = (parse("start-time", start)?, parse("end-time", end)?);
    let start = match (start, duration.filter(|duration| !duration.is_zero())) {
        (Some(_), Some(_)) => bail!("only one --start-time or --duration may be set"),
        // What is before all time is from the begin on.
        (None, Some(duration)) => {
            let duration = time::Duration::try_from(duration).unwrap_or(time::Duration::MAX);
            end.unwrap_or(now).checked_sub(duration)
        }
        (start, None) => start,
    };
    if start.is_some_and(|start| start > end.unwrap_or(now)) {
        bail!("bad format for start-time and end-time: start-time is after end-time");
    }
    Ok(Range { start, end })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn settings(flags: &[&str]) -> anyhow::Result<(Settings, Global)> {
        let line = ["istioctl", "bug-report"].iter().chain(flags);
        let cli = Cli::try_parse_from(line)?;
        let mut global = cli.global.clone();
        let Command::BugReport(args) = cli.command else { bail!("another command") };
        let now = OffsetDateTime::parse("2026-11-25T10:00:00Z", &Rfc3339)?;
        Ok((Settings::read(&args, &mut global, now)?, global))
    }

    #[test]
    fn times_are_given_in_one_way() {
        let at = |text: &str| OffsetDateTime::parse(text, &Rfc3339).unwrap();
        let (all, _) = settings(&["--duration", "1h"]).unwrap();
        assert_eq!(all.range, Range { start: Some(at("2026-11-25T09:00:00Z")), end: None });
        let (all, _) = settings(&["--duration", "1h", "--end-time", "2026-11-24T10:00:00Z"]).unwrap();
        assert_eq!(all.range.start, Some(at("2026-11-24T09:00:00Z")));
        let (all, _) = settings(&["--duration", "2562047h"]).unwrap();
        assert_eq!(all.range.start.map(OffsetDateTime::year), Some(1734));
        for (flags, what) in [
            (&["--duration=1h", "--start-time=2026-11-25T09:00:00Z"][..], "only one"),
            (&["--start-time=yesterday"], "bad format for start-time"),
            (&["--start-time=2026-11-26T09:00:00Z"], "after end-time"),
            (&["--include=a/b/c/d"], "--include"),
        ] {
            assert!(format!("{:#}", settings(flags).unwrap_err()).contains(what), "{flags:?}");
        }
    }

    #[test]
    fn a_file_goes_over_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(
            &path,
            "istioNamespace: mesh\ninclude: [shop]\ncommandTimeout: 5m\nskipAnalyze: true\ntailLines: 7\n",
        )
        .unwrap();
        let name = path.display().to_string();
        let (all, global) =
            settings(&["-f", &name, "--include", "other", "--tail", "9", "--full-secrets"]).unwrap();
        assert_eq!(all.selections.namespaces(), ["shop"]);
        assert_eq!((all.timeout, all.tail), (Duration::from_secs(300), Some(7)));
        assert!(all.redactor.is_off() && !all.has_analysis && all.has_proxies);
        assert_eq!(global.istio_namespace, "mesh");
        fs::write(&path, "nosuch: 1").unwrap();
        assert!(format!("{:#}", settings(&["-f", &name]).unwrap_err()).contains("nosuch"));
    }
}
