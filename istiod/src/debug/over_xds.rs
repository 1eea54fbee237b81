//! Debug pages on discovery streams, as `istioctl` asks for them: the types
//! `istio.io/debug`, `istio.io/debug/syncz` and `istio.io/debug/config_dump`.

use bytes::Bytes;
use names::TypeUrl;
use prost::Message as _;
use prost_types::value::Kind as Value;
use proto::envoy::admin::v3::UpdateFailureState;
use proto::envoy::config::core::v3::{ControlPlane, Node};
use proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use proto::{Any, reflect};
use serde_json::json;
use tonic::Status;
use xds::{Request, SyncState, TypeStatus, Variant, frame};

use super::guard::Access;
use super::{NOT_CONNECTED, Page, Pages, dump, plain};
use crate::auth::Caller;
use crate::push::status::Row;

/// Any page by name, in the one name of a request.
const ANY: &str = "istio.io/debug";
/// What each proxy was sent and has accepted.
const SYNCZ: &str = "istio.io/debug/syncz";
/// What a proxy should have.
const CONFIG_DUMP: &str = "istio.io/debug/config_dump";

/// Whether a type stands for debug pages.
#[must_use]
pub fn is_page(type_url: &TypeUrl) -> bool {
    matches!(type_url, TypeUrl::Other(url) if url.starts_with(ANY))
}

/// A named value; of some there is no name.
type Named = (String, Any);

/// The whole message of gRPC that answers a request.
///
/// # Errors
/// When the caller may not see the page, or the request names none.
pub fn answer(
    pages: &Pages,
    caller: Option<&Caller>,
    variant: Variant,
    request: &Request,
) -> Result<Bytes, Status> {
    let type_url = request.type_url.as_str();
    let resources = match type_url {
        ANY => vec![any(pages, caller, &request.subscribe)?],
        SYNCZ => syncz(pages, &access(pages, caller)?),
        CONFIG_DUMP => config_dump(pages, &access(pages, caller)?, &request.subscribe),
        _ => {
            access(pages, caller)?;
            Vec::new()
        }
    };
    let version = pages.world.borrow().version.clone();
    let nonce = format!("{version}/debug");
    let control_plane = (type_url == SYNCZ).then(|| ControlPlane { identifier: identifier(&pages.instance) });
    Ok(match variant {
        Variant::Sotw => frame::framed(&DiscoveryResponse {
            version_info: version,
            resources: resources.into_iter().map(|(_, value)| value).collect(),
            type_url: type_url.into(),
            nonce,
            control_plane,
            ..DiscoveryResponse::default()
        }),
        Variant::Delta => frame::framed(&DeltaDiscoveryResponse {
            system_version_info: version,
            resources: resources.into_iter().map(resource).collect(),
            type_url: type_url.into(),
            nonce,
            control_plane,
            ..DeltaDiscoveryResponse::default()
        }),
    })
}

fn resource((name, value): Named) -> Resource {
    Resource { name, resource: Some(value), ..Resource::default() }
}

/// What the caller may see. Nobody is known on the plaintext port.
fn access(pages: &Pages, caller: Option<&Caller>) -> Result<Access, Status> {
    match caller {
        Some(caller) => Ok(pages.guard.access(caller)),
        None if !pages.guard.is_strict() => Ok(Access::All),
        None => Err(unknown_caller()),
    }
}

fn unknown_caller() -> Status {
    Status::unauthenticated("authentication required")
}

/// The page that a name asks for: `PAGE` or `PAGE?QUERY`.
fn any(pages: &Pages, caller: Option<&Caller>, names: &[String]) -> Result<Named, Status> {
    let caller = caller.ok_or_else(unknown_caller)?;
    let [name] = names else {
        return Err(Status::invalid_argument("exactly one debug request is required"));
    };
    let (page, query) = name.split_once('?').unwrap_or((name, ""));
    let access = pages.guard.access(caller);
    if !access.reaches(page) {
        let identities: Vec<String> = caller.identities.iter().map(ToString::to_string).collect();
        return Err(Status::permission_denied(format!(
            "the debug info is not available for current identity: {:?}",
            identities.join(" ")
        )));
    }
    let text = match pages.page(page, query, &access) {
        Page::Json(value) => plain(value).to_string(),
        Page::Text(_, words) => words,
    };
    Ok((name.clone(), Any { type_url: ANY.into(), value: text.into_bytes().into() }))
}

