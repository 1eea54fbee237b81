mod registry;
pub(super) mod server;
mod web;

use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use proto::Any;
use proto::envoy::config::core::v3::async_data_source::Specifier;
use proto::envoy::config::core::v3::{
    AsyncDataSource, HttpUri, RemoteDataSource, TypedExtensionConfig, data_source,
};
use proto::envoy::extensions::filters::http::rbac::v3::Rbac;
use proto::envoy::extensions::filters::http::wasm::v3::Wasm;
use proto::envoy::extensions::wasm::v3::plugin_config::Vm;
use proto::envoy::extensions::wasm::v3::{EnvironmentVariables, PluginConfig, VmConfig};

use super::*;

/// A module of that many bytes.
pub(super) fn module(len: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.resize(len.max(8), 7);
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A fetcher with a directory of its own.
struct Stage {
    fetcher: Fetcher,
    metrics: Arc<Metrics>,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            enabled: true,
            dir: dir.path().join("data"),
            insecure: Vec::new(),
            expiry: Duration::from_secs(86400),
            purge_interval: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(15),
            attempts: 2,
            max_bytes: 1 << 20,
            blocked: Vec::new(),
            roots: None,
            docker_configs: Vec::new(),
        };
        change(&mut settings);
        let metrics = Arc::new(Metrics::default());
        Self { fetcher: Fetcher::new(settings, Tasks::new(), metrics.clone()), metrics, dir }
    }

    async fn convert(&self, plugin: &Wished) -> Outcome {
        let conversion = Conversion { name: String::new(), config: plugin.encode() };
        let bytes = self.fetcher.convert(conversion).await.unwrap();
        let config = TypedExtensionConfig::decode(bytes).unwrap();
        assert_eq!(config.name, plugin.resource);
        let typed = config.typed_config.unwrap();
        let Ok(wasm) = typed.unpack::<Wasm>() else {
            let rbac = typed.unpack::<Rbac>().unwrap();
            return if rbac.rules.is_none() { Outcome::Open } else { Outcome::Closed };
        };
        let Some(Vm::VmConfig(vm)) = wasm.config.unwrap().vm else { panic!() };
        let Some(Specifier::Local(source)) = vm.code.unwrap().specifier else { panic!() };
        let Some(data_source::Specifier::Filename(file)) = source.specifier else { panic!() };
        Outcome::File(file.into())
    }

    /// The module that the resource gets.
    async fn module(&self, plugin: &Wished) -> Vec<u8> {
        match self.convert(plugin).await {
            Outcome::File(file) => {
                assert!(file.starts_with(self.dir.path()));
                std::fs::read(file).unwrap()
            }
            outcome => panic!("{outcome:?}"),
        }
    }

    fn shows(&self, line: &str) -> bool {
        let text = self.metrics.render(SystemTime::now());
        text.lines().any(|found| found == format!("istio_agent_{line}"))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    File(PathBuf),
    Open,
    Closed,
}

/// A resource.
#[derive(Clone)]
struct Wished {
    resource: &'static str,
    url: String,
    sha256: String,
    fail_open: bool,
    env: Vec<(&'static str, String)>,
}

impl Wished {
    fn new(url: impl Into<String>) -> Self {
        Self {
            resource: "ns.auth",
            url: url.into(),
            sha256: String::new(),
            fail_open: false,
            env: Vec::new(),
        }
    }

    fn encode(&self) -> Bytes {
        let http_uri = HttpUri {
            uri: self.url.clone(),
            timeout: Some(proto::wkt::Duration::from(Duration::from_secs(30)).into()),
            ..Default::default()
        };
        let remote =
            RemoteDataSource { http_uri: Some(http_uri), sha256: self.sha256.clone(), ..Default::default() };
        let key_values =
            self.env.iter().map(|(name, value)| (format!("ISTIO_META_WASM_{name}"), value.clone())).collect();
        let vm = VmConfig {
            code: Some(AsyncDataSource { specifier: Some(Specifier::Remote(remote)) }),
            environment_variables: Some(EnvironmentVariables { key_values, ..Default::default() }),
            ..Default::default()
        };
        let config =
            PluginConfig { vm: Some(Vm::VmConfig(vm)), fail_open: self.fail_open, ..Default::default() };
        let typed = Any::pack(&Wasm { config: Some(config) });
        TypedExtensionConfig { name: self.resource.into(), typed_config: Some(typed) }.encode_to_vec().into()
    }
}

fn exists(path: &Path) -> bool {
    path.exists()
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let stage = Stage::new();
    let conversion = Conversion { name: "ns.auth".into(), config: Bytes::from_static(&[0xff]) };
    let error = stage.fetcher.convert(conversion).await.unwrap_err();
    assert!(error.to_string().starts_with("extension config \"ns.auth\": "), "{error}");
    assert!(stage.shows("wasm_config_conversion_count{result=\"unmarshal_failure\"} 1"));
}

#[tokio::test]
async fn everything_passes_when_it_is_off() {
    let stage = Stage::with(|settings| settings.enabled = false);
    for config in [Wished::new("http://127.0.0.1:1/").encode(), Bytes::from_static(&[0xff])] {
        let conversion = Conversion { name: String::new(), config: config.clone() };
        assert_eq!(stage.fetcher.convert(conversion).await.unwrap(), config);
    }
    assert!(!stage.fetcher.is_enabled());
}

#[tokio::test]
async fn nothing_is_made_for_resources_without_remote_code() {
    let stage = Stage::new();
    let config: Bytes =
        TypedExtensionConfig { name: "ns.rbac".into(), typed_config: Some(Any::pack(&Rbac::default())) }
            .encode_to_vec()
            .into();
    let conversion = Conversion { name: String::new(), config: config.clone() };
    assert_eq!(stage.fetcher.convert(conversion).await.unwrap(), config);
    assert!(!exists(&stage.dir.path().join("data")));
    assert!(stage.shows("wasm_config_conversion_count{result=\"no_remote_load\"} 1"));
}
