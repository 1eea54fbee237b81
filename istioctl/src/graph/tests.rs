use std::collections::BTreeSet;

use super::measure::{Count, End, Flow, Reporter, between, of_clusters, of_metrics};
use super::*;

const METRICS: &str = r#"# TYPE istio_requests_total counter
istio_requests_total{reporter="source",source_workload="web",source_workload_namespace="shop",destination_workload="api",destination_workload_namespace="shop",destination_service="api.shop.svc.cluster.local",request_protocol="http",response_code="200",connection_security_policy="unknown"} 8
istio_requests_total{reporter="source",source_workload="web",source_workload_namespace="shop",destination_workload="api",destination_workload_namespace="shop",destination_service="api.shop.svc.cluster.local",request_protocol="http",response_code="503",connection_security_policy="unknown"} 2
istio_requests_total{reporter="destination",source_workload="web",source_workload_namespace="shop",destination_workload="api",destination_workload_namespace="shop",request_protocol="http",response_code="200",connection_security_policy="mutual_tls"} 8
istio_requests_total{reporter="destination",source_workload="unknown",source_workload_namespace="unknown",destination_workload="api",destination_workload_namespace="shop",request_protocol="grpc",response_code="200",grpc_response_status="14",connection_security_policy="none"} 1
istio_tcp_connections_opened_total{reporter="source",source_workload="api",source_workload_namespace="shop",destination_workload="unknown",destination_workload_namespace="unknown",destination_service="unknown",destination_service_name="PassthroughCluster"} 3
istio_tcp_sent_bytes_total{reporter="source",source_workload="api",source_workload_namespace="shop",destination_workload="unknown",destination_workload_namespace="unknown",destination_service="unknown",destination_service_name="PassthroughCluster"} 100
envoy_server_uptime{} 5
"#;

fn pod(workload: &str, mtls: Mtls, counts: measure::Counts) -> Pod {
    Pod { namespace: "shop".into(), workload: workload.into(), mtls, counts, ..Pod::default() }
}

fn workload(name: &str) -> End {
    End::Workload("shop".into(), name.into())
}

#[test]
fn metrics_of_both_ends_are_one_edge() {
    let graph = graph(&[
        pod("web", Mtls::Permissive, of_metrics(METRICS)),
        pod("api", Mtls::Strict, measure::Counts::new()),
    ]);
    let ids: Vec<&str> = graph.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["host/PassthroughCluster", "outside", "shop/api", "shop/web"]);
    assert_eq!(graph.nodes[2].services, ["api.shop.svc.cluster.local"]);
    let edge =
        |from: &str, to: &str| graph.edges.iter().find(|edge| edge.from == from && edge.to == to).unwrap();
    let own = edge("shop/web", "shop/api");
    assert_eq!((own.total, own.errors, own.secured, own.protocol.as_str()), (10.0, 2.0, Some(1.0), "http"));
    let plain = edge("outside", "shop/api");
    assert_eq!(
        (plain.total, plain.errors, plain.secured, plain.protocol.as_str()),
        (1.0, 1.0, Some(0.0), "grpc")
    );
    let tcp = edge("shop/api", "host/PassthroughCluster");
    assert_eq!((tcp.total, tcp.bytes, tcp.secured, tcp.protocol.as_str()), (3.0, 100.0, None, "tcp"));
    assert!(
        graph
            .summary()
            .starts_with("2 workloads in 1 namespaces, 1 of them with mutual TLS only; 3 connections"),
        "{}",
        graph.summary()
    );
}

