//! xDS streams: what the agent takes out, puts in and holds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use istio_agent::ads::health::Health;
use istio_agent::ads::proxy::Proxy;
use istio_agent::ads::{Ends, Link, wasm};
use istio_agent::config::ads::Settings;
use istio_agent::config::{Endpoint, Security};
use istio_agent::identity::token::Token;
use istio_agent::metrics::Metrics;
use istio_agent::upstream::Keepalive;
use names::TypeUrl;
use proto::Any;
use proto::envoy::config::core::v3::{Node, TypedExtensionConfig};
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use proto::istio::mesh::v1alpha1::ProxyConfig;
use proto::istio::networking::nds::v1::NameTable;
use proto::istio::networking::nds::v1::name_table::NameInfo;
use runtime::tasks::Tasks;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::istiod::{Asked, Istiod, NAME};
use crate::pod::Exchange;
use crate::{PATIENCE, soon, until};

/// Long enough for a message that must not come to come.
const MOMENT: Duration = Duration::from_millis(200);

/// The part of an agent that carries streams, on a socket of its own.
struct Carrier {
    dir: tempfile::TempDir,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    names: watch::Receiver<Option<Arc<NameTable>>>,
    roots: watch::Receiver<Arc<Vec<String>>>,
    health: watch::Sender<Option<Health>>,
    link: watch::Receiver<Link>,
}

type Delta = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
type Sotw = Exchange<DiscoveryRequest, DiscoveryResponse>;

impl Carrier {
    fn start(istiod: &Istiod) -> Self {
        Self::with(istiod, 100, PATIENCE)
    }

    fn with(istiod: &Istiod, streams_max: usize, stall: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots_file = dir.path().join("roots.pem");
        std::fs::write(&roots_file, istiod.root_pem()).unwrap();
        std::fs::write(dir.path().join("token"), "first").unwrap();
        let endpoint = Endpoint {
            address: istiod.address().to_string(),
            server_name: NAME.into(),
            security: Security::Tls { roots: roots_file, client: None },
            headers: BTreeMap::new(),
        };
        let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::default()));
        let fetcher = wasm::Fetcher::new(fetching(dir.path()), tasks.clone(), metrics.clone());
        let (names_tx, names) = watch::channel(None);
        let (roots_tx, roots) = watch::channel(Arc::default());
        let (health, health_rx) = watch::channel(None);
        let (link_tx, link) = watch::channel(Link::default());
        let ends = Ends {
            names: Some(names_tx),
            roots: Some(roots_tx),
            health: Some(health_rx),
            link: Some(link_tx),
            extensions: Some(fetcher),
        };
        let token = Arc::new(Token::new(dir.path().join("token"), metrics.clone()));
        let settings = Settings { keepalive: Keepalive::default(), streams_max, stall };
        let proxy = Arc::new(Proxy::new(endpoint, settings, token, ends, &tasks, metrics.clone()));
        let listener = UnixListener::bind(dir.path().join("XDS")).unwrap();
        let set = tasks.clone();
        drop(tasks.spawn("accept", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let proxy = proxy.clone();
                let service = hyper::service::service_fn(move |request| {
                    let proxy = proxy.clone();
                    async move { Ok::<_, Infallible>(proxy.serve(request).await) }
                });
                drop(set.spawn("connection", async move {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                }));
            }
        }));
        Self { dir, tasks, metrics, names, roots, health, link }
    }

    async fn client(&self) -> hyper::client::conn::http2::SendRequest<tonic::body::Body> {
        let stream = UnixStream::connect(self.dir.path().join("XDS")).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        drop(self.tasks.spawn("client", connection));
        sender
    }

    async fn delta(&self) -> Delta {
        let mut sender = self.client().await;
        let service = tower::service_fn(move |request| sender.send_request(request));
        let origin = http::Uri::from_static("http://envoy/");
        let mut client = AggregatedDiscoveryServiceClient::with_origin(service, origin)
            .max_decoding_message_size(64 << 20);
        let (tx, rx) = mpsc::channel(16);
        let call = async move { client.delta_aggregated_resources(ReceiverStream::new(rx)).await };
        Exchange::new(tx, self.tasks.spawn("stream", call))
    }

    async fn sotw(&self) -> Sotw {
        let mut sender = self.client().await;
        let service = tower::service_fn(move |request| sender.send_request(request));
        let origin = http::Uri::from_static("http://envoy/");
        let mut client = AggregatedDiscoveryServiceClient::with_origin(service, origin);
        let (tx, rx) = mpsc::channel(16);
        let call = async move { client.stream_aggregated_resources(ReceiverStream::new(rx)).await };
        Exchange::new(tx, self.tasks.spawn("stream", call))
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.render(std::time::SystemTime::now()).lines().any(|found| found == line)
    }
}

