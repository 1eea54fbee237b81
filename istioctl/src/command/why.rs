//! `why`: what a request meets on its way, and where it would be refused.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;

use anyhow::Context as _;

use super::proxy_config::file;
use crate::args::Global;
use crate::args::why::Why;
use crate::failure::{Failure, Result};
use crate::proxies::{self, Mesh};
use crate::why::{Explanation, Peer, Proxy, Question, explain};

/// Exit code when a request is refused.
const REFUSED: u8 = 2;
/// Exit code when it cannot be told.
const UNSURE: u8 = 3;
const DUMP: &str = "config_dump?include_eds";
const CLUSTERS: &str = "clusters?format=json";
/// So many addresses are asked about, which is more than an explanation follows.
const MOST: usize = 64;

/// Who has an address.
enum Found {
    Proxy(Box<Proxy>),
    Bare(String),
    Silent(String, String),
    Nobody,
}

/// Explains a request.
///
/// # Errors
/// When the client's Envoy cannot be asked; with an exit code alone when the
/// request is refused or it cannot be told.
pub async fn run(args: &Why, global: &Global, out: &mut impl Write) -> Result {
    let question = question(args)?;
    let explanation =
        if args.file.is_empty() { live(args, global, &question).await? } else { of_files(args, &question)? };
    match args.output.as_str() {
        "json" => writeln!(out, "{}", serde_json::to_string_pretty(&explanation)?)?,
        _ => out.write_all(explanation.text().as_bytes())?,
    }
    if explanation.refuses() {
        return Err(Failure::silent(REFUSED));
    }
    if explanation.is_unsure() { Err(Failure::silent(UNSURE)) } else { Ok(()) }
}

fn question(args: &Why) -> anyhow::Result<Question> {
    let mut question = Question::to(&args.to)?;
    if let Some(method) = &args.method {
        question = question.method(method);
    }
    for header in &args.headers {
        let (name, value) = header
            .split_once(':')
            .filter(|(name, _)| !name.trim().is_empty())
            .with_context(|| format!("--header {header:?}: write it as NAME: VALUE"))?;
        question = question.header(name.trim(), value.trim());
    }
    question.from = args.from_ip;
    question.address = args.address;
    Ok(question)
}

fn of_files(args: &Why, question: &Question) -> anyhow::Result<Explanation> {
    let mut all = Vec::new();
    for path in &args.file {
        let what = || format!("--file {}", path.display());
        all.push(Proxy::read(&file(path).with_context(what)?, None).with_context(what)?);
    }
    let client = all.first().context("--file names nothing")?;
    let find = |ip: IpAddr| {
        let own = all.iter().find(|proxy| proxy.addresses.contains(&ip));
        own.map_or(Peer::Silent("the endpoint", "no --file is the dump of its Envoy"), Peer::Proxy)
    };
    Ok(explain(client, question, &find))
}

/// Explains by what Envoys say now: each address that an explanation comes to is
/// looked up, until nothing new comes up.
async fn live(args: &Why, global: &Global, question: &Question) -> anyhow::Result<Explanation> {
    let mesh = Mesh::open(global).await?;
    let pod = mesh.proxy(args.pod.as_deref().unwrap_or_default()).await?;
    let client = read(&mesh, &pod, args.proxy_admin_port).await.with_context(|| {
        format!("{pod} has no sidecar that answers; for a client without one ask the server: istioctl why SERVER --from-ip IP --to ...")
    })?;
    let mut found: BTreeMap<IpAddr, Found> = BTreeMap::new();
    loop {
        let wanted = RefCell::new(BTreeSet::new());
        let explanation = {
            let find = |ip: IpAddr| match found.get(&ip) {
                Some(Found::Proxy(proxy)) => Peer::Proxy(proxy),
                Some(Found::Bare(name)) => Peer::Bare(name),
                Some(Found::Silent(name, why)) => Peer::Silent(name, why),
                Some(Found::Nobody) => Peer::Outside,
                None if client.addresses.contains(&ip) => Peer::Proxy(&client),
                None => {
                    wanted.borrow_mut().insert(ip);
                    Peer::Outside
                }
            };
            explain(&client, question, &find)
        };
        let wanted = wanted.into_inner();
        if wanted.is_empty() || found.len() >= MOST {
            return Ok(explanation);
        }
        for ip in wanted {
            let own = look(&mesh, ip, args.proxy_admin_port).await;
            found.insert(ip, own);
        }
    }
}

/// Who has an address.
async fn look(mesh: &Mesh, ip: IpAddr, port: u16) -> Found {
    let candidates = match mesh.with_address(ip).await {
        Ok(candidates) => candidates,
        Err(error) => return Found::Silent(ip.to_string(), format!("{error:#}")),
    };
    for (pod, has_sidecar) in candidates {
        match (read(mesh, &pod, port).await, has_sidecar) {
            (Ok(proxy), None) if !proxy.addresses.contains(&ip) => {}
            (Ok(proxy), _) => return Found::Proxy(Box::new(proxy)),
            (Err(_), Some(false)) => return Found::Bare(pod.to_string()),
            (Err(error), Some(true)) => return Found::Silent(pod.to_string(), format!("{error:#}")),
            // Perhaps another one.
            (Err(_), None) => {}
        }
    }
    Found::Nobody
}

async fn read(mesh: &Mesh, pod: &proxies::Proxy, port: u16) -> anyhow::Result<Proxy> {
    let admin = mesh.admin(pod, port);
    let dump = admin.get(DUMP).await?;
    let clusters = admin.get(CLUSTERS).await?;
    let mut proxy = Proxy::read(&dump, Some(&clusters)).with_context(|| pod.to_string())?;
    // An Envoy that is no agent's has a name of its own.
    if proxy.name.is_empty() {
        proxy.name = pod.to_string();
    }
    Ok(proxy)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &[&str]) -> (Why, Global) {
        let cli = Cli::try_parse_from(["istioctl", "why"].iter().chain(line)).unwrap();
        match cli.command {
            Command::Why(args) => (args, cli.global),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn headers_are_names_and_values() {
        let (args, _) = args(&["a", "--to", "http://b:1/", "-H", "x: y:z", "-H", "Host: c", "-X", "PUT"]);
        let asked = question(&args).unwrap();
        assert_eq!((asked.authority.as_str(), asked.method.as_str()), ("c", "PUT"));
        assert_eq!(asked.headers, [("x".to_owned(), "y:z".to_owned())]);
        assert!(question(&Why { headers: vec!["x".into()], ..args }).is_err());
    }

    #[tokio::test]
    async fn dumps_in_files_are_enough_and_a_refusal_has_an_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump.json");
        fs::write(&path, r#"{"configs": [{"@type": "x"}]}"#).unwrap();
        let (args, global) = args(&["--file", path.to_str().unwrap(), "--to", "http://a:80/", "-o", "json"]);
        let mut out = Vec::new();
        let failure = run(&args, &global, &mut out).await.unwrap_err();
        assert_eq!((failure.code, failure.error.is_none()), (REFUSED, true));
        let page: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(page["way"]["end"]["kind"], "refused");
        fs::write(&path, "{}").unwrap();
        let failure = run(&args, &global, &mut out).await.unwrap_err();
        assert!(failure.code == 1 && failure.error.is_some());
    }
}
