//! The authority on a cluster: who may ask in whose name, what proxies are told of
//! roots, lists of revoked certificates, and where a self-signed root may be kept.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use istio_tests::grpc::Channel;
use istio_tests::kube::Istiod;
use names::TypeUrl;
use pki::certificate::Certificate;
use pki::key::{Algorithm, PrivateKey};
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::istio::mesh::v1alpha1::ProxyConfig;
use proto::istio::v1::auth::IstioCertificateRequest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::ca::{AUDIENCE, PATIENCE, SYSTEM, wait};
use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[
    ("a_proxy_of_a_node_gets_certificates_of_pods_of_its_node_only", impersonation),
    ("agents_are_told_of_new_roots_while_their_stream_is_open", told_of_roots),
    ("lists_of_revoked_certificates_reach_every_namespace", revoked),
    ("a_self_signed_root_may_be_kept_in_cacerts", cacerts),
];

const CRL_MAP: &str = "istio-ca-crl";

/// A pod that was put on a node.
fn pod(namespace: &str, name: &str, account: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "serviceAccountName": account, "nodeName": node,
            "containers": [{"name": "app", "image": "example.com/none"}],
        },
    })
}

/// Asks for a certificate in somebody's name.
fn ask_as(
    stage: &Stage,
    istiod: &Istiod,
    token: &str,
    wished: &str,
) -> anyhow::Result<Result<Vec<String>, Status>> {
    let roots = stage.wait_roots("default")?;
    let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let request = IstioCertificateRequest {
        csr: pki::csr::request(&key, &"spiffe://cluster.local/ns/a/sa/b".parse()?)?,
        metadata: Some(serde_json::from_value(json!({"ImpersonatedIdentity": wished}))?),
        ..IstioCertificateRequest::default()
    };
    stage.cluster.run(async {
        let channel = Channel::tls(istiod.secure, &roots).await?;
        Ok(channel.certificate(Some(token), "", request).await)
    })
}

fn impersonation(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = &stage.cluster;
    cluster.namespace("meshed", &[])?;
    for account in ["here", "there", "failed", "nobody"] {
        cluster.account("meshed", account)?;
    }
    for account in ["ztunnel", "other"] {
        cluster.account(SYSTEM, account)?;
    }
    let mut failed = pod("meshed", "failed", "failed", "node-1");
    failed["status"] = json!({"phase": "Failed"});
    cluster.apply(&[
        pod(SYSTEM, "ztunnel-1", "ztunnel", "node-1"),
        pod(SYSTEM, "other-1", "other", "node-1"),
        pod("meshed", "here", "here", "node-1"),
        pod("meshed", "there", "there", "node-2"),
        failed,
    ])?;
    let environment = [("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/ztunnel")];
    let mut istiod = Istiod::of(cluster, &stage.program, &environment)?;
    istiod.wait_ready()?;
    let bound = cluster.token_of_pod(SYSTEM, "ztunnel-1", &[AUDIENCE])?;
    let id = |account: &str| format!("spiffe://cluster.local/ns/meshed/sa/{account}");

    let chain = ask_as(stage, &istiod, &bound, &id("here"))?.map_err(|status| anyhow::anyhow!("{status}"))?;
    let leaf = Certificate::all_from_pem(chain.first().context("no certificate")?)?.remove(0);
    ensure!(leaf.uris == [id("here")], "{:?}", leaf.uris);

    let unbound = cluster.token(SYSTEM, "ztunnel", &[AUDIENCE])?;
    let other = cluster.token_of_pod(SYSTEM, "other-1", &[AUDIENCE])?;
    let of_app = cluster.token_of_pod("meshed", "here", &[AUDIENCE])?;
    let foreign = "spiffe://elsewhere/ns/meshed/sa/here".to_owned();
    for (what, token, wished, why) in [
        ("a pod of another node", &bound, id("there"), "is on node node-1"),
        ("a pod that has failed", &bound, id("failed"), "is on node node-1"),
        ("an account without pods", &bound, id("nobody"), "is on node node-1"),
        ("another trust domain", &bound, foreign, "another trust domain"),
        ("no identity", &bound, "meshed/here".to_owned(), "meshed/here"),
        ("a token of no pod", &unbound, id("here"), "names no pod"),
        ("an account that is not trusted", &other, id("here"), "may ask for nobody else"),
        ("the application itself", &of_app, id("here"), "may ask for nobody else"),
    ] {
        let status = ask_as(stage, &istiod, token, &wished)?
            .err()
            .with_context(|| format!("{what}: a certificate"))?;
        let is_refused = status.code() == Code::Unauthenticated
            && status.message().starts_with("request impersonation authentication failure")
            && status.message().contains(why);
        ensure!(is_refused, "{what}: {status}");
    }
    // A pod of the same name is another one: its token was not meant for it.
    cluster.delete("v1", "Pod", SYSTEM, "ztunnel-1")?;
    cluster.apply(&[pod(SYSTEM, "ztunnel-1", "ztunnel", "node-1")])?;
    let status =
        wait("a refusal of the old pod's token", || Ok(ask_as(stage, &istiod, &bound, &id("here"))?.err()))?;
    ensure!(status.code() == Code::Unauthenticated, "{status}");
    // Without the setting nobody may.
    let plain = stage.istiod()?;
    let fresh = cluster.token_of_pod(SYSTEM, "ztunnel-1", &[AUDIENCE])?;
    let status = ask_as(stage, &plain, &fresh, &id("here"))?.err().context("a certificate")?;
    ensure!(
        status.code() == Code::Unauthenticated && status.message().contains("CA_TRUSTED_NODE_ACCOUNTS"),
        "{status}"
    );
    for (namespace, name) in [
        (SYSTEM, "ztunnel-1"),
        (SYSTEM, "other-1"),
        ("meshed", "here"),
        ("meshed", "there"),
        ("meshed", "failed"),
    ] {
        cluster.delete("v1", "Pod", namespace, name)?;
    }
    Ok(())
}

