//! `experimental envoy-stats`: the metrics of proxies.

use std::io::Write;

use anyhow::{anyhow, bail};

use crate::args::Global;
use crate::args::proxy_config::EnvoyStats as Args;
use crate::failure::Result;
use crate::json::Value;
use crate::proxies::Mesh;
use crate::render::json::{Style, render};
use crate::render::yaml;

/// Port of the agent, which merges the metrics of Envoy and application.
const AGENT: u16 = 15020;
/// Page of the merged metrics.
const MERGED: &str = "stats/prometheus";

/// Shows the metrics of each proxy.
///
/// # Errors
/// When a proxy does not answer, or something unknown is asked for.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let (port, page) = page(args)?;
    if args.proxy.is_some() != args.selector.is_empty() {
        let wrong = if args.proxy.is_some() {
            "name cannot be provided when the label selector is specified"
        } else {
            "stats requires pod name or label selector"
        };
        return Err(anyhow!(wrong).into());
    }
    let mesh = Mesh::open(global).await?;
    let proxies = match &args.proxy {
        Some(name) => mesh.proxies(name).await?,
        None => mesh.selected(&args.selector).await?,
    };
    for proxy in proxies {
        let text = mesh.admin(&proxy, port).get(page).await?;
        writeln!(out, "\nThe result of pod {}:\n", proxy.name)?;
        out.write_all(shown(&args.output, text)?.as_bytes())?;
    }
    Ok(())
}

fn shown(output: &str, text: String) -> anyhow::Result<String> {
    Ok(match output {
        "json" => {
            let value: Value<'_> = serde_json::from_str(&text)?;
            render(&value, Style::Extension) + "\n"
        }
        "yaml" => yaml::render(&serde_json::from_str(&text)?),
        _ => text,
    })
}

/// Port and page that have what is asked for.
fn page(args: &Args) -> anyhow::Result<(u16, &'static str)> {
    let port = args.proxy_admin_port;
    Ok(match (args.kind.as_str(), args.output.as_str()) {
        ("" | "server", "" | "short") => (port, "stats"),
        ("" | "server", "json" | "yaml") => (port, "stats?format=json"),
        ("" | "server", "prom") => (port, "stats/prometheus"),
        ("" | "server", "prom-merged") => (AGENT, MERGED),
        ("cluster" | "clusters", "" | "short") => (port, "clusters"),
        ("cluster" | "clusters", "json" | "yaml") => (port, "clusters?format=json"),
        ("" | "server" | "cluster" | "clusters", format) => bail!(
            "unable to match a printer suitable for the output format {format}, allowed formats are: json, yaml, short and, for --type server, prom and prom-merged"
        ),
        (kind, _) => bail!("unknown stats type {kind}; there are server and clusters"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_its_page() {
        let args = |kind: &str, output: &str| Args {
            proxy: None,
            selector: String::new(),
            kind: kind.into(),
            output: output.into(),
            proxy_admin_port: 15000,
        };
        assert_eq!(page(&args("server", "prom-merged")).unwrap(), (15020, "stats/prometheus"));
        assert_eq!(page(&args("clusters", "yaml")).unwrap(), (15000, "clusters?format=json"));
        assert!(page(&args("clusters", "prom")).unwrap_err().to_string().contains("output format prom"));
        assert!(page(&args("x", "short")).unwrap_err().to_string().contains("unknown stats type x"));
        assert_eq!(
            shown("yaml", r#"{"stats": [{"name": "a", "value": 1}]}"#.into()).unwrap(),
            "stats:\n- name: a\n  value: 1\n"
        );
    }
}