/// All connected proxies. Who only looks at these pages is none.
fn syncz(pages: &Pages, access: &Access) -> Vec<Named> {
    let rows = pages.table.all().into_iter().map(|(_, row)| row);
    let shown = rows.filter(|row| access.may_see(&row.proxy.namespace));
    shown.filter_map(|row| client(&row)).map(|config| (node_id(&config), Any::pack(&config))).collect()
}

fn node_id(config: &ClientConfig) -> String {
    config.node.as_ref().map(|node| node.id.clone()).unwrap_or_default()
}

fn client(row: &Row) -> Option<ClientConfig> {
    let types = row.types();
    let is_proxy = row.proxy.config.is_some() || !types.is_empty();
    is_proxy.then(|| {
        let text = |text: &str| prost_types::Value { kind: Some(Value::StringValue(text.to_owned())) };
        let fields = [
            ("CLUSTER_ID", &row.proxy.cluster_id),
            ("ISTIO_VERSION", &row.proxy.istio_version),
            ("NAMESPACE", &row.proxy.namespace),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let metadata = prost_types::Struct {
            fields: fields.map(|(name, value)| (name.to_owned(), text(value))).collect(),
        };
        // In the order of the URLs.
        let mut types: Vec<_> = types.iter().collect();
        types.sort_by_key(|(type_url, _)| type_url.as_str());
        ClientConfig {
            node: Some(Node { id: row.name(), metadata: Some(metadata), ..Node::default() }),
            generic_xds_configs: types
                .into_iter()
                .map(|(type_url, status)| of_type(type_url, status))
                .collect(),
            ..ClientConfig::default()
        }
    })
}

fn of_type(type_url: &TypeUrl, status: &TypeStatus) -> GenericXdsConfig {
    let state = match status.state() {
        SyncState::NotSent => ConfigStatus::NotSent,
        SyncState::Synced => ConfigStatus::Synced,
        SyncState::Stale => ConfigStatus::Stale,
        SyncState::Error => ConfigStatus::Error,
    };
    let sent_at = status.sent_at.map(prost_types::Timestamp::from);
    GenericXdsConfig {
        type_url: type_url.as_str().into(),
        last_updated: sent_at,
        config_status: state.into(),
        error_state: status.last_error.as_ref().map(|error| UpdateFailureState {
            last_update_attempt: sent_at,
            details: error.clone(),
            ..UpdateFailureState::default()
        }),
        ..GenericXdsConfig::default()
    }
}

/// What the proxy of a name should have; that it is not here otherwise, so that
/// another istiod is asked.
fn config_dump(pages: &Pages, access: &Access, names: &[String]) -> Vec<Named> {
    let [name] = names else { return Vec::new() };
    let found = pages.find(name).filter(|(_, row)| access.may_see(&row.proxy.namespace));
    let Some((_, row)) = found else {
        let value = NOT_CONNECTED.as_bytes().to_vec().into();
        return vec![(String::new(), Any { type_url: ANY.into(), value })];
    };
    let world = pages.world.borrow().clone();
    let dump = dump::page(&world, &row, false);
    let configs = dump["configs"].as_array().cloned().unwrap_or_default().into_iter();
    let packed = configs.filter_map(|config| reflect::from_json("google.protobuf.Any", config).ok());
    packed.filter_map(|bytes| Some((String::new(), Any::decode(bytes.as_slice()).ok()?))).collect()
}

/// How this istiod names itself to `istioctl`.
fn identifier(instance: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let info =
        json!({ "version": version, "revision": "", "golang_version": "", "status": "", "tag": version });
    json!({ "Component": "istiod", "ID": instance, "Info": info }).to_string()
}