/// The roots of an answer.
fn roots(answer: &DeltaDiscoveryResponse) -> anyhow::Result<Vec<String>> {
    ensure!(answer.type_url == TypeUrl::ProxyConfig.as_str(), "{}", answer.type_url);
    let resource = answer.resources.first().and_then(|one| one.resource.as_ref()).context("no resource")?;
    Ok(ProxyConfig::decode(resource.value.as_ref())?.ca_certificates_pem)
}

fn told_of_roots(stage: &mut Stage) -> anyhow::Result<()> {
    let istiod = stage.istiod()?;
    let own = stage.wait_roots("default")?;
    let token = stage.cluster.token("default", "default", &[AUDIENCE])?;
    let request = |node: Option<Node>, nonce: &str| DeltaDiscoveryRequest {
        node,
        type_url: TypeUrl::ProxyConfig.as_str().to_owned(),
        response_nonce: nonce.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let node = Node { id: super::NODE.into(), ..Node::default() };
    let (mut stream, first) = stage.cluster.run(async {
        let channel = Channel::tls(istiod.secure, &own).await?;
        let mut stream = channel.delta(Some(&token), request(Some(node), "")).await?;
        let first = tokio::time::timeout(PATIENCE, stream.next()).await.context("no roots")??;
        stream.send(request(None, &first.nonce)).await?;
        anyhow::Ok((stream, first))
    })?;
    ensure!(roots(&first)?.concat().trim() == own.trim(), "{:?}", roots(&first)?);
    let day = Duration::from_secs(24 * 3600);
    let (issuer, _) = pki::issuer::Issuer::self_signed("other", day, std::time::SystemTime::now())?;
    let mesh = json!({"caCertificates": [{"pem": issuer.root_pem()}]}).to_string();
    stage.cluster.apply(&[json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": SYSTEM},
        "data": {"mesh": mesh},
    })])?;
    let second = stage.cluster.run(async {
        anyhow::Ok(tokio::time::timeout(PATIENCE, stream.next()).await.context("no new roots")??)
    });
    stage.cluster.delete("v1", "ConfigMap", SYSTEM, "istio")?;
    let second = roots(&second?)?;
    ensure!(
        second.len() == 2 && second.iter().any(|root| root.trim() == issuer.root_pem().trim()),
        "{second:?}"
    );
    Ok(())
}

/// A CA of files with a list of what it has revoked.
struct Plugged {
    issuer: rcgen::Issuer<'static, KeyPair>,
    root: String,
    key: String,
}

impl Plugged {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::OrganizationName, "plugged");
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        let text = key.serialize_pem();
        Ok(Self { issuer: rcgen::Issuer::new(params, key), root, key: text })
    }

    /// A list with that serial number.
    fn revokes(&self, serial: u64) -> anyhow::Result<String> {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(serial),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir)?;
        for (name, text) in [
            ("ca-cert.pem", self.root.as_str()),
            ("ca-key.pem", &self.key),
            ("cert-chain.pem", ""),
            ("root-cert.pem", &self.root),
        ] {
            std::fs::write(dir.join(name), text)?;
        }
        Ok(())
    }
}

