//! A few of the suite's scenarios, as far as they need the adapter; the rules
//! themselves are tested where they are written.

use std::net::Ipv4Addr;
use std::time::Duration;

use names::TypeUrl;
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tokio::time::timeout;

use super::adapter::wire::adapter_client::AdapterClient;
use super::adapter::wire::{ResourceRequest, SetStateRequest};
use super::*;
use crate::grpc::Channel;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_says_what_is_served_and_under_which_version() {
    let free = (Ipv4Addr::LOCALHOST, 0).into();
    let running = start(Addresses { xds: free, adapter: free }).await.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", running.addresses.adapter));
    let mut adapter = AdapterClient::new(endpoint.unwrap().connect().await.unwrap());
    let cluster = |name: &str| proto::Any {
        type_url: TypeUrl::Cluster.as_str().into(),
        value: proto::envoy::config::cluster::v3::Cluster { name: name.into(), ..Default::default() }
            .encode_to_vec()
            .into(),
    };
    let state = SetStateRequest {
        node: "test-id".into(),
        version: "one".into(),
        resources: vec![cluster("a"), cluster("b")],
    };
    adapter.set_state(state).await.unwrap();

    let channel = Channel::plain(running.addresses.xds).await.unwrap();
    let first = DeltaDiscoveryRequest {
        node: Some(Node { id: "test-id".into(), ..Node::default() }),
        type_url: TypeUrl::Cluster.as_str().into(),
        ..DeltaDiscoveryRequest::default()
    };
    let mut stream = channel.delta(None, first.clone()).await.unwrap();
    let response = timeout(SOON, stream.next()).await.unwrap().unwrap();
    let names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!((names.as_slice(), response.system_version_info.as_str()), (&["a", "b"][..], "one"));
    let accept = DeltaDiscoveryRequest { node: None, response_nonce: response.nonce, ..first.clone() };
    stream.send(accept).await.unwrap();

    let change = |name: &str, version: &str| ResourceRequest {
        node: "test-id".into(),
        type_url: TypeUrl::Cluster.as_str().into(),
        resource_name: name.into(),
        version: version.into(),
    };
    adapter.update_resource(change("b", "two")).await.unwrap();
    let response = timeout(SOON, stream.next()).await.unwrap().unwrap();
    assert_eq!((response.resources.len(), response.system_version_info.as_str()), (1, "two"));
    assert_eq!(response.resources[0].name, "b");
    let accept = DeltaDiscoveryRequest { node: None, response_nonce: response.nonce, ..first };
    stream.send(accept).await.unwrap();

    adapter.remove_resource(change("a", "three")).await.unwrap();
    let response = timeout(SOON, stream.next()).await.unwrap().unwrap();
    assert_eq!(response.removed_resources, ["a"]);
}
