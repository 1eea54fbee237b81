use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::envoy::config::listener::v3::filter::ConfigType;
use serde_json::json;

use super::*;
use crate::generate::filter::Direction;
use crate::proxy::Proxy;
use crate::scope::View;
use crate::testing;

/// What the routes to a workload take out of requests.
fn removed(module: &str) -> Vec<String> {
    let snapshot = testing::snapshot("");
    let metadata = json!({"TELEMETRY_MODULE": module});
    let node = json!({"id": "sidecar~10.0.0.1~a-1.app~app.svc.cluster.local", "metadata": metadata});
    let bytes = proto::reflect::from_json("envoy.config.core.v3.Node", node).unwrap();
    let proxy = Proxy::from_node(&Node::decode(&*bytes).unwrap()).unwrap();
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    let place = Place::new(Direction::Inbound, Protocol::Http, 80, None);
    let filter = inbound(scope, place, "inbound", RouteConfiguration::default());
    let Some(ConfigType::TypedConfig(config)) = filter.config_type else { panic!("no configuration") };
    let manager = HttpConnectionManager::decode(&*config.value).unwrap();
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!("no routes") };
    routes.request_headers_to_remove
}

#[test]
fn routes_take_out_metadata_of_peers_where_no_module_does() {
    assert_eq!(removed(""), PEER_METADATA);
    assert!(removed("1").is_empty());
}