#[test]
fn envoy_s_own_counters_do_where_there_are_no_metrics() {
    let text = r#"{"cluster_statuses": [
        {"name": "outbound|80||api.shop.svc.cluster.local", "host_statuses": [
            {"address": {"socket_address": {"address": "10.0.0.2", "port_value": 80}}, "stats": [
                {"name": "cx_total", "value": "1"}, {"name": "rq_error", "value": "1"}, {"name": "rq_total", "value": "4"}]},
            {"address": {"socket_address": {"address": "10.0.0.9", "port_value": 80}}, "stats": [{"name": "cx_total", "value": 2}]},
            {"address": {"socket_address": {"address": "10.0.0.8", "port_value": 80}}, "stats": []}]},
        {"name": "xds-grpc", "host_statuses": [{"address": {"pipe": {"path": "x"}}, "stats": [{"name": "rq_total", "value": "4"}]}]}]}"#;
    let counts = of_clusters(text, &workload("web")).unwrap();
    let mut api = pod("api", Mtls::Strict, measure::Counts::new());
    api.addresses = vec!["10.0.0.2".parse().unwrap()];
    let graph = graph(&[pod("web", Mtls::Unknown, counts), api]);
    let edges: Vec<(&str, f64, f64, Option<f64>)> =
        graph.edges.iter().map(|edge| (edge.to.as_str(), edge.total, edge.errors, edge.secured)).collect();
    assert_eq!(
        edges,
        [("host/api.shop.svc.cluster.local", 2.0, 0.0, None), ("shop/api", 4.0, 1.0, Some(1.0))]
    );
    assert!(of_clusters("[", &End::Outside).is_err());
}

#[test]
fn what_was_counted_between_two_times_is_their_difference() {
    let flow =
        Flow { reporter: Reporter::Source, from: workload("a"), to: workload("b"), protocol: "http".into() };
    let counts = |total: f64| measure::Counts::from([(flow.clone(), Count { total, ..Count::default() })]);
    assert_eq!(between(&counts(3.0), &counts(10.0))[&flow].total, 7.0);
    assert_eq!(between(&counts(30.0), &counts(10.0))[&flow].total, 10.0);
    assert!(graph(&[pod("a", Mtls::Unknown, between(&counts(3.0), &counts(3.0)))]).edges.is_empty());
}

/// A mesh of many workloads, some of which call each other in circles.
fn many(count: usize) -> Graph {
    let id = |index: usize| format!("ns-{}/w{index:03}", index % 7);
    let node = |index: usize| Node {
        id: id(index),
        name: format!("w{index:03}"),
        namespace: format!("ns-{}", index % 7),
        mtls: if index.is_multiple_of(3) { Mtls::Strict } else { Mtls::Permissive },
        ..Node::default()
    };
    let edge = |from: usize, to: usize| Edge {
        from: id(from),
        to: id(to),
        protocol: "http".into(),
        total: from as f64 + 1.0,
        ..Edge::default()
    };
    let mut graph = Graph { nodes: (0..count).map(node).collect(), ..Graph::default() };
    graph.edges = (0..count).map(|from| edge(from, (from * 7 + 1) % count)).collect();
    graph.edges.extend((1..count).step_by(3).map(|to| edge(to / 3, to)));
    graph.normalize();
    graph
}

#[test]
fn nodes_never_cover_each_other_and_the_picture_is_always_the_same() {
    for count in [0, 1, 2, 40, 500] {
        let graph = many(count);
        let layout = layout::Layout::of(&graph);
        for (index, (x, y)) in layout.at.iter().enumerate() {
            assert!(
                x + layout::WIDTH <= layout.width && y + layout::HEIGHT <= layout.height,
                "{count}: {index}"
            );
            for (ox, oy) in &layout.at[..index] {
                let apart = (x - ox).abs() >= layout::WIDTH || (y - oy).abs() >= layout::HEIGHT;
                assert!(apart, "{count}: {index} covers another");
            }
        }
        let picture = svg::file(&graph);
        assert_eq!(picture, svg::file(&graph));
        assert_eq!(picture.matches("class=\"node ").count(), count);
        assert_eq!(picture.matches("class=\"edge ").count(), graph.edges.len());
    }
}

