//! Certificates by signers of the cluster, roots in a ClusterTrustBundle, and
//! tokens of an issuer outside of the cluster.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use istio_tests::grpc::Channel;
use istio_tests::kube::Istiod;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use pki::certificate::Certificate;
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use proto::istio::v1::auth::IstioCertificateRequest;
use runtime::tasks::Tasks;
use serde_json::{Value, json};
use tonic::{Code, Status};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension};

use super::ca::{AUDIENCE, SYSTEM, wait};
use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[
    ("signers_of_the_cluster_sign_for_istiod_and_workloads", signers),
    ("the_roots_are_told_in_a_cluster_trust_bundle_if_that_is_wanted", trust_bundle),
    ("tokens_of_another_issuer_are_taken_if_a_rule_names_it", other_issuer),
];

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Domain of the signers of the test.
const DOMAIN: &str = "test.example";
/// One of them, which does not sign.
const REFUSES: &str = "test.example/refuses";

/// Signs all that is approved, for as long as it is let.
async fn sign_all(client: Client, issuer: Arc<Issuer>) -> anyhow::Result<()> {
    let api: Api<CertificateSigningRequest> = Api::all(client);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        for request in api.list(&ListParams::default()).await?.items {
            let status = request.status.clone().unwrap_or_default();
            let is_approved = status.conditions.iter().flatten().any(|one| one.type_ == "Approved");
            let is_over = status.conditions.iter().flatten().any(|one| one.type_ == "Failed");
            let spec = &request.spec;
            if !is_approved
                || is_over
                || status.certificate.is_some()
                || !spec.signer_name.starts_with(DOMAIN)
            {
                continue;
            }
            let name = request.metadata.name.clone().unwrap_or_default();
            let answer = if spec.signer_name == REFUSES {
                let failed =
                    json!({"type": "Failed", "status": "True", "reason": "Policy", "message": "never"});
                let before = serde_json::to_value(&status.conditions)?;
                let all = before.as_array().into_iter().flatten().cloned().chain([failed]);
                json!({"conditions": all.collect::<Vec<Value>>()})
            } else {
                let text = std::str::from_utf8(&spec.request.0)?;
                let ttl = Duration::from_secs(spec.expiration_seconds.context("no lifetime")?.try_into()?);
                let csr = Csr::parse(text)?;
                let chain = issuer.issue(&csr, &names(text)?, ttl.min(DAY), SystemTime::now())?;
                json!({"certificate": STANDARD.encode(&chain[0])})
            };
            // It may be taken back meanwhile.
            let patch = Patch::Merge(json!({"status": answer}));
            api.patch_status(&name, &PatchParams::default(), &patch).await.ok();
        }
    }
}

/// What a request asks for.
fn names(text: &str) -> anyhow::Result<Vec<San>> {
    let (pem, _) = x509_parser::pem::Pem::read(std::io::Cursor::new(text.as_bytes()))?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents)?;
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(all) = extension {
            for name in &all.general_names {
                match name {
                    GeneralName::URI(uri) => names.push(San::Spiffe(uri.parse()?)),
                    GeneralName::DNSName(name) => names.push(San::Dns((*name).to_owned())),
                    _ => {}
                }
            }
        }
    }
    Ok(names)
}

fn ask(
    stage: &Stage,
    istiod: &Istiod,
    token: &str,
    roots: &str,
    (id, signer): (&str, &str),
) -> anyhow::Result<Result<Vec<String>, Status>> {
    let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let request = IstioCertificateRequest {
        csr: pki::csr::request(&key, &id.parse()?)?,
        validity_duration: 3600,
        metadata: Some(serde_json::from_value(json!({"CertSigner": signer}))?),
    };
    stage.cluster.run(async {
        let channel = Channel::tls(istiod.secure, roots).await?;
        Ok(channel.certificate(Some(token), "", request).await)
    })
}

fn mesh(data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": SYSTEM},
        "data": {"mesh": data.to_string()},
    })
}

