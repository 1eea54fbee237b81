//! What a pod and its ports are.

use std::fmt::Write as _;

use serde_json::Value;

/// User of the sidecar.
const USER: i64 = 1337;
const SIDECAR: &str = "istio-proxy";
const REQUIREMENTS: &str = "https://istio.io/latest/docs/ops/deployment/requirements/";
/// Labels that name a workload's service, and its version.
const SERVICE: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
const VERSION: [&str; 3] = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
/// Ports whose server speaks first: SMTP, DNS, MySQL, MongoDB.
const SERVER_FIRST: [i64; 4] = [25, 53, 3306, 27017];

/// Items of a list, if it is one.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The transport of a port.
fn transport(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

/// The revision of the control plane that injected a pod.
pub(super) fn revision(pod: &Value) -> String {
    let annotations = &pod["metadata"]["annotations"];
    if let Some(revision) = annotations["istio.io/rev"].as_str() {
        return revision.to_owned();
    }
    let status =
        serde_json::from_str::<Value>(text_of(&annotations["sidecar.istio.io/status"])).unwrap_or_default();
    text_of(&status["revision"]).to_owned()
}

/// Whether a selector, which must say something, selects a pod.
pub(super) fn is_selected(selector: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    selector
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value))
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["spec"]["containers"]).iter()
}

fn has_sidecar(pod: &Value) -> bool {
    containers(pod).chain(items(&pod["spec"]["initContainers"])).any(|one| one["name"] == SIDECAR)
}

/// Describes a pod.
pub(super) fn text(pod: &Value, name: &str, revision: &str, ignore_unmeshed: bool) -> String {
    let mut told = String::new();
    let mut ports = Vec::new();
    for container in containers(pod) {
        let own = text_of(&container["name"]);
        for port in items(&container["ports"]) {
            let protocol = match transport(port) {
                "TCP" => String::new(),
                other => format!("/{other}"),
            };
            ports.push(format!("{}{protocol} ({own})", port["containerPort"]));
        }
        if own != SIDECAR && own != "istio-operator" && container["securityContext"]["runAsUser"] == USER {
            told += "WARNING: User ID (UID) 1337 is reserved for the sidecar proxy.\n";
        }
    }
    // Writing into text cannot fail.
    let _ = writeln!(told, "Pod: {name}\n   Pod Revision: {revision}");
    if ports.is_empty() {
        told += "   Pod does not expose ports\n";
    } else {
        let _ = writeln!(told, "   Pod Ports: {}", ports.join(", "));
    }
    let phase = text_of(&pod["status"]["phase"]);
    if phase != "Running" {
        let _ = writeln!(told, "   Pod is not Running ({phase})");
        return told;
    }
    for (list, what) in [("containerStatuses", "Container"), ("initContainerStatuses", "Init Container")] {
        for status in items(&pod["status"][list]).iter().filter(|status| status["ready"] != true) {
            let _ = writeln!(told, "WARNING: Pod {name} {what} {} NOT READY", text_of(&status["name"]));
        }
    }
    if ignore_unmeshed {
        return told;
    }
    if !has_sidecar(pod) {
        let _ = writeln!(told, "WARNING: {name} is not part of mesh; no Istio sidecar");
        return told;
    }
    if pod["spec"]["securityContext"]["runAsUser"] == USER {
        told += "   WARNING: User ID (UID) 1337 is reserved for the sidecar proxy.\n";
    }
    let labels = &pod["metadata"]["labels"];
    for (known, what) in [(&SERVICE[..], "name"), (&VERSION[..], "revision")] {
        if known.iter().all(|label| labels[label].is_null()) {
            let _ = writeln!(
                told,
                "Suggestion: add required service {what} label for Istio telemetry. See {REQUIREMENTS}."
            );
        }
    }
    told
}

/// Why a pod has no Envoy that could be asked; `{}` stands for its name.
pub(super) fn problem(pod: &Value) -> Option<String> {
    let phase = text_of(&pod["status"]["phase"]);
    if phase != "Running" {
        return Some(format!("   Pod is not Running ({phase})"));
    }
    let all = items(&pod["status"]["containerStatuses"])
        .iter()
        .chain(items(&pod["status"]["initContainerStatuses"]));
    let mut own = all.filter(|status| status["name"] == SIDECAR);
    match own.next() {
        None => Some(format!("Pod {{}}: no container {SIDECAR:?} in pod")),
        Some(status) if status["ready"] != true => {
            Some(format!("WARNING: Pod {{}} Container {SIDECAR} NOT READY"))
        }
        Some(_) => None,
    }
}

/// The port of a pod that a Service's port leads to.
pub(super) fn target(port: &Value, pod: &Value) -> Option<i64> {
    let target = &port["targetPort"];
    let Some(name) = target.as_str() else {
        // Left out, it is the same; the API server writes it down.
        return target.as_i64().filter(|number| *number != 0).or_else(|| port["port"].as_i64());
    };
    let sidecars =
        items(&pod["spec"]["initContainers"]).iter().filter(|one| one["restartPolicy"] == "Always");
    let mut all = containers(pod).chain(sidecars).flat_map(|one| items(&one["ports"]));
    let found = all.find(|own| own["name"] == name && transport(own) == transport(port));
    found.and_then(|own| own["containerPort"].as_i64())
}

/// Describes the ports of a Service.
pub(super) fn ports(ports: &[Value], pod: &Value) -> String {
    let tcp = ports.iter().filter(|port| transport(port) == "TCP");
    let lines = tcp.map(|port| match target(port, pod) {
        Some(number) => format!(
            "   Port: {} {}/{} targets pod port {number}\n",
            text_of(&port["name"]),
            port["port"],
            protocol(port)
        ),
        None => format!("   no container of the pod has a port named {}\n", port["targetPort"]),
    });
    lines.collect()
}

/// The protocol that a Service's port is taken for.
pub(super) fn protocol(port: &Value) -> &'static str {
    let (name, application) = (text_of(&port["name"]), port["appProtocol"].as_str());
    if name.is_empty() && application.is_none() {
        return "auto-detect";
    }
    let name = match application {
        Some("kubernetes.io/h2c") => return "HTTP2",
        Some("kubernetes.io/ws") => return "HTTP",
        Some("kubernetes.io/wss") => return "HTTPS",
        Some(name) => name.to_ascii_lowercase(),
        None => name.to_ascii_lowercase(),
    };
    if name.starts_with("grpc-web") {
        return "GRPCWeb";
    }
    match name.split('-').next().unwrap_or_default() {
        "http" => "HTTP",
        "http2" => "HTTP2",
        "grpc" => "GRPC",
        "https" => "HTTPS",
        "tls" => "TLS",
        "tcp" => "TCP",
        "mongo" => "Mongo",
        "mysql" => "MySQL",
        "redis" => "Redis",
        "udp" => "UDP",
        "hbone" => "HBONE",
        _ if SERVER_FIRST.contains(&port["port"].as_i64().unwrap_or_default()) => "TCP",
        _ => "UnsupportedProtocol",
    }
}
