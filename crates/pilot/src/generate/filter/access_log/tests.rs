//! Which providers are told of what.

use proto::istio::telemetry::v1alpha1::{AccessLogging, Telemetry, WorkloadMode};

use super::merge::{Spec, providers};

fn items(yaml: &str) -> Vec<AccessLogging> {
    let spec: Telemetry = serde_json::from_str(&format!("{{\"accessLogging\": {yaml}}}")).unwrap();
    spec.access_logging
}

fn merged(levels: &[&str], defaults: &[&str], mode: WorkloadMode) -> Vec<String> {
    let levels: Vec<_> = levels.iter().map(|level| items(level)).collect();
    let levels: Vec<&[AccessLogging]> = levels.iter().map(Vec::as_slice).collect();
    let defaults: Vec<String> = defaults.iter().map(|&name| name.into()).collect();
    providers(&levels, &defaults, mode)
        .into_iter()
        .map(|(name, Spec { is_disabled, expression })| {
            let off = if is_disabled { "-" } else { "" };
            format!("{off}{name}{}", expression.map(|text| format!("?{text}")).unwrap_or_default())
        })
        .collect()
}

#[test]
fn lower_levels_replace_providers_and_switch_them_off() {
    use WorkloadMode::{Client, Server};
    let a = r#"[{"providers": [{"name": "a"}]}]"#;
    let b = r#"[{"providers": [{"name": "b"}]}]"#;
    assert_eq!(merged(&[], &["d"], Client), ["d"]);
    assert_eq!(merged(&[a], &["d"], Client), ["a"]);
    assert_eq!(merged(&[a, b], &[], Client), ["b"]);
    assert_eq!(merged(&[a, r#"[{"disabled": true}]"#], &[], Client), ["-a"]);
    assert_eq!(merged(&[a, r#"[{"disabled": true}]"#, r#"[{}]"#], &[], Client), ["a"]);
    assert_eq!(merged(&[r#"[{"disabled": true}]"#], &["d"], Client), ["-d"]);
    let server = r#"[{"providers": [{"name": "a"}], "match": {"mode": "SERVER"}}]"#;
    assert_eq!(merged(&[server], &[], Server), ["a"]);
    assert!(merged(&[server], &[], Client).is_empty());
}

#[test]
fn conditions_belong_to_the_providers_beside_them() {
    let a = r#"[{"providers": [{"name": "a"}], "filter": {"expression": "x"}}]"#;
    assert_eq!(merged(&[a], &[], WorkloadMode::Client), ["a?x"]);
    assert_eq!(merged(&[a, r#"[{}]"#], &[], WorkloadMode::Client), ["a?x"]);
    let inherited = r#"[{"filter": {"expression": "y"}}]"#;
    assert_eq!(merged(&[inherited], &["d"], WorkloadMode::Client), ["d"]);
    assert_eq!(merged(&[a, r#"[{"disabled": true}]"#], &[], WorkloadMode::Client), ["-a"]);
}