fn signers(stage: &mut Stage) -> anyhow::Result<()> {
    let (issuer, _) = Issuer::self_signed(DOMAIN, 30 * DAY, SystemTime::now())?;
    let root = issuer.root_pem().to_owned();
    let of_istiod = format!("{DOMAIN}/istiod");
    let of_workloads = format!("{DOMAIN}/workload");
    let entry = json!({"pem": root, "certSigners": [of_istiod, of_workloads, REFUSES]});
    stage.cluster.apply(&[mesh(&json!({"caCertificates": [entry]}))])?;
    stage.cluster.delete("v1", "Secret", SYSTEM, "istio-ca-secret")?;
    let client = stage.cluster.client();
    let tasks = Tasks::new();
    stage.cluster.run(async {
        tasks.spawn("signer", sign_all(client, Arc::new(issuer)));
    });
    let result = with_signers(stage, &root, (&of_istiod, &of_workloads));
    stage.cluster.run(tasks.stop(Duration::from_secs(1)));
    stage.cluster.delete("v1", "ConfigMap", SYSTEM, "istio")?;
    result
}

fn with_signers(stage: &Stage, root: &str, (of_istiod, of_workloads): (&str, &str)) -> anyhow::Result<()> {
    let provider = format!("k8s.io/{of_istiod}");
    let environment = [
        ("EXTERNAL_CA", "ISTIOD_RA_KUBERNETES_API"),
        ("CERT_SIGNER_DOMAIN", DOMAIN),
        ("K8S_SIGNER", of_workloads),
        ("PILOT_CERT_PROVIDER", provider.as_str()),
    ];
    let mut istiod = Istiod::of(&stage.cluster, &stage.program, &environment)?;
    istiod.wait_ready()?;
    let map = wait("the signer's root in the ConfigMap", || {
        let map = stage.cluster.get("v1", "ConfigMap", "default", "istio-ca-root-cert")?;
        let roots = map.and_then(|map| map["data"]["root-cert.pem"].as_str().map(str::to_owned));
        Ok(roots.filter(|roots| roots.trim() == root.trim()))
    })?;
    stage.cluster.namespace("signed", &[])?;
    stage.cluster.account("signed", "cart")?;
    let token = stage.cluster.token("signed", "cart", &[AUDIENCE])?;
    let own = "spiffe://cluster.local/ns/signed/sa/cart";
    // One that is named in the request, and the default; the connection itself shows that
    // istiod's own certificate is of the signer.
    for signer in ["workload", ""] {
        let chain = ask(stage, &istiod, &token, &map, (own, signer))?
            .map_err(|status| anyhow::anyhow!("{status}"))?;
        let [leaf, last] = chain.as_slice() else { anyhow::bail!("{} parts", chain.len()) };
        ensure!(last.trim() == root.trim(), "other roots");
        let leaf = Certificate::all_from_pem(leaf)?.remove(0);
        ensure!(leaf.uris == [own], "{:?}", leaf.uris);
        pki::verify::check_chain(&chain[0], root, SystemTime::now())?;
    }
    let foreign = "spiffe://cluster.local/ns/signed/sa/admin";
    for (id, signer, code, why) in [
        (foreign, "workload", Code::InvalidArgument, "not an identity of the caller"),
        (own, "refuses", Code::Internal, "Failed: Policy: never"),
    ] {
        let status = ask(stage, &istiod, &token, &map, (id, signer))?.err().context("a certificate")?;
        ensure!(status.code() == code && status.message().contains(why), "{status}");
    }
    ensure!(stage.cluster.get("v1", "Secret", SYSTEM, "istio-ca-secret")?.is_none(), "istiod made a key");
    wait("the end of all requests", || {
        let left = stage.cluster.list("certificates.k8s.io/v1", "CertificateSigningRequest")?;
        Ok(left.is_empty().then_some(()))
    })
}

