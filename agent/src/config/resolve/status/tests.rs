use std::time::Duration;

use proptest::prelude::*;

use super::super::super::status::{Action, Check, Merge, Target};
use super::super::super::{Config, Drain};
use super::super::tests::{LINE, root, with};
use super::probes;

fn config(env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    with(root().path(), LINE, env, &[]).map(|(config, _)| config)
}

fn drain(proxy: &str, env: &[(&str, &str)]) -> Drain {
    let proxy = [("PROXY_CONFIG", proxy)];
    config(&[env, &proxy].concat()).unwrap().drain
}

#[test]
fn a_drain_has_an_end() {
    let seconds = Duration::from_secs;
    let short = drain("{}", &[]);
    assert_eq!((short.minimum, short.limit, short.asks_envoy), (seconds(5), Some(seconds(5)), false));
    for (limit, minimum) in [(60, 5), (1, 1)] {
        let told = drain(&format!("{{terminationDrainDuration: {limit}s}}"), &[]);
        assert_eq!((told.minimum, told.limit), (seconds(minimum), Some(seconds(limit))));
    }
    assert!(short.counts_connections && short.inbound_only && !short.is_gateway);
    let on_zero = [("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"), ("MINIMUM_DRAIN_DURATION", "2s")];
    let idle = drain("{}", &on_zero);
    assert_eq!((idle.minimum, idle.limit, idle.asks_envoy), (seconds(2), None, true));
    let bounded = drain("{terminationDrainDuration: 60s}", &on_zero);
    assert_eq!((bounded.minimum, bounded.limit), (seconds(2), Some(seconds(60))));
    let shorter = drain("{terminationDrainDuration: 1s}", &on_zero);
    assert_eq!(shorter.limit, None, "shorter than the minimum");
    assert!(!drain("{interceptionMode: NONE}", &[]).counts_connections);
    assert!(!drain("{}", &[("ISTIO_META_INTERCEPTION_MODE", "TPROXY")]).counts_connections);
}

fn targets(annotations: &str) -> Result<Vec<(u16, String)>, String> {
    let config = config(&[("ISTIO_PROMETHEUS_ANNOTATIONS", annotations)]);
    let config = config.map_err(|errors| errors.join("\n"))?;
    Ok(config.status.merge.targets.into_iter().map(|Target { port, path }| (port, path)).collect())
}