fn fetching(dir: &std::path::Path) -> wasm::Settings {
    wasm::Settings {
        enabled: true,
        dir: dir.join("wasm"),
        insecure: Vec::new(),
        expiry: PATIENCE,
        purge_interval: PATIENCE,
        request_timeout: PATIENCE,
        attempts: 1,
        max_bytes: 1 << 20,
        blocked: Vec::new(),
        roots: None,
        docker_configs: Vec::new(),
    }
}

fn subscribe(kind: &TypeUrl) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: "sidecar~1".into(), ..Node::default() }),
        type_url: kind.as_str().into(),
        resource_names_subscribe: vec!["x".into()],
        ..DeltaDiscoveryRequest::default()
    }
}

fn subscribe_sotw(kind: &TypeUrl) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.as_str().into(),
        resource_names: vec!["x".into()],
        ..DiscoveryRequest::default()
    }
}

fn any(kind: &TypeUrl, message: &impl prost::Message) -> Any {
    Any { type_url: kind.as_str().into(), value: message.encode_to_vec().into() }
}

fn response(kind: &TypeUrl, nonce: &str, resource: Option<Any>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        system_version_info: "v".into(),
        resources: resource
            .into_iter()
            .map(|any| Resource { name: "r".into(), resource: Some(any), ..Resource::default() })
            .collect(),
        type_url: kind.as_str().into(),
        nonce: nonce.into(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn response_sotw(kind: &TypeUrl, nonce: &str, resource: Any) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: format!("v-{nonce}"),
        resources: vec![resource],
        type_url: kind.as_str().into(),
        nonce: nonce.into(),
        ..DiscoveryResponse::default()
    }
}

fn names(host: &str) -> NameTable {
    let mut table = NameTable::default();
    table.table.insert(host.into(), NameInfo { ips: vec!["10.0.0.1".into()], ..NameInfo::default() });
    table
}

/// Waits for a request, from the given place on.
async fn asked(istiod: &Istiod, from: usize, what: &str, is: impl Fn(&Asked) -> bool) -> Asked {
    until(what, || istiod.asked()[from.min(istiod.asked().len())..].iter().any(&is)).await;
    istiod.asked()[from..].iter().find(|asked| is(asked)).unwrap().clone()
}

fn kinds(istiod: &Istiod) -> Vec<String> {
    istiod.asked().iter().map(|asked| TypeUrl::from(asked.type_url.as_str()).short().to_owned()).collect()
}

#[tokio::test]
async fn the_agent_asks_for_its_own_types_after_envoys_listeners() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    carrier.health.send_replace(Some(Health::Unhealthy("no answer".into())));
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Cluster)).await;
    soon("an answer", stream.next()).await.unwrap();
    assert_eq!(kinds(&istiod), ["CDS"], "nothing before the listeners");
    stream.send(subscribe(&TypeUrl::Listener)).await;
    let health = asked(&istiod, 0, "health", |asked| asked.type_url.ends_with("HealthInformation")).await;
    assert_eq!(kinds(&istiod)[..4], ["CDS", "LDS", "NDS", "PCDS"]);
    assert_eq!(health.error.as_deref(), Some("no answer"));
    assert_eq!(
        istiod.asked().iter().map(|asked| asked.has_node).collect::<Vec<_>>(),
        [true, true, false, false, false],
        "the node is in Envoy's messages only"
    );
    // Later listeners add nothing; a change of health does.
    let before = istiod.asked().len();
    stream.send(subscribe(&TypeUrl::Listener)).await;
    soon("an answer", stream.next()).await.unwrap();
    carrier.health.send_replace(Some(Health::Healthy));
    let health =
        asked(&istiod, before, "health", |asked| asked.type_url.ends_with("HealthInformation")).await;
    assert_eq!(health.error, None);
    assert_eq!(istiod.asked().len(), before + 2);
}

