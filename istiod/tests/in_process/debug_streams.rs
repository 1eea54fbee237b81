//! Debug pages on discovery streams, as `istioctl` asks for them.

use std::time::SystemTime;

use prost::Message as _;
use proto::Any;
use proto::envoy::admin::v3::ClustersConfigDump;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use serde_json::Value;
use tonic::{Code, Status};

use super::plane::{Exchange, Plane, node};
use super::{CLUSTER, good, soon, token};

type Stream = Exchange<DiscoveryRequest, DiscoveryResponse>;

/// A node as `istioctl` names itself, in a namespace.
fn tool(namespace: &str) -> Node {
    let text = prost_types::value::Kind::StringValue(namespace.into());
    let fields = [("NAMESPACE".to_owned(), prost_types::Value { kind: Some(text) })];
    Node {
        id: "sidecar~127.0.0.1~test-1.default~default.svc.cluster.local".into(),
        metadata: Some(prost_types::Struct { fields: fields.into() }),
        ..Node::default()
    }
}

async fn ask(
    plane: &Plane,
    namespace: &str,
    type_url: &str,
    names: &[&str],
) -> Result<DiscoveryResponse, Status> {
    let token = token(&plane.tokens(), namespace, "default", "istio-ca", SystemTime::now());
    let mut stream = plane.sotw(Some(&token)).await;
    let request = DiscoveryRequest {
        node: Some(tool(namespace)),
        type_url: type_url.into(),
        resource_names: names.iter().map(|&name| name.to_owned()).collect(),
        ..DiscoveryRequest::default()
    };
    stream.send(request.clone()).await;
    let answer = soon(type_url, stream.next()).await?;
    // It accepts the answer, and is not answered again for ever.
    stream.send(DiscoveryRequest { response_nonce: answer.nonce.clone(), ..request }).await;
    stream.send(DiscoveryRequest { type_url: CLUSTER.into(), ..DiscoveryRequest::default() }).await;
    assert_eq!(soon("clusters", stream.next()).await?.type_url, CLUSTER);
    Ok(answer)
}

/// A proxy of bookinfo that has taken its clusters.
async fn proxy(plane: &Plane) -> Stream {
    let mut stream = plane.sotw(Some(&good(plane))).await;
    let request = DiscoveryRequest {
        node: node("reviews-v1", "10.77.0.21"),
        type_url: CLUSTER.into(),
        ..DiscoveryRequest::default()
    };
    stream.send(request.clone()).await;
    let first = soon("clusters", stream.next()).await.unwrap();
    let (nonce, version) = (first.nonce, first.version_info);
    stream.send(DiscoveryRequest { response_nonce: nonce, version_info: version, ..request }).await;
    stream
}

fn text(answer: &DiscoveryResponse) -> String {
    let [resource] = &answer.resources[..] else { panic!("{answer:?}") };
    assert_eq!(resource.type_url, "istio.io/debug");
    String::from_utf8(resource.value.to_vec()).unwrap()
}

