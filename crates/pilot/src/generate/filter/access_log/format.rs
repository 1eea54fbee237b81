//! What a line of a log looks like.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use proto::Any;
use proto::envoy::config::core::v3::substitution_format_string::Format;
use proto::envoy::config::core::v3::{
    DataSource, JsonFormatOptions, SubstitutionFormatString, TypedExtensionConfig, data_source,
};
use proto::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;

/// Istio's line of text.
pub(super) const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's fields of JSON.
const JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// A line of text; Istio's when the format is empty. A line ends in a line break.
pub(super) fn text(format: &str) -> SubstitutionFormatString {
    let line = match format {
        "" => TEXT.to_owned(),
        format if format.ends_with('\n') => format.to_owned(),
        format => format!("{format}\n"),
    };
    let formatters = formatters(std::iter::once(line.as_str()));
    let source =
        DataSource { specifier: Some(data_source::Specifier::InlineString(line)), ..DataSource::default() };
    SubstitutionFormatString {
        formatters,
        format: Some(Format::TextFormatSource(source)),
        ..SubstitutionFormatString::default()
    }
}

/// An object of JSON; Istio's when it has no fields.
pub(super) fn json(fields: Struct) -> SubstitutionFormatString {
    let fields = if fields.fields.is_empty() { default_json() } else { fields };
    SubstitutionFormatString {
        formatters: formatters(texts(&fields)),
        json_format_options: Some(JsonFormatOptions { sort_properties: false }),
        format: Some(Format::JsonFormat(fields)),
        ..SubstitutionFormatString::default()
    }
}

/// Fields written as JSON; `None` when the text is no object.
pub(super) fn parse(text: &str) -> Option<Struct> {
    match value(&serde_json::from_str(text).ok()?).kind {
        Some(Kind::StructValue(fields)) => Some(fields),
        _ => None,
    }
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(value).collect() }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(name, field)| (name.clone(), value(field))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

fn default_json() -> Struct {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let fields: BTreeMap<String, Value> =
        JSON.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
    Struct { fields }
}

/// The texts of fields that are texts.
pub(super) fn texts(fields: &Struct) -> impl Iterator<Item = &str> {
    fields.fields.values().filter_map(|value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.as_str()),
        _ => None,
    })
}

/// Extensions that formats need. Envoy knows `%METADATA%` and `%CEL%` by itself.
pub(super) fn formatters<'a>(mut formats: impl Iterator<Item = &'a str>) -> Vec<TypedExtensionConfig> {
    let needed = formats.any(|format| format.contains("%REQ_WITHOUT_QUERY"));
    let extension = || TypedExtensionConfig {
        name: "envoy.formatter.req_without_query".into(),
        typed_config: Some(Any::pack(&ReqWithoutQuery::default())),
    };
    needed.then(extension).into_iter().collect()
}
