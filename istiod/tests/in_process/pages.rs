//! Debug pages, in the forms that Istio's tools read.

use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use serde_json::{Value, json};

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
    let own = page(&plane, "/debug/instancesz").await["reviews-v1.default"][0].clone();
    assert!(own["Service"].is_object());
    assert_eq!(own["Port"], json!({"name": "http", "port": 9080, "protocol": "HTTP", "TargetPort": 9080}));
    let status = page(&plane, "/debug/push_status").await;
    for (metric, events) in status.as_object().unwrap() {
        for (key, event) in events.as_object().unwrap_or_else(|| panic!("{metric}: {events}")) {
            let is_text = |name: &str| event.get(name).is_none_or(Value::is_string);
            assert!(event.is_object() && is_text("proxy") && is_text("message"), "{metric} {key}: {event}");
        }
    }
    let cache = page(&plane, "/debug/cachez").await;
    assert!(cache[CLUSTER].as_array().unwrap().contains(&Value::from(NAME)), "{cache}");
    let sizes = page(&plane, "/debug/cachez?sizes=true").await;
    assert!(sizes["total"].as_str().unwrap().ends_with('B') && sizes[ENDPOINT].is_string(), "{sizes}");
    let list = page(&plane, "/debug/list").await;
    for name in list.as_array().unwrap() {
        let name = name.as_str().unwrap();
        if !name.contains("clear=") && !name.contains("push=") {
            let status = plane.page(plane.running.monitoring, &format!("/debug/{name}")).await.0;
            assert!(status == 200 || status == 400, "{name}: {status}");
        }
    }
    let html = plane.page(plane.running.monitoring, "/debug").await;
    assert!(html.0 == 200 && html.1.contains("/debug/push_status"), "{html:?}");
    // Tools look for these words.
    let missing = plane.page(plane.running.monitoring, "/debug/nothing").await;
    assert!(missing.0 == 404 && missing.1.contains("404 page not found"), "{missing:?}");
    let missing = plane.page(plane.running.monitoring, "/debug/edsz").await;
    assert!(missing.0 == 400 && missing.1.contains("You must provide a proxyID in the query string"));
    let missing = plane.page(plane.running.monitoring, "/debug/edsz?proxyID=no.where").await;
    assert!(missing.0 == 404 && missing.1.contains("Proxy not connected to this Pilot instance"));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_states_are_written_as_istio_does() {
    let plane = Plane::start().await;
    let _stream = connected(&plane).await;
    plane.write(
        "more.yaml",
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: golden, namespace: other}\n\
         spec: {egress: [{hosts: ['./*']}]}\n---\napiVersion: v1\nkind: Secret\n\
         metadata: {name: key, namespace: other}\nstringData: {tls.key: very-private}\n",
    );
    plane.settled("golden").await;
    let configz = page(&plane, "/debug/configz").await;
    let all = configz.as_array().unwrap();
    let golden = all.iter().find(|object| object["metadata"]["name"] == "golden").unwrap();
    let want = json!({
        "kind": "Sidecar",
        "apiVersion": "networking.istio.io/v1",
        "metadata": {"name": "golden", "namespace": "other", "creationTimestamp": null},
        "spec": {"egress": [{"hosts": ["./*"]}]},
    });
    assert_eq!(*golden, want);
    assert!(all.iter().all(|object| object["apiVersion"].as_str().unwrap().contains("istio.io")));
    for name in ["configz", "sourcez", "registryz", "push_status", "cachez", "mesh", "pushcontext"] {
        let text = page(&plane, &format!("/debug/{name}")).await.to_string();
        assert!(!text.contains("very-private"), "{name}");
    }

    let syncz = page(&plane, "/debug/syncz?namespace=default").await;
    let row = syncz[0].as_object().unwrap();
    assert_eq!(row["proxy"], "reviews-v1.default");
    assert_eq!(row["proxy_type"], "sidecar");
    assert_eq!(row["cluster_sent"], row["resources"][CLUSTER]["sent"]);
    assert!(!row.contains_key("route_sent") && !row.contains_key("cluster_id"), "{row:?}");
    assert!(row["resources"][CLUSTER]["sentTime"].is_string());
    assert_eq!(page(&plane, "/debug/syncz?namespace=other").await, json!([]));

    let services = page(&plane, "/debug/registryz").await;
    let all = services.as_array().unwrap();
    let reviews =
        all.iter().find(|service| service["hostname"] == "reviews.default.svc.cluster.local").unwrap();
    let want: Vec<&str> = vec![
        "Attributes",
        "ports",
        "creationTime",
        "hostname",
        "clusterVIPs",
        "defaultAddress",
        "Resolution",
        "MeshExternal",
        "ResourceVersion",
    ];
    for name in want {
        assert!(reviews.get(name).is_some(), "{name}: {reviews}");
    }
    assert_eq!(reviews["Attributes"]["ExportTo"], json!({"*": {}}));
    assert_eq!(reviews["ports"][0]["protocol"], "HTTP");
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
    // As Istio's tools write paths.
    let (status, version) = plane.page(plane.running.monitoring, "//version").await;
    assert_eq!((status, version.as_str()), (200, env!("CARGO_PKG_VERSION")));
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