#[test]
fn lines_pass_between_nodes_and_not_behind_them() {
    for count in [2, 40, 150] {
        let graph = many(count);
        let (layout, places) = (layout::Layout::of(&graph), graph.places());
        let ends = graph.edges.iter().map(|edge| (places[&*edge.from], places[&*edge.to]));
        let ends: Vec<_> = ends.collect();
        let ways = way::all(&layout, &ends);
        let mut longest = 0;
        for ((from, to), way) in ends.into_iter().zip(&ways) {
            longest = longest.max(way.curves.len());
            assert!(way.label.1 > 0.0 && way.label.1 < layout.height);
            // Straight lines are as high as their two ends are.
            assert!(way.curves.windows(2).all(|pair| pair[0][3].1 == pair[1][0].1), "{way:?}");
            let points = |curve| (0..=16).map(move |step| way::on(curve, f64::from(step) / 16.0));
            for (x, y) in way.curves.iter().flat_map(points) {
                assert!(y > 0.0 && y < layout.height, "{way:?} leaves the picture");
                for (node, (left, top)) in layout.at.iter().enumerate() {
                    let is_behind = x > *left
                        && x < left + layout::WIDTH
                        && y > top - 1.0
                        && y < top + layout::HEIGHT + 1.0;
                    assert!(!is_behind || [from, to].contains(&node), "{way:?} passes behind {node}");
                }
            }
        }
        assert!(count < 40 || longest > 3, "{count}: no line passes a column");
    }
}

#[test]
fn callers_stand_left_of_what_they_call() {
    let graph = graph(&[pod("web", Mtls::Permissive, of_metrics(METRICS))]);
    let layout = layout::Layout::of(&graph);
    let x = |id: &str| layout.at[graph.places()[id]].0;
    assert!(x("shop/web") < x("shop/api") && x("shop/api") < x("host/PassthroughCluster"));
}

#[test]
fn in_a_circle_calls_go_on_from_where_they_come_in() {
    let edge =
        |from: &str, to: &str| Edge { from: from.into(), to: to.into(), total: 1.0, ..Edge::default() };
    let node = |id: &str| Node { id: id.into(), ..Node::default() };
    let mut graph = Graph { nodes: ["page", "back", "api", "x", "y"].map(node).into(), ..Graph::default() };
    graph.edges = vec![
        edge("page", "api"),
        edge("page", "x"),
        edge("api", "back"),
        edge("back", "api"),
        edge("x", "back"),
        edge("y", "y"),
    ];
    graph.normalize();
    let layout = layout::Layout::of(&graph);
    let layer = |id: &str| layout.layer[graph.places()[id]];
    assert_eq!((layer("page"), layer("api"), layer("x"), layer("back")), (0, 1, 1, 2));
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "</title><script>alert(1)</script>\"'&\u{0}\u{1b}[31m]]>";
    let node = |id: &str| Node {
        id: id.into(),
        name: hostile.into(),
        namespace: hostile.into(),
        services: vec![hostile.into()],
        version: hostile.into(),
        ..Node::default()
    };
    let edge = Edge {
        from: "a".into(),
        to: "b".into(),
        protocol: hostile.into(),
        total: f64::NAN,
        ..Edge::default()
    };
    let mut graph = Graph {
        nodes: vec![node("a"), node("b")],
        edges: vec![edge],
        notes: vec![hostile.into()],
        seconds: None,
    };
    graph.normalize();
    for text in [html::page(&graph), svg::file(&graph)] {
        assert!(text.contains("&lt;script&gt;"), "{text}");
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text}");
        let tags: BTreeSet<&str> = text
            .split('<')
            .skip(1)
            .filter_map(|part| part.trim_start_matches('/').split([' ', '>', '/']).next())
            .collect();
        let known = [
            "!DOCTYPE", "?xml", "body", "caption", "defs", "desc", "div", "g", "h1", "head", "html", "main",
            "marker", "meta", "p", "path", "rect", "style", "svg", "symbol", "table", "tbody", "td", "text",
            "th", "thead", "title", "tr", "use",
        ];
        assert!(tags.is_subset(&BTreeSet::from(known)), "{tags:?}");
    }
}

#[test]
fn a_graph_is_read_back_as_it_was_written() {
    let graph = many(20);
    let text = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph);
    let mut broken = Graph { edges: vec![Edge { from: "x".into(), ..Edge::default() }], ..Graph::default() };
    broken.normalize();
    assert!(broken.edges.is_empty());
}