fn trust_bundle(stage: &mut Stage) -> anyhow::Result<()> {
    const NAME: &str = "istio.io:istiod-ca:root-cert";
    const VERSION: &str = "certificates.k8s.io/v1beta1";
    let environment = [("ENABLE_CLUSTER_TRUST_BUNDLE_API", "true")];
    let mut istiod = Istiod::of(&stage.cluster, &stage.program, &environment)?;
    istiod.wait_ready()?;
    let root = stage.wait_roots("default")?;
    let wait_right = |what: &str| {
        wait(what, || {
            let bundle = stage.cluster.get(VERSION, "ClusterTrustBundle", "", NAME)?;
            let Some(bundle) = bundle else { return Ok(None) };
            ensure!(bundle["spec"]["signerName"] == "istio.io/istiod-ca", "{}", bundle["spec"]["signerName"]);
            Ok((bundle["spec"]["trustBundle"] == root.as_str()).then_some(()))
        })
    };
    wait_right("the ClusterTrustBundle")?;
    let (other, _) = Issuer::self_signed("other", DAY, SystemTime::now())?;
    stage.cluster.apply(&[json!({
        "apiVersion": VERSION, "kind": "ClusterTrustBundle", "metadata": {"name": NAME},
        "spec": {"signerName": "istio.io/istiod-ca", "trustBundle": other.root_pem()},
    })])?;
    wait_right("the roots in place of what was written")?;
    stage.cluster.delete(VERSION, "ClusterTrustBundle", "", NAME)?;
    wait_right("the ClusterTrustBundle that was deleted")?;
    drop(istiod);
    stage.cluster.delete(VERSION, "ClusterTrustBundle", "", NAME)
}

/// Serves a text to whoever asks, for as long as the program runs.
fn serve(text: String) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The request fits into the first piece.
            if !stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                continue;
            }
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
            write!(stream, "{head} {}\r\n\r\n{text}", text.len()).ok();
        }
    });
    Ok(format!("http://{address}/keys"))
}

fn other_issuer(stage: &mut Stage) -> anyhow::Result<()> {
    const ISSUER: &str = "https://issuer.example";
    let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let encoded: String = key.public_key_pem().lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(encoded)?;
    // The last 64 bytes are the point.
    let (x, y) = der[der.len() - 64..].split_at(32);
    let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let public =
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": x, "y": y});
    let uri = serve(json!({"keys": [public]}).to_string())?;
    let rule = json!({"issuer": ISSUER, "jwks_uri": uri, "audiences": ["mesh"]}).to_string();
    let mut istiod = Istiod::of(&stage.cluster, &stage.program, &[("JWT_RULE", rule.as_str())])?;
    istiod.wait_ready()?;
    let roots = stage.wait_roots("default")?;
    let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 600;
    let token = |audience: &str| {
        let claims =
            json!({"iss": ISSUER, "aud": [audience], "exp": end, "sub": "system:serviceaccount:vm:legacy"});
        let header = jsonwebtoken::Header {
            kid: Some("1".into()),
            ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256)
        };
        let key = jsonwebtoken::EncodingKey::from_ec_pem(key.to_pkcs8_pem().as_bytes())?;
        anyhow::Ok(jsonwebtoken::encode(&header, &claims, &key)?)
    };
    let own = "spiffe://cluster.local/ns/vm/sa/legacy";
    let asked = ask(stage, &istiod, &token("mesh")?, &roots, (own, ""))?;
    let chain = asked.map_err(|status| anyhow::anyhow!("{status}"))?;
    let leaf = Certificate::all_from_pem(&chain[0])?.remove(0);
    ensure!(leaf.uris == [own], "{:?}", leaf.uris);
    let status = ask(stage, &istiod, &token("other")?, &roots, (own, ""))?.err().context("a certificate")?;
    let is_told = status.code() == Code::Unauthenticated && status.message().contains("accepted: mesh");
    ensure!(is_told, "{status}");
    // Those of the cluster are good as before.
    let of_cluster = stage.cluster.token("default", "default", &[AUDIENCE])?;
    let id = "spiffe://cluster.local/ns/default/sa/default";
    ensure!(ask(stage, &istiod, &of_cluster, &roots, (id, ""))?.is_ok(), "a token of the cluster is refused");
    Ok(())
}
