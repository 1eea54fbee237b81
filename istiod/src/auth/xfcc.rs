//! The caller by what a gateway says of its certificate (`x-forwarded-client-cert`),
//! taken only from gateways of given networks (`TRUSTED_GATEWAY_CIDR`).

use names::SpiffeId;

use super::{Authenticator, Caller, Credentials, Refusal};
use crate::jwks::Network;

/// Takes the SPIFFE ids that trusted gateways forward.
#[derive(Debug)]
pub struct Forwarded {
    /// Networks of the gateways. This machine is not among them unless it is named.
    pub trusted: Vec<Network>,
}

#[tonic::async_trait]
impl Authenticator for Forwarded {
    fn name(&self) -> &'static str {
        "forwarded certificate"
    }

    async fn authenticate(&self, credentials: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
        let header = credentials.forwarded?;
        let address = credentials.address?;
        if !self.trusted.iter().any(|network| network.contains(address)) {
            return Some(Err(format!("{address} is in no network of TRUSTED_GATEWAY_CIDR").into()));
        }
        let identities = identities(header);
        Some(if identities.is_empty() {
            Err("names no SPIFFE identity".into())
        } else {
            Ok(Caller { identities, by: self.name(), pod: None })
        })
    }
}

/// The SPIFFE ids of all certificates of the header.
fn identities(header: &str) -> Vec<SpiffeId> {
    let elements = split(header, ',').into_iter();
    let fields = elements.flat_map(|element| split(element, ';'));
    let uris = fields.filter_map(|field| {
        let (key, value) = field.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        key.trim().eq_ignore_ascii_case("URI").then(|| value.parse().ok()).flatten()
    });
    uris.collect()
}

/// The parts between separators that stand outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if letter == separator && !quoted => {
                parts.push(&text[begin..at]);
                begin = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_every_element_and_never_from_within_quotes() {
        let read = |header: &str| identities(header).iter().map(ToString::to_string).collect::<Vec<_>>();
        let (a, b) = ("spiffe://td/ns/a/sa/a", "spiffe://td/ns/b/sa/b");
        assert_eq!(read(&format!("By=x;Hash=1;URI={a},URI=\"{b}\";DNS=c")), [a, b]);
        assert_eq!(read(&format!("Subject=\"CN=x,URI={a};URI={a}\";uri={b}")), [b]);
        assert_eq!(read(&format!("Subject=\"a\\\",URI={a}\";URI={b}")), [b]);
        for none in ["", ",;=", "URI=", "URI=https://a", "By=spiffe://td/ns/a/sa/a", "\"URI=x"] {
            assert!(read(none).is_empty(), "{none}");
        }
    }

    #[tokio::test]
    async fn only_trusted_gateways_are_believed() {
        let forwarded = Forwarded { trusted: vec!["10.1.0.0/16".parse().unwrap()] };
        let ask = async |address: &str| {
            let credentials = Credentials {
                address: Some(address.parse().unwrap()),
                forwarded: Some("URI=spiffe://td/ns/a/sa/a"),
                ..Credentials::default()
            };
            forwarded.authenticate(&credentials).await.unwrap().is_ok()
        };
        assert!(ask("10.1.2.3").await);
        assert!(!ask("10.2.2.3").await && !ask("127.0.0.1").await && !ask("::1").await);
        assert!(forwarded.authenticate(&Credentials::default()).await.is_none());
    }
}