fn clients(answer: &DiscoveryResponse) -> Vec<ClientConfig> {
    answer.resources.iter().map(|resource| resource.unpack().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_proxies_are_told_to_who_may_see_them() {
    let plane = Plane::start().await;
    let _proxy = proxy(&plane).await;
    let config = soon("the state", async {
        loop {
            let answer = ask(&plane, "istio-system", "istio.io/debug/syncz", &[]).await.unwrap();
            let identifier = answer.control_plane.clone().unwrap().identifier;
            let identifier: Value = serde_json::from_str(&identifier).unwrap();
            assert_eq!(identifier["Component"], "istiod");
            assert!(identifier["ID"].is_string() && identifier["Info"]["version"].is_string());
            let all = clients(&answer);
            let own = all.iter().find(|config| config.node.as_ref().unwrap().id == "reviews-v1.default");
            let own = own.unwrap().clone();
            if own.generic_xds_configs[0].config_status() == ConfigStatus::Synced {
                return own;
            }
        }
    })
    .await;
    assert_eq!(config.generic_xds_configs[0].type_url, CLUSTER);
    assert!(config.generic_xds_configs[0].last_updated.is_some());
    assert!(config.node.unwrap().metadata.unwrap().fields.contains_key("NAMESPACE"));
    // Of another namespace nothing is told.
    let answer = ask(&plane, "other", "istio.io/debug/syncz", &[]).await.unwrap();
    assert!(clients(&answer).is_empty());
    let answer = ask(&plane, "other", "istio.io/debug/config_dump", &["reviews-v1.default"]).await.unwrap();
    assert!(is_elsewhere(&answer));
    let answer = ask(&plane, "default", "istio.io/debug/config_dump", &["reviews-v1.default"]).await.unwrap();
    assert!(answer.resources.len() > 1 && !is_elsewhere(&answer));
}

/// Whether an answer has the words after which tools ask another istiod.
fn is_elsewhere(answer: &DiscoveryResponse) -> bool {
    let [only] = &answer.resources[..] else { return false };
    only.value.starts_with(b"Proxy not connected to this Pilot instance.")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_sent_as_envoys_own_messages() {
    let plane = Plane::start().await;
    let _proxy = proxy(&plane).await;
    let names = ["reviews-v1.default"];
    let answer = ask(&plane, "istio-system", "istio.io/debug/config_dump", &names).await.unwrap();
    let of = |name: &str| -> &Any {
        let url = format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump");
        answer.resources.iter().find(|any| any.type_url == url).unwrap_or_else(|| panic!("{name}"))
    };
    let clusters = ClustersConfigDump::decode(&of("Clusters").value[..]).unwrap();
    assert!(clusters.dynamic_active_clusters.len() > 3);
    assert!(clusters.dynamic_active_clusters[0].cluster.as_ref().unwrap().type_url == CLUSTER);
    of("Bootstrap");
    of("Listeners");
    of("Routes");
    let answer = ask(&plane, "istio-system", "istio.io/debug/config_dump", &["no.where"]).await.unwrap();
    assert!(is_elsewhere(&answer), "{answer:?}");
    for names in [&[][..], &["a", "b"]] {
        let answer = ask(&plane, "istio-system", "istio.io/debug/config_dump", names).await.unwrap();
        assert!(answer.resources.is_empty(), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_page_is_sent_as_text() {
    let plane = Plane::start().await;
    let _proxy = proxy(&plane).await;
    let page = async |name: &str| ask(&plane, "istio-system", "istio.io/debug", &[name]).await;
    let syncz: Value = serde_json::from_str(&text(&page("syncz").await.unwrap())).unwrap();
    assert!(syncz.as_array().unwrap().iter().any(|row| row["proxy"] == "reviews-v1.default"));
    let list = text(&page("list").await.unwrap());
    assert!(list.contains("\"config_dump\""), "{list}");
    let dump = text(&page("config_dump?proxyID=reviews-v1.default").await.unwrap());
    assert!(dump.contains("envoy.admin.v3.ClustersConfigDump"));
    assert_eq!(text(&page("nothing").await.unwrap()), "404 page not found\n");
    assert!(text(&page("edsz").await.unwrap()).contains("You must provide a proxyID"));
    for names in [&[][..], &["syncz", "list"]] {
        let status = ask(&plane, "istio-system", "istio.io/debug", names).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    // Others see proxies of their own namespace.
    let status = ask(&plane, "default", "istio.io/debug", &["syncz"]).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let own = ["edsz?proxyID=reviews-v1.default"];
    assert!(!text(&ask(&plane, "default", "istio.io/debug", &own).await.unwrap()).contains("not connected"));
    let other = text(&ask(&plane, "other", "istio.io/debug", &own).await.unwrap());
    assert!(other.contains("Proxy not connected to this Pilot instance"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_anything_in_plaintext() {
    let plane = Plane::start().await;
    for type_url in ["istio.io/debug", "istio.io/debug/syncz", "istio.io/debug/config_dump"] {
        let mut stream = plane.plain_delta().await;
        let request = proto::envoy::service::discovery::v3::DeltaDiscoveryRequest {
            node: Some(tool("istio-system")),
            type_url: type_url.into(),
            resource_names_subscribe: vec!["syncz".into()],
            ..Default::default()
        };
        stream.send(request).await;
        let status = soon(type_url, stream.next()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{type_url}: {status}");
    }
}
