//! What istiod is asked over xDS: `istio.io/debug` and what is below it.

mod tls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::{once, pending};
use hyper_util::rt::TokioIo;
use prost_types::value::Kind;
use proto::envoy::config::core::v3::{ControlPlane, Node};
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use crate::args::Global;
use crate::args::xds::Xds;
use crate::proxies::admin::CONNECT;
use crate::proxies::{Connection, Credentials, Mesh, Proxy};
use crate::render::plain::warn;

/// Any page, in the one name of a request.
pub const PAGE: &str = "istio.io/debug";
/// What each proxy was sent and has accepted.
pub const SYNCZ: &str = "istio.io/debug/syncz";
/// What a proxy should have.
pub const CONFIG_DUMP: &str = "istio.io/debug/config_dump";

/// Whom we ask as: a service account of the control plane's namespace.
const ACCOUNT: &str = "default";

/// How an istiod names itself.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Identifier {
    /// What it is.
    pub component: String,
    /// Name of its pod.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub info: Info,
}

/// A version.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Info {
    /// Its number.
    pub version: String,
    /// The commit.
    pub revision: String,
    /// Of Istio's own.
    pub golang_version: String,
    /// Whether the commit was all of it.
    pub status: String,
    /// Its tag.
    pub tag: String,
}

/// The istiod that has answered; what is not told is called missing.
#[must_use]
pub fn identifier(response: &DiscoveryResponse) -> Identifier {
    let named = |name: &str| Identifier {
        component: name.into(),
        id: name.into(),
        info: Info { version: format!("{name} CP ID"), ..Info::default() },
    };
    match &response.control_plane {
        None => named("MISSING"),
        Some(plane) => serde_json::from_str(&plane.identifier).unwrap_or_else(|_| named("INVALID")),
    }
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Type of what is asked for.
    pub type_url: &'a str,
    /// Its names.
    pub names: &'a [String],
}

/// Asks every istiod, all at once. Who does not answer is named on standard error, as
/// long as somebody does.
///
/// # Errors
/// When nobody answers.
pub async fn ask(
    global: &Global,
    args: &Xds,
    question: Question<'_>,
) -> anyhow::Result<Vec<DiscoveryResponse>> {
    let needs_mesh = args.xds_address.is_none() || !(args.plaintext || args.cert_dir.is_some());
    let mesh = if needs_mesh { Some(Mesh::open(global).await?) } else { None };
    let credentials = match &mesh {
        Some(mesh) if !args.plaintext && args.cert_dir.is_none() => mesh.credentials().await?,
        _ => Credentials::default(),
    };
    if let Some(address) = &args.xds_address {
        let secure = Secure { global, args, credentials: &credentials, is_tunneled: false };
        let answer = async {
            // It may be far away, or behind a way that loses a packet: the user says how long.
            let stream = tokio::time::timeout(args.timeout, TcpStream::connect(address)).await;
            let stream = stream.with_context(|| format!("no connection in {:?}", args.timeout))??;
            exchange(Box::new(stream), &secure, question).await
        };
        return Ok(vec![answer.await.with_context(|| format!("istiod at {address}"))?]);
    }
    let Some(mesh) = mesh else { bail!("no mesh") };
    let label = if args.xds_label.is_empty() && !args.revision.is_empty() {
        format!("app=istiod,istio.io/rev={}", args.revision)
    } else {
        args.xds_label.clone()
    };
    let istiods = mesh.istiods(&label).await?;
    if istiods.is_empty() {
        bail!(
            "no running Istio pods in {:?}: name the namespace with -i, or an istiod elsewhere with --xds-address",
            global.istio_namespace
        );
    }
    let secure = Secure { global, args, credentials: &credentials, is_tunneled: mesh.is_tunneled() };
    let asked = istiods.iter().map(|istiod| one(&mesh, istiod, &secure, question));
    let mut answers = Vec::new();
    let mut failures = Vec::new();
    for (istiod, answer) in istiods.iter().zip(join_all(asked).await) {
        match answer {
            Ok(mut answer) => {
                if question.type_url == PAGE {
                    name(&mut answer, istiod);
                }
                answers.push(answer);
            }
            Err(error) => failures.push(error.context(format!("istiod {istiod}"))),
        }
    }
    let mut failures = failures.into_iter();
    if answers.is_empty() {
        return Err(failures.next().context("nobody was asked")?);
    }
    for failure in failures {
        warn(format!("{failure:#}"));
    }
    Ok(answers)
}

