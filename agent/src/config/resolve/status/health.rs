//! The readiness probe of the ProxyConfig.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proto::istio::networking::v1alpha3::ReadinessProbe;
use proto::istio::networking::v1alpha3::readiness_probe::HealthCheckMethod;

use super::super::super::env::Reader;
use super::super::super::status::{Check, HealthCheck};

/// Time for one probe when nobody says.
const TIMEOUT: u32 = 1;
/// From one probe to the next when nobody says.
const PERIOD: u32 = 10;

pub(super) fn check(probe: &ReadinessProbe, reader: &mut Reader<'_>) -> Option<HealthCheck> {
    let read = read(probe);
    if let Err(error) = &read {
        reader.error(format!("readinessProbe of the ProxyConfig: {error}"));
    }
    read.ok()
}

fn read(probe: &ReadinessProbe) -> Result<HealthCheck, String> {
    let number = |name: &str, value: i32, fallback: u32| match u32::try_from(value) {
        Ok(0) => Ok(fallback),
        Ok(value) => Ok(value),
        Err(_) => Err(format!("{name} is {value}: expected no negative number")),
    };
    let seconds = |name: &str, value: i32, fallback: u32| {
        number(name, value, fallback).map(|seconds| Duration::from_secs(seconds.into()))
    };
    let method = probe.health_check_method.as_ref();
    Ok(HealthCheck {
        initial_delay: seconds("initialDelaySeconds", probe.initial_delay_seconds, 0)?,
        timeout: seconds("timeoutSeconds", probe.timeout_seconds, TIMEOUT)?,
        period: seconds("periodSeconds", probe.period_seconds, PERIOD)?,
        successes: number("successThreshold", probe.success_threshold, 1)?,
        failures: number("failureThreshold", probe.failure_threshold, 1)?,
        check: method.map_or(Err("expected one of httpGet, tcpSocket, exec and grpc".into()), action)?,
    })
}

fn action(method: &HealthCheckMethod) -> Result<Check, String> {
    let host = |host: &str| (!host.is_empty()).then(|| host.to_owned());
    Ok(match method {
        HealthCheckMethod::HttpGet(get) => {
            let is_tls = match get.scheme.to_ascii_lowercase().as_str() {
                "" | "http" => false,
                "https" => true,
                other => return Err(format!("scheme {other:?}: expected HTTP or HTTPS")),
            };
            let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
            path.parse::<http::Uri>().map_err(|error| format!("path {path:?}: {error}"))?;
            let headers = get.http_headers.iter().map(|header| {
                let name = HeaderName::try_from(&header.name).map_err(|_| &header.name)?;
                let mut value = HeaderValue::try_from(&header.value).map_err(|_| &header.name)?;
                // It may be a credential, and settings are shown.
                value.set_sensitive(true);
                Ok((name, value))
            });
            let headers = headers.collect::<Result<_, &String>>();
            let headers =
                headers.map_err(|name| format!("httpHeaders: {name:?} or its value can be no header"))?;
            Check::Http { is_tls, host: host(&get.host), port: port(get.port)?, path, headers }
        }
        HealthCheckMethod::TcpSocket(tcp) => Check::Tcp { host: host(&tcp.host), port: port(tcp.port)? },
        HealthCheckMethod::Exec(exec) if exec.command.first().is_none_or(String::is_empty) => {
            return Err("exec: expected a command".into());
        }
        HealthCheckMethod::Exec(exec) => Check::Exec(exec.command.clone()),
        HealthCheckMethod::Grpc(grpc) => {
            Check::Grpc { port: port(grpc.port)?, service: grpc.service.clone() }
        }
    })
}

fn port(value: u32) -> Result<u16, String> {
    let port = u16::try_from(value).ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("port {value}: expected 1 to 65535"))
}
