//! Rules of what the default configuration says of connections, tracing and keys.

use proto::istio::mesh::v1alpha1::private_key_provider::Provider;
use proto::istio::mesh::v1alpha1::proxy_config::ConnectionSettings;
use proto::istio::mesh::v1alpha1::tracing::Tracer;
use proto::istio::mesh::v1alpha1::{PrivateKeyProvider, Tracing};
use proto::istio::networking::v1alpha3::ClientTlsSettings;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode;

use super::{address, nanos};

/// The smallest window of HTTP/2.
const MIN_WINDOW: i64 = 65535;

pub(super) fn tracing(tracing: &Tracing) -> Result<(), String> {
    match &tracing.tracer {
        Some(Tracer::Lightstep(one)) => {
            address("lightstep.address", &one.address)?;
            if one.access_token.is_empty() {
                return Err("lightstep.accessToken: is missing".to_owned());
            }
        }
        // What every machine has in its place is put there later.
        Some(Tracer::Zipkin(one)) => {
            address("zipkin.address", &one.address.replacen("$(HOST_IP)", "127.0.0.1", 1))?;
        }
        Some(Tracer::Datadog(one)) => {
            address("datadog.address", &one.address.replacen("$(HOST_IP)", "127.0.0.1", 1))?;
        }
        _ => {}
    }
    tracing.tls_settings.as_ref().map_or(Ok(()), tls).map_err(|error| format!("tlsSettings.{error}"))
}

fn tls(tls: &ClientTlsSettings) -> Result<(), String> {
    if tls.credential_name.starts_with("configmap://") {
        return Err(format!("credentialName: {:?}: the mesh is of no namespace", tls.credential_name));
    }
    let is_insecure = tls.insecure_skip_verify.as_ref().is_some_and(|value| value.value);
    let (is_simple, is_mutual) = (tls.mode() == TlSmode::Simple, tls.mode() == TlSmode::Mutual);
    let has_credential = !tls.credential_name.is_empty();
    let verifies = !tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty();
    if is_insecure && (is_mutual && verifies || is_simple && (verifies || has_credential)) {
        return Err("insecureSkipVerify: nothing is verified with it: leave the certificates and names out"
            .to_owned());
    }
    if has_credential && (is_simple || is_mutual) {
        let files = [&tls.client_certificate, &tls.ca_certificates, &tls.private_key, &tls.ca_crl];
        if files.iter().any(|file| !file.is_empty()) {
            return Err("credentialName: excludes files of certificates: keep one of both".to_owned());
        }
        return Ok(());
    }
    if is_mutual && tls.client_certificate.is_empty() {
        return Err("clientCertificate: is missing: mode MUTUAL needs it".to_owned());
    }
    if is_mutual && tls.private_key.is_empty() {
        return Err("privateKey: is missing: mode MUTUAL needs it".to_owned());
    }
    Ok(())
}

pub(super) fn private_key(provider: &PrivateKeyProvider) -> Result<(), String> {
    let (name, delay) = match &provider.provider {
        Some(Provider::Cryptomb(one)) => ("cryptomb", one.poll_delay.as_ref()),
        Some(Provider::Qat(one)) => ("qat", one.poll_delay.as_ref()),
        None => return Err(": names no provider: expected cryptomb or qat".to_owned()),
    };
    if nanos(delay) == 0 {
        return Err(format!(".{name}.pollDelay: is missing or 0: write a time such as 10ms"));
    }
    Ok(())
}

pub(super) fn connections(settings: &ConnectionSettings) -> Result<(), String> {
    for (field, duration) in [
        ("httpIdleTimeout", &settings.http_idle_timeout),
        ("httpMaxConnectionDuration", &settings.http_max_connection_duration),
        ("httpDrainTimeout", &settings.http_drain_timeout),
        ("httpRequestTimeout", &settings.http_request_timeout),
        ("httpRequestHeadersTimeout", &settings.http_request_headers_timeout),
        ("httpStreamIdleTimeout", &settings.http_stream_idle_timeout),
        ("httpMaxStreamDuration", &settings.http_max_stream_duration),
    ] {
        if nanos(duration.as_ref()) < 0 {
            return Err(format!("{field}: is less than 0"));
        }
    }
    macro_rules! number {
        ($field:ident) => {
            settings.$field.as_ref().map(|number| i64::from(number.value))
        };
    }
    for (field, number, least) in [
        ("listenerPerConnectionBufferLimitBytes", number!(listener_per_connection_buffer_limit_bytes), 0),
        ("clusterPerConnectionBufferLimitBytes", number!(cluster_per_connection_buffer_limit_bytes), 0),
        ("httpMaxConcurrentStreams", number!(http_max_concurrent_streams), 1),
        ("http2InitialStreamWindowSize", number!(http2_initial_stream_window_size), MIN_WINDOW),
        ("http2InitialConnectionWindowSize", number!(http2_initial_connection_window_size), MIN_WINDOW),
        ("listenerConnectionLimit", number!(listener_connection_limit), 1),
        ("globalDownstreamConnectionLimit", number!(global_downstream_connection_limit), 1),
    ] {
        if let Some(number) = number.filter(|number| *number < least) {
            return Err(format!("{field}: {number} is too small: expected {least} or more"));
        }
    }
    Ok(())
}
