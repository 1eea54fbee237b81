use mesh::MeshConfig;
use proptest::prelude::*;

use super::*;
use crate::proxy_config;

/// Values as the chart hands them on, as far as defaults are not enough.
const VALUES: &str = "
global:
  hub: hub.example
  tag: 1.2
  istioNamespace: istio-system
  pilotCertProvider: istiod
  logging: {level: 'default:info'}
  sds: {token: {aud: istio-ca}}
  proxy:
    clusterDomain: cluster.local
    statusPort: 15020
    includeIPRanges: '*'
    includeInboundPorts: '*'
    logLevel: warning
    componentLogLevel: misc:error
    readinessPeriodSeconds: 15
    readinessFailureThreshold: 4
    startupProbe: {enabled: true, failureThreshold: 600}
    resources: {requests: {cpu: 2000m, memory: null}, limits: {memory: null}}
sidecarInjectorWebhook: {rewriteAppHTTPProbe: true}
";

fn settings(config: &str) -> Settings {
    Settings::read(config, VALUES, "").unwrap()
}

fn run(settings: &Settings, pod: &Value, native: bool) -> Result<Value, Error> {
    let annotation = pod["metadata"]["annotations"][key::PROXY_CONFIG].as_str();
    let mesh = MeshConfig::default();
    let request = Request {
        pod,
        mesh: &mesh,
        owner: crate::owner::of(pod, "shop"),
        proxy: proxy_config::of_annotation(&mesh, annotation).unwrap_or_default(),
        native,
        variables: BTreeMap::new(),
        ids: Request::IDS,
    };
    inject(settings, &request)
}

fn web(annotations: &Value) -> Value {
    json!({"metadata": {"name": "web-0", "labels": {"app": "web"}, "annotations": annotations},
        "spec": {"containers": [{"name": "web", "image": "w", "x-future": 1,
            "ports": [{"name": "http", "containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": "http", "path": "/"}}}], "futureField": {"a": 1}}})
}

fn names(pod: &Value, field: &str) -> Vec<String> {
    pod::list(pod, field).iter().map(|container| pod::name(container).to_owned()).collect()
}

#[test]
fn a_plain_pod_gets_a_proxy_and_keeps_what_nobody_knows() {
    let pod = run(&settings(""), &web(&json!({})), false).unwrap();
    assert_eq!(names(&pod, CONTAINERS), ["web", "istio-proxy"]);
    assert_eq!(names(&pod, INIT_CONTAINERS), ["istio-init"]);
    assert_eq!(pod["spec"]["futureField"], json!({"a": 1}));
    assert_eq!(pod["spec"]["containers"][0]["x-future"], 1);
    let proxy = pod::container(&pod, pod::PROXY).unwrap();
    assert_eq!(proxy["image"], "hub.example/proxyv2:1.2");
    assert_eq!(proxy["resources"], json!({"requests": {"cpu": "2"}}));
    let native = run(&settings(""), &web(&json!({})), true).unwrap();
    assert_eq!(names(&native, INIT_CONTAINERS), ["istio-init", "istio-proxy"]);
    assert_eq!(pod::container(&native, pod::PROXY).unwrap()["restartPolicy"], "Always");
}

#[test]
fn what_the_proxy_reads_is_said_by_who_chose_its_image() {
    let values = VALUES.replace("    statusPort", "    peerMetadata: short\n    statusPort");
    let with = Settings::read("", &values, "").unwrap();
    let said = |settings: &Settings, annotations: &Value| {
        let pod = run(settings, &web(annotations), false).unwrap();
        pod["metadata"]["annotations"][key::PEER_METADATA].as_str().map(str::to_owned)
    };
    assert_eq!(said(&settings(""), &json!({})), None, "values of Istio's own chart");
    assert_eq!(said(&with, &json!({})).as_deref(), Some("short"));
    assert_eq!(said(&with, &json!({key::PEER_METADATA: "full"})).as_deref(), Some("full"));
    let own_image = json!({key::PROXY_IMAGE: "hub.example/other:1"});
    assert_eq!(said(&with, &own_image), None);
}

