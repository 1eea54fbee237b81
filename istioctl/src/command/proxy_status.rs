//! `proxy-status`: what each proxy was sent and has accepted, and how what it has
//! differs from what istiod would send it.

mod age;
mod diff;
mod http_page;
mod table;

use std::io::Write;

use anyhow::bail;
use prost::Message as _;
use proto::envoy::service::discovery::v3::DiscoveryResponse;
use proto::envoy::service::status::v3::ClientConfig;
use proto::{Any, reflect};

pub(crate) use table::metadata;

use super::proxy_config::file;
use crate::args::Global;
use crate::args::xds::ProxyStatus as Args;
use crate::failure::Result;
use crate::json::Value;
use crate::proxies::Mesh;
use crate::render::json::Style;
use crate::render::plain::warn;
use crate::render::{json, yaml};
use crate::schema::Schema;
use crate::xds::{self, CONFIG_DUMP, Question, SYNCZ};

const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";
/// What names of the parts of a dump begin with.
const ENVOY: &str = "envoy.admin.v3.";

/// Asks every istiod, and shows what they say.
///
/// # Errors
/// When none answers, or the proxy is not there.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    if let Some(name) = &args.proxy {
        return compare(args, global, name, out).await;
    }
    if !["table", "json", "yaml"].contains(&args.output.as_str()) {
        return Err(anyhow::anyhow!("output format {:?} not supported", args.output).into());
    }
    if let Some(address) = &args.debug_address {
        let page = http_page::fetch(address).await?;
        let text =
            if args.output == "json" { page } else { http_page::render(&page, global.namespace.as_deref())? };
        return Ok(out.write_all(text.as_bytes())?);
    }
    let answers = xds::ask(global, &args.xds, Question { type_url: SYNCZ, names: &[] }).await?;
    let namespace = global.namespace.as_deref();
    if args.output != "table" {
        for answer in answers {
            let whole = whole(&filtered(answer, namespace)?)?;
            let value: Value<'_> = serde_json::from_str(&whole)?;
            let value = Schema::default().canonical(RESPONSE, value);
            let text = match args.output.as_str() {
                "yaml" => yaml::render(&value),
                _ => json::render(&value, Style::Message),
            };
            writeln!(out, "{text}")?;
        }
        return Ok(());
    }
    let rows = table::rows(&answers, namespace)?;
    let layout = match (args.by_type, args.verbosity) {
        (true, _) => table::Layout::ByType,
        (false, 0) => table::Layout::Short,
        (false, _) => table::Layout::Verbose,
    };
    out.write_all(table::render(&rows, layout).as_bytes())?;
    for (name, what, why) in rows.iter().flat_map(table::Row::refusals) {
        warn(format!("{name} refused its {what}: {why}"));
    }
    Ok(())
}

/// An answer without proxies of other namespaces.
fn filtered(mut answer: DiscoveryResponse, namespace: Option<&str>) -> anyhow::Result<DiscoveryResponse> {
    if let Some(wanted) = namespace {
        let mut kept = Vec::new();
        for resource in answer.resources {
            let config: ClientConfig = resource.unpack()?;
            if metadata(&config, "NAMESPACE") == wanted {
                kept.push(resource);
            }
        }
        answer.resources = kept;
    }
    Ok(answer)
}

/// The JSON of an answer.
fn whole(answer: &DiscoveryResponse) -> anyhow::Result<String> {
    Ok(reflect::to_json(RESPONSE, &answer.encode_to_vec())?.to_string())
}

async fn compare(args: &Args, global: &Global, name: &str, out: &mut impl Write) -> Result {
    let (proxy, envoy) = match &args.file {
        Some(path) => {
            let namespace = global.namespace.as_deref().unwrap_or("default");
            let id = if name.contains('.') { name.to_owned() } else { format!("{name}.{namespace}") };
            (id, file(path)?)
        }
        None => {
            let mesh = Mesh::open(global).await?;
            let proxy = mesh.proxy(name).await?;
            let dump = mesh.admin(&proxy, args.proxy_admin_port).get("config_dump").await?;
            (proxy.to_string(), dump)
        }
    };
    let names = [proxy];
    let answers = xds::ask(global, &args.xds, Question { type_url: CONFIG_DUMP, names: &names }).await?;
    let istiod = dump(answers, &names[0])?;
    diff::show(&istiod, &envoy, out)
}

/// What istiod would send, as the page of Envoy has it.
fn dump(answers: Vec<DiscoveryResponse>, proxy: &str) -> anyhow::Result<String> {
    // An istiod to which it is not connected says so, or nothing.
    let is_dump = |answer: &DiscoveryResponse| {
        answer.resources.first().is_some_and(|first| first.type_url.contains(ENVOY))
    };
    let Some(answer) = answers.into_iter().find(is_dump) else {
        bail!(
            "unable to find config dump in Istiod responses: {proxy} is connected to none of them; see istioctl proxy-status"
        );
    };
    let sections: std::result::Result<Vec<String>, reflect::Error> =
        answer.resources.iter().map(|section: &Any| Ok(reflect::any_to_json(section)?.to_string())).collect();
    Ok(format!("{{\"configs\":[{}]}}", sections?.join(",")))
}
