use config::Position;

use super::*;

fn text(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    registry.register_collector(Box::new(Build::default()));
    page(&registry).unwrap()
}

fn problem(name: &str, severity: Severity) -> Problem {
    let object = Key { kind: Kind::Gateway, namespace: "a".into(), name: name.into() };
    let object = Some(object);
    Problem { severity, object, position: Position::default(), field: String::new(), message: "bad".into() }
}

#[test]
fn an_object_is_counted_each_time_that_it_becomes_unusable() {
    let metrics = Metrics::default();
    let all = [problem("x", Severity::Error), problem("y", Severity::Warning), problem("z", Severity::Error)];
    metrics.problems(all.iter());
    metrics.problems(all[..1].iter());
    metrics.problems(all.iter());
    let text = text(&metrics);
    for line in [
        "pilot_rejected_configs 2\n",
        "pilot_total_rejected_configs{type=\"gateway\",name=\"a/x\"} 1\n",
        "pilot_total_rejected_configs{type=\"gateway\",name=\"a/z\"} 2\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains("a/y"));
}

#[test]
fn no_more_objects_than_a_page_can_hold_are_counted_by_name() {
    let metrics = Metrics::default();
    let all: Vec<Problem> =
        (0..MOST_OBJECTS + 5).map(|index| problem(&format!("g{index:05}"), Severity::Error)).collect();
    metrics.problems(all.iter());
    let text = text(&metrics);
    assert_eq!(text.matches("pilot_total_rejected_configs{").count(), MOST_OBJECTS + 1);
    assert!(text.contains("pilot_total_rejected_configs{type=\"gateway\",name=\"\"} 5\n"), "{text}");
}

#[test]
fn refusals_are_told_by_node_as_long_as_it_is_there() {
    let metrics = Metrics::default();
    let mut connected = metrics.connected("web-0.default".into(), "");
    for code in [13, 13, 3] {
        metrics.rejected(&mut connected, &TypeUrl::Cluster, code);
    }
    metrics.rejected(&mut connected, &TypeUrl::NameTable, 13);
    let page = text(&metrics);
    for line in [
        "pilot_xds_cds_reject{node=\"web-0.default\",err=\"Internal\"} 2\n",
        "pilot_xds_cds_reject{node=\"web-0.default\",err=\"InvalidArgument\"} 1\n",
        "pilot_total_xds_rejects{type=\"cds\"} 3\n",
        "pilot_total_xds_rejects{type=\"nds\"} 1\n",
        "pilot_xds{version=\"unknown\"} 1\n",
        "# TYPE pilot_xds_cds_reject gauge\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
    drop(connected);
    let page = text(&metrics);
    assert!(!page.contains("web-0") && !page.contains("pilot_xds{"), "{page}");
    assert!(page.contains("pilot_total_xds_rejects{type=\"cds\"} 3\n"));
}

#[test]
fn what_a_push_is_for_is_counted_when_it_is_made() {
    let metrics = Metrics::default();
    let key = |kind| Key { kind, namespace: "a".into(), name: "b".into() };
    let update = Update {
        delete: vec![key(Kind::Service), key(Kind::EndpointSlice), key(Kind::Sidecar)],
        ..Update::default()
    };
    metrics.updates(&update);
    let page = text(&metrics);
    for line in ["svcdelete", "eds", "config"] {
        assert!(page.contains(&format!("pilot_inbound_updates{{type=\"{line}\"}} 1\n")), "{page}");
    }
    assert!(!page.contains("pilot_push_triggers{"), "nothing is pushed yet");
}

#[test]
fn buckets_are_istios() {
    let metrics = Metrics::default();
    metrics.sent(Duration::ZERO);
    metrics.converged(Duration::ZERO);
    let page = text(&metrics);
    let buckets = |name: &str| {
        let prefix = format!("{name}_bucket{{le=\"");
        let lines = page.lines().filter_map(|line| line.strip_prefix(prefix.as_str()));
        lines
            .filter_map(|line| line.split('"').next()?.parse().ok())
            .filter(|le: &f64| le.is_finite())
            .collect()
    };
    let sending: Vec<f64> = buckets("pilot_xds_send_time");
    assert_eq!(sending, SENDING);
    let convergence: Vec<f64> = buckets("pilot_proxy_convergence_time");
    assert_eq!(convergence, PROXY);
    assert!(
        page.contains("pilot_info{version=\"") && page.contains("istio_build{component=\"pilot\",tag=\"")
    );
    assert!(page.contains("istiod_uptime_seconds "));
}

#[test]
fn the_reference_names_every_metric() {
    let reference = include_str!("../../../docs/metrics.md");
    let metrics = Metrics::default();
    let page = text(&metrics);
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut missing = Vec::new();
    for name in names {
        let is_named = reference.contains(&format!("`{name}"))
            || name.starts_with("pilot_xds_") && name.ends_with("s_reject")
            || name.starts_with("pilot_jwks_resolver_network_fetch_")
            || name
                .strip_prefix("citadel_server")
                .is_some_and(|rest| reference.contains(&format!("`...{rest}")));
        if !is_named {
            missing.push(name.to_owned());
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