#[tokio::test]
async fn names_and_roots_are_taken_out_and_acknowledged() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Listener)).await;
    soon("an answer", stream.next()).await.unwrap();
    asked(&istiod, 0, "PCDS", |asked| asked.type_url == TypeUrl::ProxyConfig.as_str()).await;

    istiod.push(response(&TypeUrl::NameTable, "n1", Some(any(&TypeUrl::NameTable, &names("a.test")))));
    let ack = asked(&istiod, 0, "an ACK", |asked| asked.nonce == "n1").await;
    assert_eq!((ack.type_url.as_str(), ack.error), (TypeUrl::NameTable.as_str(), None));
    assert!(carrier.names.borrow().as_ref().unwrap().table.contains_key("a.test"));

    let config = ProxyConfig { ca_certificates_pem: vec!["root".into()], ..ProxyConfig::default() };
    istiod.push(response(&TypeUrl::ProxyConfig, "n2", Some(any(&TypeUrl::ProxyConfig, &config))));
    asked(&istiod, 0, "an ACK", |asked| asked.nonce == "n2" && asked.error.is_none()).await;
    assert_eq!(**carrier.roots.borrow(), ["root"]);

    let garbage = Any { type_url: TypeUrl::NameTable.as_str().into(), value: vec![0xff; 9].into() };
    istiod.push(response(&TypeUrl::NameTable, "n3", Some(garbage)));
    let nack = asked(&istiod, 0, "a NACK", |asked| asked.nonce == "n3").await;
    assert!(nack.error.unwrap().starts_with("NDS: "));
    assert!(carrier.names.borrow().as_ref().unwrap().table.contains_key("a.test"), "the last good one stays");

    // Envoy has seen nothing of it.
    istiod.push(response(&TypeUrl::Cluster, "n4", None));
    assert_eq!(soon("a response", stream.next()).await.unwrap().nonce, "n4");
}

#[tokio::test]
async fn the_state_of_the_world_is_told_the_version_in_force() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    let mut stream = carrier.sotw().await;
    stream.send(subscribe_sotw(&TypeUrl::Listener)).await;
    soon("an answer", stream.next()).await.unwrap();
    asked(&istiod, 0, "NDS", |asked| asked.type_url == TypeUrl::NameTable.as_str()).await;
    let table = any(&TypeUrl::NameTable, &names("a.test"));
    istiod.push_sotw(response_sotw(&TypeUrl::NameTable, "n1", table));
    let ack = asked(&istiod, 0, "an ACK", |asked| asked.nonce == "n1").await;
    assert_eq!((ack.version.as_str(), ack.error), ("v-n1", None));
    assert!(carrier.names.borrow().is_some());
}

#[tokio::test]
async fn only_types_that_envoy_knows_are_passed_on() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Cluster)).await;
    soon("an answer", stream.next()).await.unwrap();
    let unknown = TypeUrl::Other("type.googleapis.com/istio.security.Authorization".into());
    let workload = TypeUrl::Other("type.googleapis.com/istio.workload.Workload".into());
    istiod.push(response(&unknown, "n1", Some(any(&unknown, &names("x")))));
    istiod.push(response(&unknown, "n2", None));
    istiod.push(response(&workload, "n3", Some(any(&workload, &names("x")))));
    let passed = soon("a response", stream.next()).await.unwrap();
    assert_eq!(passed, response(&workload, "n3", Some(any(&workload, &names("x")))));
    assert!(carrier.metric("istio_agent_xds_proxy_responses_dropped 2"));
}

