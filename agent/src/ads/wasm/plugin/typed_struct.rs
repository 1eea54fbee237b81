//! Wasm filters as JSON objects in messages: `xds.type.v3.TypedStruct` and
//! `udpa.type.v1.TypedStruct`, which have the same fields. They stay what they
//! are; Envoy reads them itself.

use std::collections::BTreeMap;
use std::time::Duration;

use pbjson_types::value::Kind;
use pbjson_types::{Struct, Value};

use super::{Code, PREFIX, Parts, Remote};

/// Either kind of message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TypedStruct {
    /// Type that the object stands for.
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    /// The object.
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Struct>,
}

/// Whether messages of that type are these.
pub(super) fn is_one(type_url: &str) -> bool {
    matches!(type_url.rsplit('/').next(), Some("xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct"))
}

/// A field has both names in proto JSON: as in the `.proto` file and in camel case.
type Names = [&'static str; 2];

const CONFIG: Names = ["config", "config"];
const VM_CONFIG: Names = ["vm_config", "vmConfig"];
const CODE: Names = ["code", "code"];
const ENV: Names = ["environment_variables", "environmentVariables"];
const KEY_VALUES: Names = ["key_values", "keyValues"];
const HOST_ENV_KEYS: Names = ["host_env_keys", "hostEnvKeys"];

fn get(object: &Struct, names: Names) -> Option<&Kind> {
    names.iter().find_map(|name| object.fields.get(*name)?.kind.as_ref())
}

/// An object below; `None` when it is not there, an error when it is none.
fn object(parent: &Struct, names: Names) -> Result<Option<&Struct>, String> {
    match get(parent, names) {
        None | Some(Kind::NullValue(_)) => Ok(None),
        Some(Kind::StructValue(object)) => Ok(Some(object)),
        Some(_) => Err(format!("{}: expected an object", names[0])),
    }
}

fn text(parent: &Struct, names: Names) -> Result<Option<&str>, String> {
    match get(parent, names) {
        None | Some(Kind::NullValue(_)) => Ok(None),
        Some(Kind::StringValue(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{}: expected text", names[0])),
    }
}

/// What is read; `None` when there is no code.
///
/// # Errors
/// What is not as the filter's message would have it.
pub(super) fn parts(message: &TypedStruct) -> Result<Option<Parts>, String> {
    let Some(root) = &message.value else { return Ok(None) };
    let Some(config) = object(root, CONFIG)? else { return Ok(None) };
    let Some(vm) = object(config, VM_CONFIG)? else { return Ok(None) };
    let Some(code) = object(vm, CODE)? else { return Ok(None) };
    let code = match (object(code, ["remote", "remote"])?, object(code, ["local", "local"])?) {
        (Some(_), Some(_)) => return Err("code: expected one of local and remote".into()),
        (Some(remote), None) => Code::Remote(self::remote(remote)?),
        (None, Some(_)) => Code::Local,
        (None, None) => return Ok(None),
    };
    Ok(Some(Parts { code, env: env(vm)?, fails_open: fails_open(config)? }))
}

fn remote(remote: &Struct) -> Result<Remote, String> {
    let sha256 = text(remote, ["sha256", "sha256"])?.unwrap_or_default().to_owned();
    let Some(uri) = object(remote, ["http_uri", "httpUri"])? else {
        return Ok(Remote { sha256, ..Default::default() });
    };
    let timeout = text(uri, ["timeout", "timeout"])?.map(duration).transpose()?;
    let uri = text(uri, ["uri", "uri"])?.unwrap_or_default().to_owned();
    Ok(Remote { uri: Some(uri), timeout, sha256 })
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<proto::wkt::Duration>().map_err(|error| format!("timeout: {error}"))?;
    Ok(parsed.to_std().unwrap_or_default())
}

fn env(vm: &Struct) -> Result<BTreeMap<String, String>, String> {
    let Some(env) = object(vm, ENV)? else { return Ok(BTreeMap::new()) };
    let Some(values) = object(env, KEY_VALUES)? else { return Ok(BTreeMap::new()) };
    let pair = |(name, value): (&String, &Value)| match &value.kind {
        Some(Kind::StringValue(text)) => Ok((name.clone(), text.clone())),
        _ => Err(format!("key_values: {name}: expected text")),
    };
    values.fields.iter().map(pair).collect()
}

fn fails_open(config: &Struct) -> Result<bool, String> {
    // Enumerations are written by name or by number.
    let policy = match get(config, ["failure_policy", "failurePolicy"]) {
        Some(Kind::StringValue(name)) => Some(name == "FAIL_OPEN").filter(|_| name != "UNSPECIFIED"),
        Some(Kind::NumberValue(number)) => Some(*number == 3.0).filter(|_| *number != 0.0),
        None | Some(Kind::NullValue(_)) => None,
        Some(_) => return Err("failure_policy: expected a name".into()),
    };
    match (policy, get(config, ["fail_open", "failOpen"])) {
        (Some(is_open), _) => Ok(is_open),
        (None, Some(Kind::BoolValue(is_open))) => Ok(*is_open),
        (None, None | Some(Kind::NullValue(_))) => Ok(false),
        (None, Some(_)) => Err("fail_open: expected true or false".into()),
    }
}

/// Puts a file in place of the code and removes what is for the agent only.
pub(super) fn set_file(message: &mut TypedStruct, file: String) {
    let config = message.value.as_mut().and_then(|root| object_mut(root, CONFIG));
    let Some(vm) = config.and_then(|config| object_mut(config, VM_CONFIG)) else { return };
    let named = |name: &str, kind| {
        Kind::StructValue(Struct { fields: [(name.to_owned(), Value { kind: Some(kind) })].into() })
    };
    let local = named("local", named("filename", Kind::StringValue(file)));
    vm.fields.insert(CODE[0].into(), Value { kind: Some(local) });
    let Some(env) = object_mut(vm, ENV) else { return };
    let is_empty = object_mut(env, KEY_VALUES).is_none_or(|values| {
        values.fields.retain(|name, _| !name.starts_with(PREFIX));
        values.fields.is_empty()
    });
    let has_host_keys =
        matches!(get(env, HOST_ENV_KEYS), Some(Kind::ListValue(list)) if !list.values.is_empty());
    if is_empty && !has_host_keys {
        for name in ENV {
            vm.fields.remove(name);
        }
    }
}

fn object_mut(parent: &mut Struct, names: Names) -> Option<&mut Struct> {
    let name = names.into_iter().find(|name| parent.fields.contains_key(*name))?;
    match parent.fields.get_mut(name)?.kind.as_mut()? {
        Kind::StructValue(object) => Some(object),
        _ => None,
    }
}
