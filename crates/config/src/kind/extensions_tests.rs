//! Rules of the kinds that extend proxies.

use crate::{Severity, yaml};

fn said(kind: &str, spec: &str) -> Vec<(Severity, String)> {
    let version = match kind {
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        "Telemetry" => "telemetry.istio.io/v1",
        "ProxyConfig" => "networking.istio.io/v1beta1",
        _ => "extensions.istio.io/v1alpha1",
    };
    let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
    let problems = yaml::read("mesh.yaml", &text).problems;
    problems.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
}

fn check(kind: &str, spec: &str, severity: Severity, want: &str) {
    let all = said(kind, spec);
    assert!(all.iter().any(|(is, text)| *is == severity && text.contains(want)), "{spec}: {all:#?}");
    let worst = all.iter().map(|(severity, _)| *severity).max();
    assert_eq!(worst, Some(severity), "{spec}: {all:#?}");
}

#[test]
fn telemetry_that_envoy_could_not_take_is_refused() {
    for (spec, want) in [
        (
            "{accessLogging: [{providers: [{name: envoy}], filter: {expression: 'a ='}}]}",
            "accessLogging[0].filter.expression: \"a =\" is not a CEL expression",
        ),
        ("{accessLogging: [{providers: [{}]}]}", "accessLogging[0].providers[0].name: is missing"),
        ("{metrics: [{reportingInterval: 1us}]}", "metrics[0].reportingInterval: 0.000001s is too short"),
        ("{tracing: [{randomSamplingPercentage: 101}]}", "tracing[0].randomSamplingPercentage: 101"),
        (
            "{tracing: [{customTags: {a: {literal: {}}}}]}",
            "tracing[0].customTags.a.literal.value: is missing",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {a: {operation: UPSERT}}}]}]}",
            "metrics[0].overrides[0].tagOverrides.a.value: is missing",
        ),
        (
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}]}",
            "targetRefs: excludes a selector",
        ),
    ] {
        check("Telemetry", spec, Severity::Error, want);
    }
    for (spec, want) in [
        ("{tracing: [{}, {}]}", "tracing: has several items"),
        ("{tracing: [{customTags: {a: {}}}]}", "tracing[0].customTags.a: is empty"),
        (
            "{metrics: [{overrides: [{tagOverrides: {a: {value: 'a b'}}}]}]}",
            "metrics[0].overrides[0].tagOverrides.a.value: \"a b\" is not a CEL expression",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {'': {value: a}}}]}]}",
            "metrics[0].overrides[0].tagOverrides: has a tag without a name",
        ),
        (
            "{metrics: [{overrides: [{match: {customMetric: mine}}]}]}",
            "metrics[0].overrides[0].match.customMetric: \"mine\" is none of Istio's metrics",
        ),
        ("{accessLogging: [{filter: {expression: 'true'}}]}", "accessLogging[0].filter: has no effect"),
        ("{selector: {}}", "selector.matchLabels: is empty"),
    ] {
        check("Telemetry", spec, Severity::Warning, want);
    }
    let fine = "{accessLogging: [{providers: [{name: envoy}], match: {mode: CLIENT}}], tracing: [{customTags: {a: {header: {name: b}}}}], metrics: [{providers: [{name: prometheus}], reportingInterval: 5s, overrides: [{match: {customMetric: requests_total}, disabled: false}, {match: {metric: REQUEST_COUNT, mode: SERVER}, tagOverrides: {a: {value: request.host}, b: {operation: REMOVE}}}]}]}";
    assert!(said("Telemetry", fine).is_empty(), "{:?}", said("Telemetry", fine));
}