#[tokio::test]
async fn extensions_are_made_ready_and_what_cannot_be_read_is_refused() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Cluster)).await;
    soon("an answer", stream.next()).await.unwrap();
    let filter = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let config = TypedExtensionConfig {
        name: "filter".into(),
        typed_config: Some(Any { type_url: filter.into(), ..Any::default() }),
    };
    let good = response(&TypeUrl::Extension, "n1", Some(any(&TypeUrl::Extension, &config)));
    istiod.push(good.clone());
    assert_eq!(soon("the extension", stream.next()).await.unwrap(), good);
    let garbage = Any { type_url: TypeUrl::Extension.as_str().into(), value: vec![0xff; 9].into() };
    istiod.push(response(&TypeUrl::Extension, "n2", Some(garbage)));
    let nack = asked(&istiod, 0, "a NACK", |asked| asked.nonce == "n2").await;
    assert!(nack.error.is_some() && nack.type_url == TypeUrl::Extension.as_str());
    istiod.push(response(&TypeUrl::Cluster, "n3", None));
    assert_eq!(soon("the rest", stream.next()).await.unwrap().nonce, "n3");
}

#[tokio::test]
async fn a_large_response_passes_while_the_agents_own_are_acknowledged() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Listener)).await;
    soon("an answer", stream.next()).await.unwrap();
    asked(&istiod, 0, "NDS", |asked| asked.type_url == TypeUrl::NameTable.as_str()).await;
    let large = Any { type_url: TypeUrl::Cluster.as_str().into(), value: vec![7; 10 << 20].into() };
    for round in 0..3 {
        istiod.push(response(&TypeUrl::Cluster, "large", Some(large.clone())));
        let table = any(&TypeUrl::NameTable, &names(&format!("{round}.test")));
        istiod.push(response(&TypeUrl::NameTable, &format!("n{round}"), Some(table)));
        let passed = soon("the response", stream.next()).await.unwrap();
        assert_eq!(passed.resources[0].resource.as_ref().unwrap().value.len(), 10 << 20);
        asked(&istiod, 0, "an ACK", |asked| asked.nonce == format!("n{round}")).await;
    }
}

#[tokio::test]
async fn an_istiod_that_refuses_is_asked_again_with_all_that_envoy_has_sent() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    istiod.refuse_streams([
        Status::resource_exhausted("request rate limit exceeded"),
        Status::unauthenticated("no token yet"),
        Status::unavailable("not yet"),
    ]);
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Cluster)).await;
    stream.send(subscribe(&TypeUrl::Listener)).await;
    let answer = soon("an answer", stream.next()).await.unwrap();
    assert_eq!(answer.type_url, TypeUrl::Cluster.as_str());
    assert_eq!(istiod.streams().len(), 4);
    asked(&istiod, 0, "PCDS", |asked| asked.type_url == TypeUrl::ProxyConfig.as_str()).await;
    assert_eq!(kinds(&istiod), ["CDS", "LDS", "NDS", "PCDS"], "each once");
    assert_eq!(*carrier.link.borrow(), Link::Connected);

    // What another try cannot change is told at once.
    istiod.refuse_streams([Status::permission_denied("another namespace")]);
    let mut other = carrier.delta().await;
    other.send(subscribe(&TypeUrl::Cluster)).await;
    let status = soon("a refusal", other.next()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::PermissionDenied, "another namespace"));
}

#[tokio::test]
async fn nobody_is_dialled_with_an_expired_token_and_a_new_one_is_seen_soon() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    // It ended in 1970.
    std::fs::write(carrier.dir.path().join("token"), "e30.eyJleHAiOjF9.c2ln").unwrap();
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Cluster)).await;
    until("the token being looked at", || !carrier.metric("istio_agent_expired_tokens_total 0")).await;
    sleep(3 * MOMENT).await;
    assert_eq!(istiod.connections(), 0);
    std::fs::write(carrier.dir.path().join("token"), "good").unwrap();
    soon("an answer", stream.next()).await.unwrap();
    assert_eq!(istiod.connections(), 1);
}

