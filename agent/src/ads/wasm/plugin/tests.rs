use pbjson_types::Struct;
use proto::envoy::config::core::v3::async_data_source::Specifier;
use proto::envoy::config::core::v3::{AsyncDataSource, DataSource, HttpUri, RemoteDataSource, data_source};
use proto::envoy::extensions::wasm::v3::plugin_config::Vm;
use proto::envoy::extensions::wasm::v3::{EnvironmentVariables, FailurePolicy, PluginConfig, VmConfig};
use serde_json::json;

use super::*;

const SHA: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

/// A filter with that code and those variables.
fn config(specifier: Option<Specifier>, env: &[(&str, &str)]) -> PluginConfig {
    let key_values = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    PluginConfig {
        name: "auth".into(),
        root_id: "root".into(),
        vm: Some(Vm::VmConfig(VmConfig {
            runtime: "envoy.wasm.runtime.v8".into(),
            code: Some(AsyncDataSource { specifier }),
            environment_variables: Some(EnvironmentVariables { key_values, ..Default::default() }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn remote(uri: &str, sha256: &str, seconds: Option<i64>) -> Specifier {
    let timeout = seconds.map(|seconds| proto::wkt::Duration { seconds, nanos: 0 }.into());
    let http_uri = Some(HttpUri { uri: uri.into(), timeout, ..Default::default() });
    Specifier::Remote(RemoteDataSource { http_uri, sha256: sha256.into(), ..Default::default() })
}

fn http(config: PluginConfig) -> Bytes {
    encode("ns.auth".into(), Any::pack(&http::wasm::v3::Wasm { config: Some(config) }))
}

fn network(config: PluginConfig) -> Bytes {
    encode("ns.auth".into(), Any::pack(&network::wasm::v3::Wasm { config: Some(config) }))
}

fn of_struct(outer: &str, inner: &str, value: serde_json::Value) -> Bytes {
    let value: Struct = serde_json::from_value(value).unwrap();
    let message = TypedStruct { type_url: inner.into(), value: Some(value) };
    let typed = Any { type_url: outer.into(), value: message.encode_to_vec().into() };
    encode("ns.auth".into(), typed)
}

const UDPA: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";
const XDS: &str = "type.googleapis.com/xds.type.v3.TypedStruct";
const HTTP_WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const NETWORK_WASM: &str = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm";

fn read(bytes: &Bytes) -> Option<Plugin> {
    Plugin::read(bytes).unwrap()
}

fn typed(bytes: &Bytes) -> Any {
    let config = TypedExtensionConfig::decode(bytes.clone()).unwrap();
    assert_eq!(config.name, "ns.auth");
    config.typed_config.unwrap()
}

#[test]
fn what_asks_for_no_remote_code_is_left_alone() {
    let source = DataSource {
        specifier: Some(data_source::Specifier::Filename("/a.wasm".into())),
        ..Default::default()
    };
    let local = config(Some(Specifier::Local(source)), &[(PULL_SECRET, "")]);
    let of_local = json!({"config": {"vm_config": {"code": {"local": {"filename": "/a.wasm"}}}}});
    for bytes in [
        http(local.clone()),
        network(local),
        of_struct(UDPA, HTTP_WASM, of_local),
        of_struct(XDS, "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", json!({})),
        encode("ns.auth".into(), Any::pack(&http::rbac::v3::Rbac::default())),
    ] {
        assert!(read(&bytes).is_none());
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    let bad = Any { type_url: HTTP_WASM.into(), value: Bytes::from_static(&[0xff]) };
    for (bytes, part) in [
        (Bytes::from_static(&[0xff]), "varint"),
        (
            TypedExtensionConfig { name: "a".into(), typed_config: None }.encode_to_vec().into(),
            "no typed config",
        ),
        (encode("a".into(), bad), "http.wasm"),
        (http(PluginConfig::default()), "neither remote nor local"),
        (http(config(None, &[])), "neither remote nor local"),
        (of_struct(UDPA, HTTP_WASM, json!({})), "neither remote nor local"),
        (of_struct(UDPA, HTTP_WASM, json!({"config": 1})), "config: expected an object"),
        (
            of_struct(
                XDS,
                HTTP_WASM,
                json!({"config": {"vmConfig": {"code": {"remote": {"httpUri": {"uri": 3}}}}}}),
            ),
            "uri: expected text",
        ),
    ] {
        let error = Plugin::read(&bytes).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_wish_is_read_from_code_and_variables() {
    let env = [(PULL_SECRET, "{}"), (PULL_POLICY, "Always"), (RESOURCE_VERSION, "7"), ("MINE", "1")];
    let plugin = read(&http(config(Some(remote("oci://a.example/b", SHA, Some(30))), &env))).unwrap();
    let wish = plugin.wish().unwrap();
    assert_eq!((wish.url.as_str(), wish.resource.as_str()), ("oci://a.example/b", "ns.auth"));
    assert_eq!(wish.checksum, Some(SHA.to_ascii_lowercase()));
    assert_eq!(wish.timeout, Duration::from_secs(30));
    assert_eq!((wish.version.as_str(), wish.policy), ("7", Policy::Always));
    assert_eq!(wish.secret.as_ref().unwrap().0.as_str(), "{}");
    assert_eq!(format!("{:?}", wish.secret), "Some(Secret(..))");

    let plain =
        read(&http(config(Some(remote("http://a.example", "nil", None)), &[]))).unwrap().wish().unwrap();
    assert_eq!((plain.checksum, plain.timeout, plain.policy), (None, DEFAULT_TIMEOUT, Policy::Unspecified));
}

#[test]
fn a_wish_without_sense_is_told_apart() {
    let wish = |specifier, env: &[(&str, &str)]| read(&http(config(Some(specifier), env))).unwrap().wish();
    let none = Specifier::Remote(RemoteDataSource::default());
    assert_eq!(wish(none, &[]).unwrap_err().result(), Converted::miss_remote_fetch_hint);
    let secret = wish(remote("http://a", "", None), &[(PULL_SECRET, "")]).unwrap_err();
    assert_eq!(secret.result(), Converted::fetch_failure);
    let checksum = wish(remote("http://a", "../../x", None), &[]).unwrap_err();
    assert!(checksum.to_string().contains("64 hexadecimal digits"), "{checksum}");
}

#[test]
fn code_becomes_a_file_and_nothing_of_istio_reaches_the_module() {
    let env = [(PULL_SECRET, "s"), ("ISTIO_META_ELSE", "x"), ("MINE", "1")];
    let given = config(Some(remote("http://a.example", "", None)), &env);
    for (bytes, is_http) in [(http(given.clone()), true), (network(given), false)] {
        let out = typed(&read(&bytes).unwrap().with_file(Path::new("/m/a.wasm")));
        let got = if is_http {
            out.unpack::<http::wasm::v3::Wasm>().unwrap().config
        } else {
            out.unpack::<network::wasm::v3::Wasm>().unwrap().config
        };
        let got = got.unwrap();
        assert_eq!((got.name.as_str(), got.root_id.as_str()), ("auth", "root"));
        let Some(Vm::VmConfig(vm)) = got.vm else { panic!() };
        let Some(Specifier::Local(source)) = vm.code.unwrap().specifier else { panic!() };
        assert_eq!(source.specifier, Some(data_source::Specifier::Filename("/m/a.wasm".into())));
        assert_eq!(vm.runtime, "envoy.wasm.runtime.v8");
        let env = vm.environment_variables.unwrap().key_values;
        assert_eq!(env.into_iter().collect::<Vec<_>>(), [("MINE".to_owned(), "1".to_owned())]);
    }
    let only = config(Some(remote("http://a.example", "", None)), &[(RESOURCE_VERSION, "7")]);
    let out = typed(&read(&http(only)).unwrap().with_file(Path::new("/m")));
    let got = out.unpack::<http::wasm::v3::Wasm>().unwrap().config.unwrap();
    let Some(Vm::VmConfig(vm)) = got.vm else { panic!() };
    assert_eq!(vm.environment_variables, None);
}

#[test]
fn objects_stay_objects() {
    for (outer, camel) in [(UDPA, false), (XDS, true)] {
        let value = if camel {
            json!({"config": {"rootId": "root", "failurePolicy": "FAIL_OPEN", "vmConfig": {
                "code": {"remote": {"httpUri": {"uri": "https://a.example/m", "timeout": "1.5s"}, "sha256": SHA}},
                "environmentVariables": {"keyValues": {PULL_POLICY: "IfNotPresent"}},
            }}})
        } else {
            json!({"config": {"root_id": "root", "fail_open": true, "vm_config": {
                "code": {"remote": {"http_uri": {"uri": "https://a.example/m", "timeout": "1.5s"}, "sha256": SHA}},
                "environment_variables": {"key_values": {PULL_POLICY: "IfNotPresent"}},
            }}})
        };
        let plugin = read(&of_struct(outer, NETWORK_WASM, value)).unwrap();
        assert!(plugin.fails_open());
        let wish = plugin.wish().unwrap();
        assert_eq!((wish.url.as_str(), wish.policy), ("https://a.example/m", Policy::IfNotPresent));
        assert_eq!(wish.timeout, Duration::from_millis(1500));
        let out = typed(&plugin.with_file(Path::new("/m/a.wasm")));
        assert_eq!(out.type_url, outer);
        let message = TypedStruct::decode(out.value).unwrap();
        assert_eq!(message.type_url, NETWORK_WASM);
        let got = serde_json::to_value(message.value.unwrap()).unwrap();
        let (root, vm) = if camel { ("rootId", "vmConfig") } else { ("root_id", "vm_config") };
        let want = json!({"config": {root: "root", vm: {"code": {"local": {"filename": "/m/a.wasm"}}}}});
        let mut got = got;
        for name in ["failurePolicy", "fail_open"] {
            got["config"].as_object_mut().unwrap().remove(name);
        }
        assert_eq!(got, want);
    }
}

#[test]
fn without_code_everything_or_nothing_passes() {
    let at = |policy: FailurePolicy, fail_open| {
        let mut config = config(Some(remote("http://a", "", None)), &[]);
        config.set_failure_policy(policy);
        config.fail_open = fail_open;
        config
    };
    for (policy, fail_open, want) in [
        (FailurePolicy::Unspecified, false, false),
        (FailurePolicy::Unspecified, true, true),
        (FailurePolicy::FailOpen, false, true),
        (FailurePolicy::FailClosed, true, false),
        (FailurePolicy::FailReload, true, false),
    ] {
        let prefix = if want { "wasm-default-allow" } else { "wasm-default-deny" };
        let out = typed(&read(&http(at(policy, fail_open))).unwrap().without_code());
        let rbac = out.unpack::<http::rbac::v3::Rbac>().unwrap();
        assert_eq!((rbac.rules.is_none(), rbac.rules_stat_prefix.as_str()), (want, prefix));
        let out = typed(&read(&network(at(policy, fail_open))).unwrap().without_code());
        let rbac = out.unpack::<network::rbac::v3::Rbac>().unwrap();
        assert_eq!((rbac.rules.is_none(), rbac.stat_prefix.as_str()), (want, prefix));
    }
}