#[test]
fn modules_have_a_place_and_a_checksum() {
    for (spec, want) in [
        ("{}", "url: is missing"),
        ("{url: 'ftp://a/b'}", "url: \"ftp://a/b\" has the unknown scheme"),
        ("{url: 'oci://'}", "url: \"oci://\" is not the place"),
        ("{url: 'registry:5000/a'}", "write oci://registry:5000/a"),
        ("{url: '#%blah$#@'}", "is not the place"),
        ("{url: 'a/b%zz'}", "is not the place"),
        ("{url: a/b, sha256: ABC}", "sha256: \"ABC\" is not a checksum"),
        ("{url: a/b, vmConfig: {env: [{name: A}, {name: A}]}}", "vmConfig.env[1].name: \"A\" stands twice"),
        (
            "{url: a/b, vmConfig: {env: [{name: A, valueFrom: HOST, value: b}]}}",
            "vmConfig.env[0].value: must not",
        ),
        ("{url: a/b, match: [{ports: [{number: 0}]}]}", "match[0].ports[0].number: 0 is not a port"),
    ] {
        check("WasmPlugin", spec, Severity::Error, want);
    }
    assert!(said("WasmPlugin", "{url: 'oci://registry:5000/a@sha256:b', phase: AUTHN}").is_empty());
    for (spec, want) in [
        ("{phase: AUTHN}", "spec: has neither wasm nor lua"),
        ("{lua: {}}", "lua.inlineCode: is missing"),
        ("{wasm: {url: 'x://y'}}", "wasm.url: \"x://y\""),
    ] {
        check("TrafficExtension", spec, Severity::Error, want);
    }
    assert!(said("TrafficExtension", "{lua: {inlineCode: 'x'}}").is_empty());
    check("ProxyConfig", "{concurrency: -1}", Severity::Error, "concurrency: -1 must not be negative");
}

#[test]
fn patches_that_envoy_could_not_take_are_refused() {
    let patch = |rest: &str| format!("{{configPatches: [{{{rest}}}]}}");
    for (rest, want) in [
        ("patch: {operation: ADD, value: {}}", "configPatches[0].applyTo: is missing"),
        ("applyTo: CLUSTER", "configPatches[0].patch: is missing"),
        ("applyTo: CLUSTER, patch: {value: {}}", "configPatches[0].patch.operation: is missing"),
        ("applyTo: CLUSTER, patch: {operation: MERGE}", "configPatches[0].patch.value: is missing"),
        (
            "applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: soon}}",
            "configPatches[0].patch.value.connect_timeout: Envoy does not know it",
        ),
        (
            "applyTo: CLUSTER, match: {listener: {}}, patch: {operation: REMOVE}",
            "configPatches[0].match: is of another kind",
        ),
        (
            "applyTo: CLUSTER, match: {proxy: {proxyVersion: '('}}, patch: {operation: REMOVE}",
            "configPatches[0].match.proxy.proxyVersion",
        ),
        (
            "applyTo: NETWORK_FILTER, match: {listener: {filterChain: {filter: {name: a, subFilter: {name: b}}}}}, patch: {operation: REMOVE}",
            "filter.subFilter: is for applyTo HTTP_FILTER only",
        ),
        (
            "applyTo: HTTP_FILTER, patch: {operation: INSERT_FIRST, value: {name: x, typed_config: {'@type': type.googleapis.com/stats.PluginConfig}}}",
            "stats.PluginConfig",
        ),
    ] {
        check("EnvoyFilter", &patch(rest), Severity::Error, want);
    }
    for (rest, want) in [
        (
            "applyTo: CLUSTER, patch: {operation: MERGE, value: {nmae: a}}",
            "configPatches[0].patch.value: Envoy does not know it, so it is left out",
        ),
        ("applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {}}", "BOOTSTRAP is read when"),
        (
            "applyTo: HTTP_FILTER, patch: {operation: ADD, value: {name: x}}",
            "configPatches[0].patch.value.typed_config: is missing",
        ),
        ("applyTo: CLUSTER, patch: {operation: REPLACE, value: {}}", "REPLACE does nothing"),
    ] {
        check("EnvoyFilter", &patch(rest), Severity::Warning, want);
    }
}