#[tokio::test]
async fn health_is_told_again_to_another_istiod_and_the_link_is_known() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::start(&istiod);
    assert_eq!(*carrier.link.borrow(), Link::NeverConnected);
    carrier.health.send_replace(Some(Health::Healthy));
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Listener)).await;
    soon("an answer", stream.next()).await.unwrap();
    asked(&istiod, 0, "health", |asked| asked.type_url.ends_with("HealthInformation")).await;

    istiod.stop().await;
    soon("the end", stream.next()).await.unwrap_err();
    assert!(matches!(*carrier.link.borrow(), Link::Lost { .. }));
    let (istiod, before) = (istiod.restart(), carrier.metrics.clone());
    let from = istiod.asked().len();
    let mut stream = carrier.delta().await;
    stream.send(subscribe(&TypeUrl::Listener)).await;
    soon("an answer", stream.next()).await.unwrap();
    asked(&istiod, from, "health", |asked| asked.type_url.ends_with("HealthInformation")).await;
    assert_eq!(*carrier.link.borrow(), Link::Connected);
    let text = before.render(std::time::SystemTime::now());
    assert!(text.contains("istio_agent_istiod_connection_terminations{type=\"error\"} 1"), "{text}");

    drop(stream);
    until("the end of Envoy's stream", || {
        carrier.metric("istio_agent_envoy_connection_terminations{type=\"cancelled\"} 1")
    })
    .await;
    assert!(matches!(*carrier.link.borrow(), Link::Lost { .. }));
}

#[tokio::test]
async fn clients_beyond_the_limit_are_refused_and_others_stay() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::with(&istiod, 1, PATIENCE);
    let mut first = carrier.delta().await;
    first.send(subscribe(&TypeUrl::Cluster)).await;
    soon("an answer", first.next()).await.unwrap();
    let mut second = carrier.delta().await;
    second.send(subscribe(&TypeUrl::Cluster)).await;
    let status = soon("a refusal", second.next()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    first.send(subscribe(&TypeUrl::Cluster)).await;
    soon("an answer", first.next()).await.unwrap();
    drop(first);
    // Its place is free again.
    soon("a place", async {
        loop {
            let mut third = carrier.delta().await;
            third.send(subscribe(&TypeUrl::Cluster)).await;
            if third.next().await.is_ok() {
                break;
            }
            sleep(MOMENT / 10).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_istiod_nothing_for_long() {
    let istiod = Istiod::start().await;
    let carrier = Carrier::with(&istiod, 100, Duration::from_millis(400));
    let mut idle = carrier.delta().await;
    idle.send(subscribe(&TypeUrl::Cluster)).await;
    soon("an answer", idle.next()).await.unwrap();
    // It never looks at what it is sent, which is more than any window.
    let mut lazy = carrier.sotw().await;
    lazy.send(subscribe_sotw(&TypeUrl::Cluster)).await;
    until("the second stream", || istiod.open() == 2).await;
    let large = Any { type_url: TypeUrl::Cluster.as_str().into(), value: vec![7; 3 << 20].into() };
    istiod.push_sotw(response_sotw(&TypeUrl::Cluster, "large", large.clone()));
    // Also while the workload's health is never the same for long.
    let (health, mut is_well) = (carrier.health.clone(), false);
    let flapping = carrier.tasks.spawn("health", async move {
        loop {
            is_well = !is_well;
            health.send_replace(Some(if is_well { Health::Healthy } else { Health::Unhealthy("x".into()) }));
            sleep(MOMENT / 10).await;
        }
    });
    until("the stream being given up", || istiod.open() == 1).await;
    flapping.abort();
    // What it was sent before is still there, and then the reason.
    let status = soon("the reason", async {
        loop {
            if let Err(status) = lazy.next().await {
                return status;
            }
        }
    })
    .await;
    assert!(matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Internal), "{status}");
    // A stream on which nothing is to be said is not stalled.
    sleep(Duration::from_secs(1)).await;
    idle.send(subscribe(&TypeUrl::Cluster)).await;
    soon("an answer", idle.next()).await.unwrap();
}