impl Stage {
    /// Waits until a namespace was told that list.
    fn wait_list(&self, namespace: &str, wanted: &str) -> anyhow::Result<()> {
        wait("the list of revoked certificates", || {
            let map = self.cluster.get("v1", "ConfigMap", namespace, CRL_MAP)?;
            let text = map.and_then(|map| map["data"]["ca-crl.pem"].as_str().map(str::to_owned));
            Ok((text.as_deref() == Some(wanted)).then_some(()))
        })
    }
}

fn revoked(stage: &mut Stage) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ca-crl.pem");
    let put = |text: &str| -> anyhow::Result<()> {
        let draft = dir.path().join("draft");
        std::fs::write(&draft, text)?;
        Ok(std::fs::rename(&draft, &file)?)
    };
    let plugged = Plugged::new()?;
    plugged.write(dir.path())?;
    let (first, second) = (plugged.revokes(1)?, plugged.revokes(2)?);
    put(&first)?;
    let place = dir.path().display().to_string();
    let mut istiod = Istiod::of(&stage.cluster, &stage.program, &[("ROOT_CA_DIR", place.as_str())])?;
    istiod.wait_ready()?;
    stage.wait_list("default", &first)?;
    stage.cluster.namespace("late-list", &[])?;
    stage.wait_list("late-list", &first)?;
    stage.cluster.delete("v1", "ConfigMap", "late-list", CRL_MAP)?;
    stage.wait_list("late-list", &first)?;
    put(&second)?;
    stage.wait_list("late-list", &second)?;
    // What is no list changes nothing.
    put("nonsense")?;
    wait("a warning", || Ok(istiod.output().contains("what it said before stays in force").then_some(())))?;
    put(&Plugged::new()?.revokes(3)?)?;
    wait("another warning", || Ok(istiod.output().contains("there is no list that").then_some(())))?;
    stage.wait_list("default", &second)?;
    std::fs::remove_file(&file)?;
    stage.wait_list("default", "")?;
    for namespace in ["default", "late-list"] {
        stage.cluster.delete("v1", "ConfigMap", namespace, CRL_MAP)?;
    }
    stage.cluster.delete("v1", "Namespace", "", "late-list")
}

fn cacerts(stage: &mut Stage) -> anyhow::Result<()> {
    let secret = |name: &str| stage.cluster.get("v1", "Secret", SYSTEM, name);
    let start = || -> anyhow::Result<Istiod> {
        let environment = [("USE_CACERTS_FOR_SELF_SIGNED_CA", "true")];
        let mut istiod = Istiod::of(&stage.cluster, &stage.program, &environment)?;
        istiod.wait_ready()?;
        Ok(istiod)
    };
    stage.cluster.delete("v1", "Secret", SYSTEM, "istio-ca-secret")?;
    let first = start()?;
    let made = secret("cacerts")?.context("no Secret cacerts")?;
    ensure!(made["type"] == "istio.io/ca-root", "{}", made["type"]);
    ensure!(made["data"]["istio-generated"] == "", "{:?}", made["data"].as_object().map(|data| data.len()));
    ensure!(secret("istio-ca-secret")?.is_none(), "another root was made as well");
    let second = start()?;
    let same = "self-signed root of Secret cacerts";
    ensure!(first.output().contains(same) && second.output().contains(same), "{}", second.output());
    ensure!(secret("cacerts")?.context("no Secret")?["data"] == made["data"], "the root was made anew");
    drop((first, second));
    // One that the user has brought is not taken for it.
    stage.cluster.delete("v1", "Secret", SYSTEM, "cacerts")?;
    let mut data = made["data"].clone();
    data.as_object_mut().context("data")?.remove("istio-generated");
    let metadata = json!({"name": "cacerts", "namespace": SYSTEM});
    stage
        .cluster
        .apply(&[json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})])?;
    let environment = [("USE_CACERTS_FOR_SELF_SIGNED_CA", "true")];
    let mut foreign = Istiod::of(&stage.cluster, &stage.program, &environment)?;
    let status = wait("the end of istiod", || Ok(foreign.process.ended().map(|status| status.to_string())));
    stage.cluster.delete("v1", "Secret", SYSTEM, "cacerts")?;
    ensure!(
        status.is_ok() && foreign.output().contains("mount it there"),
        "{status:?}: {}",
        foreign.output()
    );
    // And a root of the usual name counts more.
    let usual = stage.istiod()?;
    drop(usual);
    let third = start()?;
    ensure!(third.output().contains("self-signed root of Secret istio-ca-secret"), "{}", third.output());
    ensure!(secret("cacerts")?.is_none(), "another root was made as well");
    Ok(())
}