#[test]
fn a_restart_policy_that_another_webhook_lost_comes_back() {
    let settings = settings("");
    let mut pod = run(&settings, &web(&json!({})), true).unwrap();
    let whole = pod.clone();
    let proxy = &mut pod["spec"]["initContainers"][1];
    proxy.as_object_mut().unwrap().remove("restartPolicy");
    assert_eq!(run(&settings, &pod, true).unwrap(), whole);
}

#[test]
fn init_containers_that_come_later_still_find_the_proxy() {
    let settings = settings("");
    let mut pod = run(&settings, &web(&json!({})), true).unwrap();
    pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, json!({"name": "vault"}));
    let again = run(&settings, &pod, true).unwrap();
    assert_eq!(names(&again, INIT_CONTAINERS), ["istio-init", "istio-proxy", "vault"]);
}

#[test]
fn an_overlay_adds_to_every_container_and_fills_placeholders() {
    let config = "
defaultTemplates: [sidecar, extra]
templates:
  extra: |
    metadata:
      annotations: {hub: '${inject:value global.hub}', who: 'x ${inject:annotation team} y'}
    spec:
      containers:
      - name: '*'
        env: [{name: WORKLOAD, value: '${inject:workload.name}'}]
        volumeMounts: [{name: extra, mountPath: /extra}]
      - name: istio-proxy
        env: [{name: MINE, value: '1'}]
      volumes: [{name: extra, emptyDir: {}}]
";
    let pod = run(&settings(config), &web(&json!({"team": "a: {{b}}\n- c"})), false).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["env"], json!([{"name": "WORKLOAD", "value": "web-0"}]));
    assert_eq!(pod["metadata"]["annotations"]["hub"], "hub.example");
    assert_eq!(pod["metadata"]["annotations"]["who"], "x a: {{b}}\n- c y");
    let proxy = pod::container(&pod, pod::PROXY).unwrap();
    assert!(proxy["env"].as_array().unwrap().contains(&json!({"name": "MINE", "value": "1"})));
    assert!(pod::list(&pod, "volumes").iter().any(|volume| pod::name(volume) == "extra"));
}

#[test]
fn templates_that_are_not_there_or_of_another_language_are_refused() {
    let settings = settings("templates: {old: 'metadata: {name: {{ .X }}}', sidecar: '{{ x }}', mine: ''}");
    assert_eq!(settings.warnings.len(), 2);
    let error = |name: &str| {
        let pod = web(&json!({"inject.istio.io/templates": name}));
        run(&settings, &pod, false).unwrap_err().to_string()
    };
    let text = error("sidecar, nosuch");
    assert!(text.contains("requested template \"nosuch\" not found; have gateway, grpc-agent"), "{text}");
    assert!(error("old").contains("docs/injection.md"));
    let mine = run(&settings, &web(&json!({"inject.istio.io/templates": "mine"})), false).unwrap();
    assert_eq!(names(&mine, CONTAINERS), ["web"]);
}

#[test]
fn aliases_stand_for_several_templates() {
    let config = "aliases: {both: [sidecar, mine]}\ntemplates: {mine: 'metadata: {labels: {a: b}}'}";
    let pod = run(&settings(config), &web(&json!({"inject.istio.io/templates": "both"})), false).unwrap();
    assert_eq!(pod["metadata"]["labels"]["a"], "b");
    assert_eq!(names(&pod, CONTAINERS), ["web", "istio-proxy"]);
}

