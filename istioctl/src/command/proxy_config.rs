//! `proxy-config`: what the Envoy of a pod has.

mod all;
mod bootstrap;
mod cluster;
mod endpoint;
mod extension;
mod listener;
mod log;
mod roots;
mod route;
mod secret;

use std::io::{Read as _, Write};
use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, bail};

use crate::args::Global;
use crate::args::proxy_config::{Kind, ProxyConfig, Target};
use crate::dump::{ConfigDump, Error};
use crate::failure::Result;
use crate::json::Value;
use crate::proxies::Mesh;
use crate::render::json::Style;
use crate::render::{json, yaml};
use crate::schema::Schema;

/// How resources are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A table.
    Short,
    /// Everything.
    Json,
    /// Everything.
    Yaml,
}

impl Format {
    fn parse(name: &str) -> anyhow::Result<Self> {
        match name {
            "short" => Ok(Self::Short),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            _ => bail!("output format {name:?} not supported"),
        }
    }
}

/// Where from, and how asked.
struct Source<'a> {
    global: &'a Global,
    port: u16,
}

/// Part of the dump that each command needs.
mod page {
    pub(super) const ALL: &str = "config_dump?include_eds=true";
    pub(super) const BOOTSTRAP: &str = "config_dump?mask=bootstrap";
    pub(super) const CLUSTERS: &str =
        "config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters";
    pub(super) const LISTENERS: &str = "config_dump?mask=dynamic_listeners,static_listeners";
    pub(super) const ROUTES: &str = "config_dump?mask=dynamic_route_configs,static_route_configs";
    pub(super) const SECRETS: &str = "config_dump?mask=dynamic_active_secrets,dynamic_warming_secrets";
    pub(super) const ENDPOINTS: &str = "clusters?format=json";
}

/// Shows what was asked for.
///
/// # Errors
/// When a proxy or file cannot be read, or is none.
pub async fn run(args: &ProxyConfig, global: &Global, out: &mut impl Write) -> Result {
    let source = Source { global, port: args.proxy_admin_port };
    match &args.kind {
        Kind::All(args) => {
            let text = source.read("all", &args.target, page::ALL).await?;
            all::show(args, &text, out)
        }
        Kind::Bootstrap(args) => {
            let text = source.read("bootstrap", &args.target, page::BOOTSTRAP).await?;
            let dump = ConfigDump::parse(&text)?;
            match Format::parse(&args.output)? {
                Format::Short => Ok(out.write_all(bootstrap::summary(&dump)?.as_bytes())?),
                format => message(&bootstrap::whole(&dump)?, format, Style::Message, out),
            }
        }
        Kind::Cluster(args) => {
            let text = source.read("cluster", &args.target, page::CLUSTERS).await?;
            let dump = ConfigDump::parse(&text)?;
            cluster::show(args, &dump, Format::parse(&args.output.output)?, out)
        }
        Kind::Ecds(args) => {
            let text = source.read("ecds", &args.target, page::ALL).await?;
            let dump = ConfigDump::parse(&text)?;
            match Format::parse(&args.output.output)? {
                Format::Short => Ok(out.write_all(extension::summary(&dump)?.as_bytes())?),
                format => message(&extension::whole(&dump)?, format, Style::Extension, out),
            }
        }
        Kind::Eds(args) => {
            let text = source.read("eds", &args.target, page::ALL).await?;
            let dump = ConfigDump::parse(&text)?;
            endpoint::discovered(args, &dump, Format::parse(&args.output.output)?, out)
        }
        Kind::Endpoint(args) => {
            let text = source.read("endpoints", &args.target, page::ENDPOINTS).await?;
            endpoint::used(args, &text, Format::parse(&args.output.output)?, out)
        }
        Kind::Listener(args) => {
            let text = source.read("listener", &args.target, page::LISTENERS).await?;
            let dump = ConfigDump::parse(&text)?;
            listener::show(args, &dump, Format::parse(&args.output.output)?, out)
        }
        Kind::Log(args) => log::run(args, &source, out).await,
        Kind::RootcaCompare(args) => roots::run(args, &source, out).await,
        Kind::Route(args) => {
            let text = source.read("route", &args.target, page::ROUTES).await?;
            let dump = ConfigDump::parse(&text)?;
            route::show(args, &dump, Format::parse(&args.output.output)?, out)
        }
        Kind::Secret(args) => {
            let text = source.read("secret", &args.target, page::SECRETS).await?;
            let dump = ConfigDump::parse(&text)?;
            match Format::parse(&args.output.output)? {
                Format::Short => Ok(out.write_all(secret::summary(&dump, "")?.as_bytes())?),
                format => message(&secret::whole(&dump)?, format, Style::Message, out),
            }
        }
    }
}

