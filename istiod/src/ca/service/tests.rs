use pki::certificate::Certificate;
use pki::issuer::Issuer;
use pki::key::{Algorithm, PrivateKey};
use serde_json::json;

use super::*;
use crate::auth::Authenticator;

const DAY: Duration = Duration::from_secs(24 * 3600);
const OWN: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Everybody is the same account.
struct Always;

#[tonic::async_trait]
impl Authenticator for Always {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn authenticate(&self, _: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
        Some(Ok(Caller { identities: vec![OWN.parse().unwrap()], by: "test", pod: None }))
    }
}

fn service() -> Service {
    let (issuer, _) = Issuer::self_signed("cluster.local", 3650 * DAY, SystemTime::now()).unwrap();
    let authority = Authority::new(issuer, "test", DAY, 90 * DAY);
    Service::new(authority, Chain::new(vec![Box::new(Always)]), Arc::default())
}

/// A request for somebody else's identity, which must not matter.
fn request() -> IstioCertificateRequest {
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let id = "spiffe://cluster.local/ns/kube-system/sa/admin".parse().unwrap();
    IstioCertificateRequest {
        csr: pki::csr::request(&key, &id).unwrap(),
        ..IstioCertificateRequest::default()
    }
}

fn wishing(key: &str, value: &str) -> IstioCertificateRequest {
    let metadata = serde_json::from_value(json!({key: value})).unwrap();
    IstioCertificateRequest { metadata: Some(metadata), ..request() }
}

async fn ask(request: IstioCertificateRequest) -> Result<Certificate, Status> {
    let answer = service().create_certificate(Request::new(request)).await?.into_inner();
    Ok(Certificate::all_from_pem(&answer.cert_chain[0]).unwrap().remove(0))
}

#[tokio::test]
async fn the_identity_is_the_callers_whatever_the_request_says() {
    let leaf = ask(request()).await.unwrap();
    let ids: Vec<String> = leaf.spiffe_ids().iter().map(ToString::to_string).collect();
    assert_eq!(ids, [OWN]);
}

#[tokio::test]
async fn nobody_gets_a_certificate_of_somebody_else() {
    let refused = ask(wishing("ImpersonatedIdentity", "spiffe://cluster.local/ns/a/sa/b")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    assert!(refused.message().starts_with("request impersonation authentication failure"), "{refused}");
    assert!(ask(wishing("ImpersonatedIdentity", "")).await.is_ok());
}

#[tokio::test]
async fn a_signer_that_there_is_not_is_named() {
    let refused = ask(wishing("CertSigner", "other")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("no signer \"other\""), "{refused}");
    assert!(ask(wishing("unknown", "x")).await.is_ok());
}

#[tokio::test]
async fn no_lifetime_is_longer_than_the_limit() {
    let of = |seconds: i64| IstioCertificateRequest { validity_duration: seconds, ..request() };
    for seconds in [i64::MAX, i64::MAX / 1_000_000_000 + 1, 90 * 24 * 3600 + 1] {
        let refused = ask(of(seconds)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{seconds}");
        assert!(refused.message().contains("greater than the max allowed TTL 2160h0m0s"), "{refused}");
    }
    for (seconds, want) in [(0, DAY), (-1, DAY), (i64::MIN, DAY), (3600, DAY / 24)] {
        let leaf = ask(of(seconds)).await.unwrap();
        let left = leaf.not_after.duration_since(SystemTime::now()).unwrap();
        assert!(left <= want && left + Duration::from_secs(60) > want, "{seconds}: {left:?}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_the_reason() {
    let good = request().csr;
    let certificate = service().authority.root_pem();
    let two = format!("{good}{good}");
    for (csr, want) in [
        ("", "no PEM block"),
        ("garbage", "no PEM block"),
        (certificate.as_str(), "no PEM block"),
        (&two, "another request"),
    ] {
        let request = IstioCertificateRequest { csr: csr.to_owned(), ..IstioCertificateRequest::default() };
        let refused = ask(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(want), "{refused}");
    }
}