#[test]
fn metrics_of_the_application_are_where_the_annotations_say() {
    for (annotations, expected) in [
        (r#"{"scrape":"true","path":"/m?x=y","port":"8080"}"#, &[(8080, "/m?x=y")][..]),
        (r#"{"scrape":"","path":"","port":""}"#, &[(80, "/metrics")]),
        ("{}", &[(80, "/metrics")]),
        (r#"{"port":"81","path":"m"}"#, &[(81, "/m")]),
        (r#"{"scrape":"false","port":"15020"}"#, &[]),
        (r#"{"targets":[{"port":"1","path":"/a"},{"port":"2"}]}"#, &[(1, "/a"), (2, "/metrics")]),
    ] {
        let expected: Vec<_> = expected.iter().map(|(port, path)| (*port, (*path).to_owned())).collect();
        assert_eq!(targets(annotations).unwrap(), expected, "{annotations}");
    }
}

#[test]
fn metrics_that_cannot_be_are_refused() {
    for (annotations, reason) in [
        ("{", "ISTIO_PROMETHEUS_ANNOTATIONS=\"{\": expected JSON"),
        (r#"{"port":"http"}"#, "port \"http\" of the application: expected 1 to 65535"),
        (r#"{"port":"0"}"#, "port \"0\""),
        (
            r#"{"port":"015020"}"#,
            "port 15020 of the application is one of the mesh (the merged metrics themselves)",
        ),
        (r#"{"targets":[{"port":"80"},{"port":"15090"}]}"#, "which are merged already"),
        (r#"{"path":"/a b"}"#, "path \"/a b\""),
    ] {
        let error = targets(annotations).unwrap_err();
        assert!(error.contains(reason), "{annotations}: {error}");
    }
    let env =
        [("PROXY_CONFIG", "{statusPort: 8081}"), ("ISTIO_PROMETHEUS_ANNOTATIONS", r#"{"port":"8081"}"#)];
    assert!(config(&env).unwrap_err()[0].contains("(the agent's own)"));
}

#[test]
fn gateways_merge_only_what_is_envoys() {
    let env = [("ISTIO_PROMETHEUS_ANNOTATIONS", r#"{"port":"8080"}"#)];
    let line = ["istio-agent", "proxy", "router"];
    let (config, _) = with(root().path(), &line, &env, &[]).unwrap();
    assert_eq!(config.status.merge, Merge { envoy: true, targets: Vec::new() });
    assert!(config.drain.is_gateway && !config.drain.inbound_only);
    let off = self::config(&[("PILOT_AGENT_MERGE_ENVOY_STATS", "false")]).unwrap();
    assert!(!off.status.merge.envoy);
}

#[test]
fn probes_are_read() {
    let text = r#"{
        "/app-health/web/livez": {"httpGet": {"path": "hi?x", "port": 8080, "scheme": "HTTPS",
            "host": "h", "httpHeaders": [{"name": "a", "value": "b"}]}, "timeoutSeconds": 3},
        "/app-health/web/readyz": {"tcpSocket": {"port": 81, "host": "h"}},
        "/app-lifecycle/web/prestopz": {"grpc": {"port": 82, "service": null}}
    }"#;
    let status = config(&[("ISTIO_KUBE_APP_PROBERS", text), ("INSTANCE_IP", "10.0.0.9")]).unwrap().status;
    let probes = status.probes.unwrap();
    assert_eq!(probes.destination, Some([10, 0, 0, 9].into()));
    assert!(probes.http2 && !probes.keepalive);
    let live = &probes.by_path["/app-health/web/livez"];
    assert_eq!(live.action, Action::Http { is_tls: true, port: 8080, path: "/hi?x".into() });
    assert_eq!(live.timeout, Some(Duration::from_secs(3)));
    let ready = &probes.by_path["/app-health/web/readyz"];
    assert_eq!((&ready.action, ready.timeout), (&Action::Tcp { port: 81 }, Some(Duration::from_secs(1))));
    let stop = &probes.by_path["/app-lifecycle/web/prestopz"];
    assert_eq!((&stop.action, stop.timeout), (&Action::Grpc { port: 82, service: String::new() }, None));
    let legacy = [("ISTIO_KUBE_APP_PROBERS", text), ("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true")];
    assert_eq!(config(&legacy).unwrap().status.probes.unwrap().destination, None);
    assert!(config(&[("ISTIO_KUBE_APP_PROBERS", "{}")]).unwrap().status.probes.is_none());
}

#[test]
fn probes_that_cannot_be_are_refused_by_name() {
    for (text, reason) in [
        ("[]", "ISTIO_KUBE_APP_PROBERS: \"[]\": expected JSON such as"),
        (r#"{"/app-health/web/healthz":{}}"#, "\"/app-health/web/healthz\": expected /app-health/CONTAINER/"),
        (r#"{"/app-health//livez":{}}"#, "expected /app-health/CONTAINER/"),
        (r#"{"/app-health/a/b/livez":{}}"#, "expected /app-health/CONTAINER/"),
        (r#"{"/app-health/a/livez":{}}"#, "expected one of httpGet, tcpSocket and grpc"),
        (r#"{"/app-health/a/livez":null}"#, "\"/app-health/a/livez\": "),
        (r#"{"/app-health/a/livez":{"tcpSocket":{"port":"http"}}}"#, "port \"http\": expected a number"),
        (r#"{"/app-health/a/livez":{"grpc":{"port":70000}}}"#, "port 70000: expected a number"),
        (r#"{"/app-health/a/livez":{"httpGet":{"port":1},"grpc":{"port":2}}}"#, "expected one of"),
        (r#"{"/app-health/a/livez":{"httpGet":{"port":1},"timeoutSeconds":-1}}"#, "timeoutSeconds"),
    ] {
        let errors = config(&[("ISTIO_KUBE_APP_PROBERS", text)]).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(reason), "{text}: {errors:?}");
    }
}

#[test]
fn a_readiness_probe_is_read() {
    let proxy = "{readinessProbe: {httpGet: {path: x, port: 8080, scheme: HTTPS, httpHeaders: [{name: Host, value: h}]}, failureThreshold: 3}}";
    let health = config(&[("PROXY_CONFIG", proxy)]).unwrap().status.health.unwrap();
    assert_eq!((health.successes, health.failures), (1, 3));
    assert_eq!((health.timeout, health.period), (Duration::from_secs(1), Duration::from_secs(10)));
    let Check::Http { is_tls, host, port, path, headers } = health.check else { panic!() };
    assert_eq!(format!("{headers:?}").matches("Sensitive").count(), 1, "settings are shown");
    assert_eq!((is_tls, host, port, path.as_str(), headers.len()), (true, None, 8080, "/x", 1));
    for (probe, reason) in [
        ("{tcpSocket: {port: 0}}", "port 0: expected 1 to 65535"),
        ("{exec: {}}", "exec: expected a command"),
        ("{periodSeconds: 1}", "expected one of httpGet, tcpSocket, exec and grpc"),
        ("{periodSeconds: -1, tcpSocket: {port: 1}}", "periodSeconds is -1"),
        ("{httpGet: {port: 1, scheme: ftp}}", "scheme \"ftp\""),
    ] {
        let errors = config(&[("PROXY_CONFIG", &format!("{{readinessProbe: {probe}}}"))]).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(reason)), "{probe}: {errors:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        let (probes, errors) = probes::read(&text);
        let is_object = text.trim_start().starts_with('{');
        prop_assert!(is_object || (probes.is_empty() && errors.len() == 1));
    }

    #[test]
    fn only_paths_of_probes_are_taken(path in "/?(app-health|app-lifecycle|x)?/[a-z/]{0,6}/?(livez|readyz|poststartz|x)?/?") {
        let (found, errors) = probes::read(&serde_json::json!({ &path: {"tcpSocket": {"port": 1}} }).to_string());
        let pattern = regex::Regex::new("^/(app-health|app-lifecycle)/[^/]+/(livez|readyz|startupz|prestopz|poststartz)$");
        prop_assert_eq!(found.contains_key(&path), pattern.unwrap().is_match(&path));
        prop_assert_eq!(errors.len(), 1 - found.len());
    }
}
