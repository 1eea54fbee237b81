//! Rules of `WorkloadGroup`.

use proto::istio::networking::v1alpha3::WorkloadGroup;
use proto::istio::networking::v1alpha3::readiness_probe::HealthCheckMethod;

use crate::validate::{Checker, is_dns_label};

pub(super) fn check(group: &WorkloadGroup, checker: &mut Checker) {
    let Some(template) = &group.template else {
        return checker.error("template", "is missing: say what all workloads of the group have");
    };
    // An address, and whatever else is its own, comes from the workload.
    for (name, port) in &template.ports {
        let at = format!("template.ports.{name}");
        if !is_dns_label(&name.to_ascii_lowercase()) {
            let expected = "expected letters, digits and hyphens";
            checker.error(&at, format!("{name:?} is not the name of a port: {expected}"));
        }
        checker.port(&at, *port);
    }
    let labels = group.metadata.iter().flat_map(|metadata| &metadata.labels);
    for (key, value) in labels {
        checker.label(&format!("metadata.labels.{key}"), key, value);
    }
    for (key, value) in &template.labels {
        checker.label(&format!("template.labels.{key}"), key, value);
    }
    probe(group, checker);
}

fn probe(group: &WorkloadGroup, checker: &mut Checker) {
    let Some(probe) = &group.probe else { return };
    for (name, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        checker.not_negative(&format!("probe.{name}"), number);
    }
    match &probe.health_check_method {
        None => checker.error("probe", "does not say how to check: give httpGet, tcpSocket, grpc or exec"),
        Some(HealthCheckMethod::HttpGet(get)) => {
            checker.port("probe.httpGet.port", get.port);
            if !get.scheme.is_empty() {
                checker.one_of("probe.httpGet.scheme", &get.scheme, &["HTTP", "HTTPS"]);
            }
            for (index, header) in get.http_headers.iter().enumerate() {
                let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
                if header.name.is_empty() || !header.name.bytes().all(is_name) {
                    checker.error(
                        format!("probe.httpGet.httpHeaders[{index}].name"),
                        format!(
                            "{:?} is not the name of a header: expected letters, digits and hyphens",
                            header.name
                        ),
                    );
                }
            }
        }
        Some(HealthCheckMethod::TcpSocket(socket)) => checker.port("probe.tcpSocket.port", socket.port),
        Some(HealthCheckMethod::Grpc(grpc)) => checker.port("probe.grpc.port", grpc.port),
        Some(HealthCheckMethod::Exec(exec)) => {
            if exec.command.is_empty() {
                checker.error("probe.exec.command", "is missing: name the program to run");
            }
        }
    }
}
