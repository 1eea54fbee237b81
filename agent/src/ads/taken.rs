//! Messages that are meant for the agent: names for its DNS proxy, and roots.

use std::sync::Arc;

use bytes::Bytes;
use names::TypeUrl;
use prost::Message as _;
use proto::Any;
use proto::istio::mesh::v1alpha1::ProxyConfig;
use proto::istio::networking::nds::v1::NameTable;

use super::Ends;
use super::own::Variant;

/// What istiod is told of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) version: String,
    pub(super) nonce: String,
    /// Why it is refused.
    pub(super) error: Option<String>,
}

/// Publishes what a message holds. One without a resource changes nothing.
pub(super) fn take(ends: &Ends, variant: Variant, kind: &TypeUrl, message: Bytes) -> Answer {
    let response = match variant.response(message) {
        Ok(response) => response,
        Err(error) => return Answer { error: Some(error.to_string()), ..Answer::default() },
    };
    let error = response.resource.and_then(|resource| publish(ends, kind, resource).err());
    let error = error.map(|error| format!("{}: {error}", kind.short()));
    Answer { version: response.version, nonce: response.nonce, error }
}

fn publish(ends: &Ends, kind: &TypeUrl, resource: Any) -> Result<(), Error> {
    if resource.type_url != kind.as_str() {
        return Err(Error::Type(resource.type_url));
    }
    match (kind, &ends.names, &ends.roots) {
        (TypeUrl::NameTable, Some(names), _) => {
            names.send_replace(Some(Arc::new(NameTable::decode(resource.value)?)));
        }
        (TypeUrl::ProxyConfig, _, Some(roots)) => {
            let now = ProxyConfig::decode(resource.value)?.ca_certificates_pem;
            roots.send_if_modified(|roots| {
                let is_new = **roots != now;
                if is_new {
                    *roots = Arc::new(now);
                }
                is_new
            });
        }
        _ => {}
    }
    Ok(())
}

/// Why a message is of no use.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("a resource of type {0:?}")]
    Type(String),
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
}

#[cfg(test)]
mod tests {
    use proto::envoy::service::discovery::v3::DiscoveryResponse;
    use tokio::sync::watch;

    use super::*;

    fn message(type_url: &str, value: Vec<u8>) -> Bytes {
        let any = Any { type_url: type_url.into(), value: value.into() };
        let response = DiscoveryResponse {
            version_info: "v".into(),
            nonce: "n".into(),
            resources: vec![any],
            ..DiscoveryResponse::default()
        };
        response.encode_to_vec().into()
    }

    #[test]
    fn what_can_be_read_is_published_and_the_rest_is_refused() {
        let (sender, roots) = watch::channel(Arc::default());
        let ends = Ends { roots: Some(sender), ..Ends::default() };
        let kind = TypeUrl::ProxyConfig;
        let config = ProxyConfig { ca_certificates_pem: vec!["a".into()], ..ProxyConfig::default() };
        let good = message(kind.as_str(), config.encode_to_vec());
        let accepted = Answer { version: "v".into(), nonce: "n".into(), error: None };
        assert_eq!(take(&ends, Variant::Sotw, &kind, good.clone()), accepted);
        assert_eq!(**roots.borrow(), ["a"]);
        assert!(roots.has_changed().unwrap());

        let mut again = roots.clone();
        again.mark_unchanged();
        take(&ends, Variant::Sotw, &kind, good);
        assert!(!again.has_changed().unwrap(), "the same roots are no news");

        let bad = take(&ends, Variant::Sotw, &kind, message(kind.as_str(), vec![0xff; 3]));
        assert_eq!((bad.nonce.as_str(), bad.error.unwrap().contains("PCDS")), ("n", true));
        let other = take(&ends, Variant::Sotw, &kind, message("t/x", Vec::new()));
        assert!(other.error.unwrap().contains("a resource of type \"t/x\""));
        assert_eq!(**roots.borrow(), ["a"], "the last good ones stay");

        let empty: Bytes =
            DiscoveryResponse { nonce: "n".into(), ..DiscoveryResponse::default() }.encode_to_vec().into();
        assert_eq!(take(&ends, Variant::Sotw, &kind, empty).error, None);
        assert_eq!(**roots.borrow(), ["a"]);
    }
}
