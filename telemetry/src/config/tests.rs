use std::sync::Arc;

use super::{Config, Standard};
use crate::attributes::fake::Fake;
use crate::labels::Labels;
use crate::node::Node;
use crate::settings::Settings;

fn config(json: &str) -> Config {
    let node: &'static Node =
        Box::leak(Box::new(Node::parse(r#"{"NAME":"a","WORKLOAD_NAME":"w"}"#).unwrap()));
    let json = format!("{{\"direction\":\"inbound\",{json}}}");
    Config::with(Settings::parse(json.as_bytes()).unwrap(), node, Box::leak(Box::default()))
}

/// The labels of a metric, of the standard ones a and b.
fn labels(config: &Config, metric: Standard) -> Vec<(String, String)> {
    let standard: Labels<'_> = vec![("reporter", "r".into()), ("source_app", "s".into())];
    let values = config.evaluate(&Fake::default(), || None);
    let metric = &config.metrics[metric as usize];
    metric
        .labels(&standard, &values)
        .into_iter()
        .map(|(name, value)| (name.into(), value.into_owned()))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

#[test]
fn tags_are_set_removed_and_added() {
    let config = config(
        r#""metrics":[
            {"name":"requests_total","dimensions":{"z":"'1'","source_app":"'own'","a":"'2'"}},
            {"tags_to_remove":["reporter"]},
            {"name":"request_bytes","tags_to_remove":["source_app"]}]"#,
    );
    let requests = labels(&config, Standard::Requests);
    assert_eq!(requests, pairs(&[("source_app", "own"), ("a", "2"), ("z", "1")]));
    assert_eq!(labels(&config, Standard::RequestBytes), pairs(&[]));
    assert_eq!(labels(&config, Standard::ResponseBytes), pairs(&[("source_app", "s")]));
}

#[test]
fn a_later_change_counts() {
    let config = config(
        r#""metrics":[{"dimensions":{"x":"'1'"}},{"name":"requests_total","dimensions":{"x":"'2'"}},
            {"name":"requests_total","tags_to_remove":["source_app"]},
            {"name":"requests_total","dimensions":{"source_app":"'again'"}}]"#,
    );
    let requests = labels(&config, Standard::Requests);
    assert_eq!(requests, pairs(&[("reporter", "r"), ("source_app", "again"), ("x", "2")]));
}

#[test]
fn a_standard_tag_that_a_metric_has_not_is_not_added() {
    let config = config(r#""metrics":[{"dimensions":{"response_code":"'1'"}}]"#);
    assert_eq!(labels(&config, Standard::TcpOpened), pairs(&[("reporter", "r"), ("source_app", "s")]));
}

#[test]
fn a_metric_is_dropped_by_its_name() {
    let config = config(r#""metrics":[{"name":"request_bytes","drop":true},{"name":"","drop":true}]"#);
    assert!(config.is_dropped(Standard::RequestBytes));
    assert!(!config.is_dropped(Standard::Requests), "as with the original, not all at once");
    assert!(config.standard(Standard::RequestBytes, &Vec::new(), &[]).is_none());
}

#[test]
fn metrics_can_be_defined() {
    let config = config(
        r#""definitions":[{"name":"config_test_own","value":"1 + 2","type":"GAUGE"},{"name":"requests_total","value":"1"}],
            "metrics":[{"name":"config_test_own","dimensions":{"reporter":"'x'"}}]"#,
    );
    let values = config.evaluate(&Fake::default(), || None);
    let [own] = config.custom(&values).try_into().unwrap();
    assert_eq!(values[own.amount], "3");
    let text = config.registry.text();
    assert!(text.contains("istio_config_test_own{reporter=\"x\"} 0"), "{text}");
    assert_eq!(config.custom.len(), 1, "Istio's own are not defined anew");
    assert!(Arc::strong_count(&own.series) > 1);
}

#[test]
fn equal_expressions_are_one() {
    let config = config(r#""metrics":[{"dimensions":{"a":"request.host","b":"request.host"}}]"#);
    assert_eq!(config.evaluate(&Fake::default(), || None), ["unknown"]);
}
