//! The bootstrap: client and server side of one mesh in one Envoy.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};

use crate::application::Application;
use crate::process::Ports;

/// As JSON, with certificates in `dir`.
pub(crate) fn text(dir: &Path, ports: &Ports, application: &Application) -> String {
    certificates(dir);
    let stats = |direction: &str| settings(direction, &json!({}));
    let service = |host: &str| json!({"service": {"host": host}, "disable_host_header_fallback": true});
    let routes = json!([
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 418}},
        {"match": {"prefix": "/external"}, "route": {"cluster": "outbound|80||www.example.com"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "outbound|80||b.x.svc.cluster.local"}},
    ]);
    let routes = json!({"name": "out", "virtual_hosts": [{"name": "b", "domains": ["*"], "routes": with_paths(routes)}]});
    let to_application = all_to("inbound|80||");
    let changed = json!({
        "metrics": [
            {"name": "requests_total", "tags_to_remove": ["reporter"], "dimensions": {
                "user": "request.headers['x-user']",
                "port": "string(destination.port)",
                "kind": "response.code < 400 ? 'good' : 'bad'",
                "host": "request.host",
                "bad": "request.host |",
            }},
            {"name": "request_bytes", "drop": true},
            {"name": "own_total", "dimensions": {"user": "request.headers['x-user']"}},
        ],
        "definitions": [{"name": "own_total", "value": "response.code", "type": "COUNTER"}],
    });
    let bootstrap = json!({
        "node": {"id": "a", "cluster": "a"},
        "admin": {"address": address(ports.admin)},
        "static_resources": {
            "listeners": [
                listener(ports.out, Value::Null, &[http("out", &stats("outbound"), &routes)]),
                listener(ports.inbound, downstream(dir), &[http(
                    "in",
                    &settings("inbound", &service("b.x.svc.cluster.local")),
                    &to_application,
                )]),
                listener(ports.plain, Value::Null, &[http(
                    "plain",
                    &settings("inbound", &json!({"disable_host_header_fallback": true})),
                    &to_application,
                )]),
                listener(ports.tags, Value::Null, &[http("tags", &settings("inbound", &changed), &to_application)]),
                listener(ports.tcp_in, downstream(dir), &[
                    network(&settings("inbound", &service("b.x.svc.cluster.local"))),
                    tcp_proxy("inbound|9000||"),
                ]),
                listener(ports.scrape, Value::Null, &[http("scrape", &scrape(), &all_to("admin"))]),
                listener(ports.tcp_out, Value::Null, &[
                    network(&stats("outbound")),
                    tcp_proxy("outbound|9000||b.x.svc.cluster.local"),
                ]),
            ],
            "clusters": [
                cluster("outbound|80||b.x.svc.cluster.local", ports.inbound, upstream(dir), false),
                cluster("outbound|80||www.example.com", application.http, Value::Null, true),
                cluster("outbound|9000||b.x.svc.cluster.local", ports.tcp_in, upstream(dir), false),
                cluster("inbound|80||", application.http, Value::Null, false),
                cluster("inbound|9000||", application.echo, Value::Null, false),
                cluster("admin", ports.admin, Value::Null, false),
            ],
        },
    });
    bootstrap.to_string()
}

/// Only what the application knows has a route.
fn with_paths(routes: Value) -> Value {
    let Value::Array(mut routes) = routes else { return routes };
    let last = routes.pop().unwrap();
    for path in ["/ok", "/reset", "/grpc"] {
        let mut route = last.clone();
        route["match"]["prefix"] = path.into();
        routes.push(route);
    }
    Value::Array(routes)
}

fn all_to(cluster: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    json!({"name": cluster, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]})
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/{kind}").into();
    json!({"name": name, "typed_config": config})
}

/// The module's settings in a filter of either kind.
fn settings(direction: &str, more: &Value) -> Value {
    let mut value = more.clone();
    value["direction"] = direction.into();
    json!({
        "dynamic_module_config": {"name": "istio_telemetry", "do_not_close": true},
        "filter_name": "istio.stats",
        "filter_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": value},
    })
}

fn scrape() -> Value {
    json!({
        "dynamic_module_config": {"name": "istio_telemetry", "do_not_close": true},
        "filter_name": "istio.scrape",
    })
}

fn http(prefix: &str, module: &Value, routes: &Value) -> Value {
    let module = typed(
        "istio.stats",
        "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        module.clone(),
    );
    let router =
        typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", json!({}));
    typed(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": prefix,
            "http_protocol_options": {"enable_trailers": true, "accept_http_10": true},
            "http_filters": [module, router],
            "route_config": routes,
        }),
    )
}

fn network(module: &Value) -> Value {
    let kind = "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter";
    typed("istio.stats", kind, module.clone())
}

fn tcp_proxy(cluster: &str) -> Value {
    typed(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": "tcp", "cluster": cluster}),
    )
}

fn listener(port: u16, socket: Value, filters: &[Value]) -> Value {
    let mut chain = json!({"filters": filters});
    if !socket.is_null() {
        chain["transport_socket"] = socket;
    }
    json!({"name": port.to_string(), "address": address(port), "filter_chains": [chain]})
}

fn cluster(name: &str, port: u16, socket: Value, is_external: bool) -> Value {
    let endpoint = json!({
        "endpoint": {"address": address(port)},
        "metadata": {"filter_metadata": {"istio": {"workload": "w;n;c;r;k"}}},
    });
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "metadata": {"filter_metadata": {"istio": {"external": is_external}}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
            },
        },
    });
    if !socket.is_null() {
        cluster["transport_socket"] = socket;
    }
    cluster
}

fn common(dir: &Path) -> Value {
    let file = |name: &str| json!({"filename": dir.join(name)});
    json!({
        "tls_certificates": [{"certificate_chain": file("chain.pem"), "private_key": file("key.pem")}],
        "validation_context": {"trusted_ca": file("root.pem")},
    })
}

fn downstream(dir: &Path) -> Value {
    typed(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        json!({"common_tls_context": common(dir), "require_client_certificate": true}),
    )
}

fn upstream(dir: &Path) -> Value {
    typed(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        json!({"common_tls_context": common(dir)}),
    )
}

/// A certificate of the mesh, for both sides.
fn certificates(dir: &Path) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // With the name that both have by default the other would seem to have signed itself.
    root.distinguished_name.push(DnType::CommonName, "root");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let mut own = CertificateParams::default();
    own.subject_alt_names = vec![SanType::URI("spiffe://cluster.local/ns/x/sa/a".try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let chain = own.signed_by(&key, &root).unwrap();
    for (name, text) in
        [("root.pem", root.pem()), ("chain.pem", chain.pem()), ("key.pem", key.serialize_pem())]
    {
        std::fs::write(dir.join(name), text).unwrap();
    }
}