#[test]
fn an_application_that_speaks_xds_gets_an_agent() {
    let pod = run(&settings(""), &web(&json!({"inject.istio.io/templates": "grpc-agent"})), true).unwrap();
    let web = pod::container(&pod, "web").unwrap();
    assert_eq!(web["env"][1]["value"], "/etc/istio/proxy/grpc-bootstrap.json");
    assert_eq!(web["readinessProbe"]["httpGet"]["port"], "http");
    let proxy = pod::container(&pod, pod::PROXY).unwrap();
    assert!(proxy["env"].as_array().unwrap().iter().any(|one| one["name"] == "DISABLE_ENVOY"));
    assert_eq!(names(&pod, CONTAINERS), ["web", "istio-proxy"]);
    let pod = run(&settings(""), &web_simple(), true).unwrap();
    assert_eq!(names(&pod, INIT_CONTAINERS), ["grpc-bootstrap-init"]);
}

fn web_simple() -> Value {
    web(&json!({"inject.istio.io/templates": "grpc-simple"}))
}

/// Annotations whose value is one string of the result, and where.
const PLAIN: [&str; 12] = [
    key::LOG_LEVEL,
    key::COMPONENT_LOG_LEVEL,
    key::AGENT_LOG_LEVEL,
    key::PROXY_IMAGE,
    key::PROXY_IMAGE_TYPE,
    key::BOOTSTRAP_OVERRIDE,
    key::INCLUDE_OUTBOUND_PORTS,
    key::CAP_NET_BIND_SERVICE,
    key::NATIVE_SIDECAR,
    key::REWRITE_PROBES,
    "unknown.example/x",
    "prometheus.io/path",
];

/// All places of a value, without what stands there.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, part)| places(part, format!("{at}/{name}"), all));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, format!("{at}/{index}"), all));
        }
        _ => all.push(at),
    }
}

proptest! {
    /// What somebody writes in an annotation changes values, never the form.
    #[test]
    fn a_string_changes_only_its_own_field(
        key in prop::sample::select(PLAIN.to_vec()),
        text in "(?s)[a-z{}\\[\\]:\"'\\\\\n\t ,#&*!|>%@`-]{1,30}",
        native in any::<bool>(),
    ) {
        let settings = settings("");
        let form = |text: &str| {
            let pod = run(&settings, &web(&json!({key: text})), native).unwrap();
            let mut all = Vec::new();
            places(&pod, String::new(), &mut all);
            all
        };
        // Compared with a value of the same meaning, that no text of the other has.
        prop_assert_eq!(form(&text), form("harmless"));
    }

    #[test]
    fn json_in_annotations_stays_a_volume_or_is_refused(text in "(?s).{0,40}") {
        for key in [key::USER_VOLUME, key::USER_VOLUME_MOUNT] {
            if let Ok(pod) = run(&settings(""), &web(&json!({key: text})), false) {
                prop_assert_eq!(names(&pod, CONTAINERS), ["web", "istio-proxy"]);
            }
        }
    }

    #[test]
    fn a_second_injection_changes_nothing(
        native in any::<bool>(),
        network in any::<bool>(),
        with_proxy in any::<bool>(),
        template in prop::sample::select(vec!["sidecar", "gateway", "grpc-agent", "grpc-simple"]),
        mode in prop::sample::select(vec!["REDIRECT", "TPROXY", "NONE"]),
    ) {
        let settings = settings("");
        let annotations = json!({"inject.istio.io/templates": template, key::INTERCEPTION_MODE: mode,
            "prometheus.io/port": "9090", "proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"});
        let mut pod = web(&annotations);
        if network {
            pod["metadata"]["labels"]["topology.istio.io/network"] = "n1".into();
        }
        if with_proxy {
            let own = json!({"name": "istio-proxy", "image": "auto", "env": [{"name": "X", "value": "1"}],
                "securityContext": {"runAsUser": 7}});
            pod["spec"]["containers"].as_array_mut().unwrap().push(own);
        }
        let once = run(&settings, &pod, native).unwrap();
        let twice = run(&settings, &once, native).unwrap();
        prop_assert_eq!(crate::patch::between(&once, &twice), Vec::<Value>::new());
    }
}