/// With pages istiods do not say who they are; the pod that was asked is known.
fn name(answer: &mut DiscoveryResponse, istiod: &Proxy) {
    let own = Identifier { component: "istiod".into(), id: istiod.name.clone(), ..Identifier::default() };
    if answer.control_plane.is_none()
        && let Ok(identifier) = serde_json::to_string(&own)
    {
        answer.control_plane = Some(ControlPlane { identifier });
    }
}

async fn one(
    mesh: &Mesh,
    istiod: &Proxy,
    secure: &Secure<'_>,
    question: Question<'_>,
) -> anyhow::Result<DiscoveryResponse> {
    let connected = tokio::time::timeout(CONNECT, mesh.connect(istiod, secure.args.xds_port)).await;
    let connection = connected.with_context(|| format!("no connection in {} s", CONNECT.as_secs()))??;
    exchange(connection, secure, question).await
}

/// How a connection is secured.
struct Secure<'a> {
    global: &'a Global,
    args: &'a Xds,
    credentials: &'a Credentials,
    is_tunneled: bool,
}

async fn exchange(
    connection: Connection,
    secure: &Secure<'_>,
    question: Question<'_>,
) -> anyhow::Result<DiscoveryResponse> {
    let limit = secure.args.timeout;
    let asked = tokio::time::timeout(limit, conversation(connection, secure, question)).await;
    asked.with_context(|| format!("no answer in {} s", Duration::as_secs(&limit)))?
}

async fn conversation(
    connection: Connection,
    secure: &Secure<'_>,
    question: Question<'_>,
) -> anyhow::Result<DiscoveryResponse> {
    let connection = if secure.args.plaintext { connection } else { tls::wrap(connection, secure).await? };
    // There is one connection: it is taken by the first who asks for one.
    let slot = Arc::new(Mutex::new(Some(connection)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let connection = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { connection.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection is lost")) }
    });
    let channel = Endpoint::from_static("http://istiod").connect_with_connector(connector).await;
    let channel =
        channel.context("HTTP/2: is this a port of istiod? --plaintext asks 15010, else it is 15012")?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let requests =
        once(std::future::ready(request(&secure.global.istio_namespace, question))).chain(pending());
    let mut request = tonic::Request::new(requests);
    if let Some(token) = &secure.credentials.token {
        let value = format!("Bearer {token}").parse().context("the token is no text of a header")?;
        request.metadata_mut().insert("authorization", value);
    }
    let refused = |status: tonic::Status| anyhow::anyhow!("{:?}: {}", status.code(), status.message());
    let mut answers = client.stream_aggregated_resources(request).await.map_err(refused)?.into_inner();
    answers.message().await.map_err(refused)?.context("the stream ended without an answer")
}

fn request(namespace: &str, question: Question<'_>) -> DiscoveryRequest {
    let text = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = [("GENERATOR", "event"), ("SERVICE_ACCOUNT", ACCOUNT), ("NAMESPACE", namespace)];
    let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
    let node = Node {
        id: format!("sidecar~127.0.0.1~istioctl.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(prost_types::Struct { fields: fields.into() }),
        ..Node::default()
    };
    DiscoveryRequest {
        node: Some(node),
        type_url: question.type_url.into(),
        resource_names: question.names.to_vec(),
        ..DiscoveryRequest::default()
    }
}
