//! A real OpenTelemetry Collector, and what it took.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::mesh::{Hopeless, Mesh};
use crate::netns;
use crate::process::Process;

/// Where it takes spans and logs by gRPC.
pub const OTLP_GRPC: u16 = 4317;
/// Where it takes spans and logs by HTTP.
pub const OTLP_HTTP: u16 = 4318;
/// Where it takes spans as Zipkin does.
pub const ZIPKIN: u16 = 9411;

/// One that runs.
#[derive(Debug)]
pub struct Collector {
    folder: PathBuf,
    process: Process,
}

/// One span, as OpenTelemetry has it.
#[derive(Clone, Debug)]
pub struct Span {
    /// Name of the service that reports it.
    pub service: String,
    /// All of it.
    pub value: Value,
}

impl Span {
    /// A field of text, empty if it is not there.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.value[name].as_str().unwrap_or_default()
    }

    /// A tag.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<String> {
        attribute(&self.value["attributes"], name)
    }
}

/// An attribute, as text.
#[must_use]
pub fn attribute(attributes: &Value, name: &str) -> Option<String> {
    let found = attributes.as_array()?.iter().find(|attribute| attribute["key"] == name)?;
    let value = found["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

impl Collector {
    /// Starts one in a namespace; what it takes goes into the folder.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start(namespace: &str, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '0.0.0.0:{OTLP_GRPC}'}}, http: {{endpoint: '0.0.0.0:{OTLP_HTTP}'}}}}}}
  zipkin: {{endpoint: '0.0.0.0:{ZIPKIN}'}}
exporters:
  file/spans: {{path: {}, flush_interval: 50ms}}
  file/logs: {{path: {}, flush_interval: 50ms}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp, zipkin], exporters: [file/spans]}}
    logs: {{receivers: [otlp], exporters: [file/logs]}}
",
            file("spans"),
            file("logs")
        );
        fs::write(folder.join("config.yaml"), config)?;
        let mut command = netns::command(namespace, &super::tool("collector")?);
        command.arg("--config").arg(folder.join("config.yaml"));
        let process = Process::start(command, &folder.join("log"))?;
        let mut collector = Self { folder: folder.to_owned(), process };
        Mesh::wait("the collector", || {
            if let Some(status) = collector.process.ended() {
                return Err(Hopeless(format!("{status}: {}", collector.process.output())).into());
            }
            for port in [OTLP_GRPC, OTLP_HTTP, ZIPKIN] {
                netns::inside(namespace, || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?))?;
            }
            Ok(())
        })?;
        Ok(collector)
    }

    /// All batches of a kind, with the resource of each.
    fn batches(
        &self,
        file: &str,
        outer: &str,
        inner: &str,
        list: &str,
    ) -> anyhow::Result<Vec<(Value, Value)>> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let mut found = Vec::new();
        // The last line may be on its way.
        let end = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..end].lines() {
            let batch: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            for resource in batch[outer].as_array().into_iter().flatten() {
                let scopes = resource[inner].as_array().into_iter().flatten();
                for item in scopes.flat_map(|scope| scope[list].as_array().into_iter().flatten()) {
                    found.push((resource["resource"].clone(), item.clone()));
                }
            }
        }
        Ok(found)
    }

    /// All spans that came.
    ///
    /// # Errors
    /// When the collector wrote what cannot be read.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        let all = self.batches("spans", "resourceSpans", "scopeSpans", "spans")?;
        let spans = all.into_iter().map(|(resource, value)| Span {
            service: attribute(&resource["attributes"], "service.name").unwrap_or_default(),
            value,
        });
        Ok(spans.collect())
    }

    /// All lines of logs that came.
    ///
    /// # Errors
    /// When the collector wrote what cannot be read.
    pub fn logs(&self) -> anyhow::Result<Vec<Value>> {
        let all = self.batches("logs", "resourceLogs", "scopeLogs", "logRecords")?;
        Ok(all.into_iter().map(|(_, value)| value).collect())
    }

    /// Spans of one request, which is known by its path; all of them must be there at once.
    ///
    /// # Errors
    /// When there are fewer, or the collector wrote what cannot be read.
    pub fn trace(&self, path: &str, count: usize) -> anyhow::Result<Vec<Span>> {
        let is_of = |span: &Span| {
            ["http.url", "url.full"].iter().any(|tag| span.tag(tag).is_some_and(|url| url.ends_with(path)))
        };
        let spans: Vec<Span> = self.spans()?.into_iter().filter(is_of).collect();
        ensure!(spans.len() >= count, "{} of {count} spans of {path}: {spans:?}", spans.len());
        Ok(spans)
    }
}