impl Source<'_> {
    /// The text of a file, or of a page of the proxy.
    async fn read(&self, command: &str, target: &Target, page: &str) -> anyhow::Result<String> {
        match (&target.proxy, &target.file) {
            (None, Some(path)) => file(path),
            (Some(name), None) => {
                let mesh = Mesh::open(self.global).await?;
                let proxy = mesh.proxy(name).await?;
                mesh.admin(&proxy, self.port).get(page).await
            }
            _ => bail!("{command} requires pod name or --file parameter; see istioctl proxy-config --help"),
        }
    }
}

/// Reads what the user named; `-` is standard input.
pub(crate) fn file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("open {}: no such file or directory", path.display())
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Prints one message.
fn message(value: &Value<'_>, format: Format, style: Style, out: &mut impl Write) -> Result {
    let text = match format {
        Format::Yaml => yaml::render(value),
        Format::Json | Format::Short => json::render(value, style),
    };
    Ok(writeln!(out, "{text}")?)
}

/// Prints a list of messages of a type, one after the other: only one is in memory.
fn list<'a>(
    type_name: &str,
    items: impl IntoIterator<Item = std::result::Result<Value<'a>, Error>>,
    format: Format,
    out: &mut impl Write,
) -> Result {
    let schema = Schema::default();
    let mut is_empty = true;
    for item in items {
        let item = schema.canonical(type_name, item?);
        let mut text = String::new();
        if format == Format::Yaml {
            text = yaml::render(&Value::List(crate::json::Shape::Field, vec![item]));
        } else {
            text += if is_empty { "[\n" } else { ",\n" };
            json::indent(&mut text, 1);
            json::write(&mut text, &item, Style::Plain, 1);
        }
        out.write_all(text.as_bytes())?;
        is_empty = false;
    }
    let end = match (format, is_empty) {
        (Format::Yaml, true) => "[]\n\n",
        (Format::Yaml, false) => "\n",
        (_, true) => "[]\n",
        (_, false) => "\n]\n",
    };
    Ok(out.write_all(end.as_bytes())?)
}

/// Go's way to sort a short list by a comparison that is no order of all: an item goes
/// before its neighbour as long as it is less. Of a long list the order is that of the keys.
fn sort_as_go<T, K: Ord>(items: &mut [T], is_less: impl Fn(&T, &T) -> bool, key: impl Fn(&T) -> K) {
    /// Longest list that Go sorts so.
    const SHORT: usize = 12;
    if items.len() > SHORT {
        items.sort_by_key(key);
        return;
    }
    for at in 1..items.len() {
        let mut at = at;
        while at > 0 && is_less(&items[at], &items[at - 1]) {
            items.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// Parts of a cluster's name as Istio makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    host: String,
    subset: String,
    port: i64,
    direction: String,
}

impl Key {
    /// Reads `DIRECTION|PORT|SUBSET|HOST`, or the same with `_.` between.
    fn parse(name: &str) -> Self {
        let separator =
            if name.starts_with("outbound_") || name.starts_with("inbound_") { "_." } else { "|" };
        let mut parts = name.splitn(4, separator);
        let Some(direction) = parts.next().filter(|part| part.len() < name.len()) else {
            return Self::default();
        };
        let port = parts.next();
        let subset = parts.next();
        let host = parts.next();
        Self {
            direction: direction.to_owned(),
            port: if subset.is_some() { port.and_then(|port| port.parse().ok()).unwrap_or(0) } else { 0 },
            subset: if host.is_some() { subset.unwrap_or_default().to_owned() } else { String::new() },
            host: host.filter(|host| !host.contains(separator)).unwrap_or_default().to_owned(),
        }
    }

    /// What clusters and endpoints are sorted by.
    fn order(name: &str) -> Self {
        if is_key(name) { Self::parse(name) } else { Self { host: name.to_owned(), ..Self::default() } }
    }
}

/// Whether a cluster has a name as Istio makes it.
fn is_key(name: &str) -> bool {
    name.matches('|').count() >= 3
}

#[cfg(test)]
mod tests;
