//! Debug pages, in the forms that Istio's tools read.

use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use serde_json::Value;

use super::plane::{Exchange, Plane, node};
use super::{CLUSTER, ENDPOINT, good, soon};
use proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;

const NAME: &str = "outbound|9080||reviews.default.svc.cluster.local";

async fn connected(plane: &Plane) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
    let mut stream = plane.delta(Some(&good(plane))).await;
    for (type_url, names) in [(CLUSTER, Vec::new()), (ENDPOINT, vec![NAME.to_owned()])] {
        let request = DeltaDiscoveryRequest {
            node: node("reviews-v1", "10.77.0.21"),
            type_url: type_url.into(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        stream.send(request).await;
        let response = soon(type_url, stream.next()).await.unwrap();
        let accept = DeltaDiscoveryRequest {
            type_url: type_url.into(),
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        stream.send(accept).await;
    }
    stream
}

async fn page(plane: &Plane, path: &str) -> Value {
    let (status, text) = plane.page(plane.running.monitoring, path).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_has_its_form() {
    let plane = Plane::start().await;
    let _stream = connected(&plane).await;
    let adsz = page(&plane, "/debug/adsz").await;
    assert_eq!(adsz["totalClients"], 1);
    assert_eq!(adsz["clients"][0]["watches"][ENDPOINT][0], NAME);
    assert!(
        adsz["clients"][0]["connectionId"].as_str().unwrap().starts_with("sidecar~10.77.0.21~reviews-v1")
    );
    assert_eq!(page(&plane, "/debug/connections").await["totalClients"], 1);

    let services = page(&plane, "/debug/registryz").await;
    let find = |name: &str| {
        let all = services.as_array().unwrap();
        all.iter().find(|service| service["Attributes"]["Name"] == name).unwrap().clone()
    };
    assert_eq!(find("reviews")["hostname"], "reviews.default.svc.cluster.local");
    assert_eq!(find("reviews")["ports"][0]["port"], 9080);
    for name in ["endpointz", "endpointShardz"] {
        let shards = page(&plane, &format!("/debug/{name}")).await;
        let shards = &shards["reviews.default.svc.cluster.local"]["default"]["Shards"];
        assert!(shards["Kubernetes/Kubernetes"][0]["Addresses"][0].is_string(), "{shards}");
    }
    assert!(page(&plane, "/debug/mesh").await["rootNamespace"].is_string());
    assert!(page(&plane, "/debug/instancesz").await["reviews-v1.default"][0]["Service"].is_object());
    assert!(page(&plane, "/debug/push_status").await.is_object());
    assert!(page(&plane, "/debug/cachez").await["classes"].as_u64().unwrap() >= 1);
    let list = page(&plane, "/debug/list").await;
    assert!(list.as_array().unwrap().contains(&Value::from("config_dump")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_shows_what_the_proxy_should_have() {
    let plane = Plane::start().await;
    let _stream = connected(&plane).await;
    let dump = page(&plane, "/debug/config_dump?proxyID=reviews-v1.default&include_eds").await;
    let of = |kind: &str| {
        let configs = dump["configs"].as_array().unwrap().iter();
        let kind = format!("type.googleapis.com/envoy.admin.v3.{kind}ConfigDump");
        configs
            .clone()
            .find(|config| config["@type"] == kind)
            .unwrap_or_else(|| panic!("{kind}: {dump}"))
            .clone()
    };
    let clusters = of("Clusters");
    let clusters = clusters["dynamicActiveClusters"].as_array().unwrap();
    assert!(clusters.iter().any(|entry| entry["cluster"]["name"] == NAME));
    assert_eq!(of("Endpoints")["dynamicEndpointConfigs"][0]["endpointConfig"]["clusterName"], NAME);
    of("Bootstrap");
    of("Listeners");
    of("Routes");
    of("Secrets");
    let (status, text) = plane.page(plane.running.monitoring, "/debug/config_dump?proxyID=no.where").await;
    assert_eq!(status, 404, "{text}");
    assert_eq!(plane.page(plane.running.monitoring, "/debug/config_dump").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_asked_for_sends_everything_again_and_a_disconnect_ends_the_stream() {
    let plane = Plane::start().await;
    let mut stream = connected(&plane).await;
    let (status, text) = plane.page(plane.running.monitoring, "/debug/adsz?push=true").await;
    assert_eq!((status, text.as_str()), (200, "Pushed to 1 servers\n"));
    let again = soon("clusters", stream.next()).await.unwrap();
    assert_eq!(again.type_url, CLUSTER);
    assert!(again.resources.iter().any(|resource| resource.name == NAME));
    let (status, _) =
        plane.page(plane.running.monitoring, "/debug/force_disconnect?proxyID=reviews-v1.default").await;
    assert_eq!(status, 200);
    let end = soon("the end", async {
        loop {
            if let Err(status) = stream.next().await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end}");
}
