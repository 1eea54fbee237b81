//! Certificates on a cluster: who gets one, where the root is kept, and how
//! workloads learn of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use istio_tests::grpc::Channel;
use istio_tests::kube::Istiod;
use istio_tests::netns::pause;
use k8s_openapi::ByteString;
use names::TypeUrl;
use pki::certificate::Certificate;
use pki::csr::Csr;
use pki::key::{Algorithm, PrivateKey};
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proto::istio::v1::auth::IstioCertificateRequest;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[
    ("a_service_account_gets_a_certificate_of_its_own_identity", identity),
    ("a_token_that_is_not_for_the_ca_gets_none", refused),
    ("while_the_api_server_is_away_a_token_is_not_called_wrong", away),
    ("istiods_that_start_together_have_one_root", together),
    ("every_namespace_has_the_roots_whatever_is_done_to_them", spread),
    ("the_roots_are_written_by_the_next_istiod_when_one_ends", handed_over),
    ("a_gateway_gets_secrets_only_if_its_account_may_read_them", access),
];

pub(super) const SYSTEM: &str = "istio-system";
const MAP: &str = "istio-ca-root-cert";
pub(super) const AUDIENCE: &str = "istio-ca";
/// Longer than anything takes that happens at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn wait<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(begin.elapsed() < PATIENCE, "{what} does not come");
        pause();
    }
}

/// A request as an agent makes it.
fn csr(key: &PrivateKey) -> anyhow::Result<String> {
    // The CA does not look at what it says.
    Ok(pki::csr::request(key, &"spiffe://other/ns/kube-system/sa/admin".parse()?)?)
}

impl Stage {
    /// The roots that a namespace was told.
    fn roots_of(&self, namespace: &str) -> anyhow::Result<Option<String>> {
        let map = self.cluster.get("v1", "ConfigMap", namespace, MAP)?;
        Ok(map.and_then(|map| map["data"]["root-cert.pem"].as_str().map(str::to_owned)))
    }

    /// The same, once they are those of the authority.
    pub(super) fn wait_roots(&self, namespace: &str) -> anyhow::Result<String> {
        wait("the ConfigMap of roots", || {
            let Some(secret) = self.cluster.get("v1", "Secret", SYSTEM, "istio-ca-secret")? else {
                return Ok(None);
            };
            let root: ByteString = serde_json::from_value(secret["data"]["root-cert.pem"].clone())?;
            let root = String::from_utf8(root.0)?;
            Ok(self.roots_of(namespace)?.filter(|roots| roots.trim() == root.trim()))
        })
    }

    /// Asks an istiod for a certificate.
    fn ask(
        &self,
        istiod: &Istiod,
        token: Option<&str>,
        cluster: &str,
    ) -> anyhow::Result<Result<Vec<String>, Status>> {
        let roots = self.wait_roots("default")?;
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let request = IstioCertificateRequest {
            csr: csr(&key)?,
            validity_duration: 3600,
            ..IstioCertificateRequest::default()
        };
        self.cluster.run(async {
            let channel = Channel::tls(istiod.secure, &roots).await?;
            Ok(channel.certificate(token, cluster, request).await)
        })
    }

    fn refusal(&self, istiod: &Istiod, token: &str) -> anyhow::Result<Status> {
        match self.ask(istiod, Some(token), "")? {
            Err(status) => Ok(status),
            Ok(_) => anyhow::bail!("it got a certificate"),
        }
    }
}

fn identity(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.namespace("shop", &[])?;
    stage.cluster.account("shop", "cart")?;
    let istiod = stage.istiod()?;
    let token = stage.cluster.token("shop", "cart", &[AUDIENCE])?;
    for cluster in ["", "Kubernetes"] {
        let chain =
            stage.ask(&istiod, Some(&token), cluster)?.map_err(|status| anyhow::anyhow!("{status}"))?;
        let leaf = Certificate::all_from_pem(chain.first().context("no certificate")?)?.remove(0);
        let ids: Vec<String> = leaf.spiffe_ids().iter().map(ToString::to_string).collect();
        ensure!(ids == ["spiffe://cluster.local/ns/shop/sa/cart"], "{ids:?}");
        ensure!(chain.last() == Some(&stage.wait_roots("shop")?), "other roots than the ConfigMap has");
    }
    let other = stage.ask(&istiod, Some(&token), "elsewhere")?.err().context("it was answered")?;
    ensure!(other.code() == Code::Unauthenticated && other.message().contains("elsewhere"), "{other}");
    Ok(())
}

fn refused(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.account("default", "short-lived")?;
    let istiod = stage.istiod()?;
    let own = stage.cluster.token("default", "short-lived", &[AUDIENCE])?;
    // One that was accepted a moment ago may be known to the API server for a while.
    let good = stage.cluster.token("default", "default", &[AUDIENCE])?;
    ensure!(stage.ask(&istiod, Some(&good), "")?.is_ok(), "a good token is refused");
    let api = stage.cluster.token("default", "default", &[])?;
    let other = stage.cluster.token("default", "default", &["somebody"])?;
    let mut tampered = own.clone().into_bytes();
    let middle = own.find('.').context("no JWT")? + 20;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    stage.cluster.delete("v1", "ServiceAccount", "default", "short-lived")?;
    std::thread::park_timeout(Duration::from_millis(500));
    for (what, token) in [
        ("for the API server", api.as_str()),
        ("for somebody else", &other),
        ("of a deleted account", &own),
        ("tampered with", std::str::from_utf8(&tampered)?),
        ("no token at all", "garbage"),
        ("unsigned", "eyJhbGciOiJub25lIn0.e30."),
    ] {
        let status = stage.refusal(&istiod, token).context(what)?;
        let is_refused = status.code() == Code::Unauthenticated
            && status.message().starts_with("request authenticate failure");
        ensure!(is_refused, "{what}: {status}");
        ensure!(!status.message().contains(token), "{what}: the token is in the answer");
        ensure!(!istiod.output().contains(token), "{what}: the token is in the log");
    }
    let none = stage.ask(&istiod, None, "")?.err().context("it was answered")?;
    ensure!(none.code() == Code::Unauthenticated, "{none}");
    Ok(())
}

fn away(stage: &mut Stage) -> anyhow::Result<()> {
    let istiod = stage.istiod()?;
    let token = stage.cluster.token("default", "default", &[AUDIENCE])?;
    let roots = stage.wait_roots("default")?;
    stage.cluster.kill_api()?;
    let asked = stage.cluster.run(async {
        let channel = Channel::tls(istiod.secure, &roots).await?;
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let request = IstioCertificateRequest { csr: csr(&key)?, ..IstioCertificateRequest::default() };
        let certificate = channel.certificate(Some(&token), "", request).await;
        let first = DeltaDiscoveryRequest {
            node: Some(Node { id: super::NODE.into(), ..Node::default() }),
            type_url: TypeUrl::Cluster.as_str().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let stream = channel.delta(Some(&token), first).await.map(drop);
        anyhow::Ok((certificate, stream))
    });
    stage.cluster.start_api()?;
    let (certificate, stream) = asked?;
    let status = certificate.err().context("it was answered")?;
    ensure!(status.code() == Code::Unavailable && status.message().contains("API server"), "{status}");
    let error = format!("{:#}", stream.err().context("it was answered")?);
    ensure!(error.contains("API server"), "{error}");
    ensure!(stage.ask(&istiod, Some(&token), "")?.is_ok(), "refused after the API server's return");
    Ok(())
}

fn together(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.delete("v1", "Secret", SYSTEM, "istio-ca-secret")?;
    let start = |name| Istiod::of(&stage.cluster, &stage.program, &[("POD_NAME", name)]);
    let mut all = [start("istiod-a")?, start("istiod-b")?, start("istiod-c")?];
    for istiod in &mut all {
        istiod.wait_ready()?;
    }
    let made = all.iter().filter(|istiod| istiod.output().contains("istio-ca-secret is made")).count();
    ensure!(made == 1, "the Secret was made {made} times");
    let secret = stage.cluster.get("v1", "Secret", SYSTEM, "istio-ca-secret")?.context("no Secret")?;
    ensure!(secret["type"] == "istio.io/ca-root", "{}", secret["type"]);
    let keys: Vec<&String> = secret["data"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    ensure!(keys == ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "key.pem", "root-cert.pem"], "{keys:?}");
    let token = stage.cluster.token("default", "default", &[AUDIENCE])?;
    for istiod in &all {
        let signed = stage.ask(istiod, Some(&token), "")?.map_err(|status| anyhow::anyhow!("{status}"))?;
        ensure!(signed.last() == Some(&stage.wait_roots("default")?), "another root");
    }
    let leaders = all.iter().filter(|istiod| istiod.output().contains("this istiod leads")).count();
    ensure!(leaders == 1, "{leaders} lead");
    Ok(())
}

fn spread(stage: &mut Stage) -> anyhow::Result<()> {
    let _istiod = stage.istiod()?;
    let roots = stage.wait_roots("default")?;
    stage.cluster.namespace("late", &[])?;
    ensure!(stage.wait_roots("late")? == roots, "other roots in another namespace");
    ensure!(stage.wait_roots("kube-system")? == roots, "other roots in kube-system");
    ensure!(stage.roots_of("kube-public")?.is_none(), "roots in kube-public");
    let map = stage.cluster.get("v1", "ConfigMap", "late", MAP)?.context("no ConfigMap")?;
    ensure!(map["metadata"]["labels"] == json!({"istio.io/config": "true"}), "{}", map["metadata"]);
    stage.cluster.delete("v1", "ConfigMap", "late", MAP)?;
    ensure!(stage.wait_roots("late")? == roots, "deleted, other roots");
    let edited = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": MAP, "namespace": "late"},
        "data": {"root-cert.pem": "nonsense", "own": "kept"},
    });
    stage.cluster.apply(&[edited])?;
    wait("the roots in place of what was written", || {
        Ok(stage.roots_of("late")?.filter(|now| *now == roots))
    })?;
    let map = stage.cluster.get("v1", "ConfigMap", "late", MAP)?.context("no ConfigMap")?;
    ensure!(map["data"]["own"] == "kept", "{}", map["data"]);
    stage.cluster.delete("v1", "Namespace", "", "late")
}

fn holder(stage: &Stage) -> anyhow::Result<Option<String>> {
    let name = "istio-namespace-controller-election";
    let lease = stage.cluster.get("coordination.k8s.io/v1", "Lease", SYSTEM, name)?;
    Ok(lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned)))
}

fn handed_over(stage: &mut Stage) -> anyhow::Result<()> {
    let start = |name| -> anyhow::Result<Istiod> {
        let mut istiod = Istiod::of(&stage.cluster, &stage.program, &[("POD_NAME", name)])?;
        istiod.wait_ready()?;
        Ok(istiod)
    };
    let is = |want: &'static str| move |found: &String| found == want;
    let mut first = start("istiod-first")?;
    wait("the first leader", || Ok(holder(stage)?.filter(is("istiod-first"))))?;
    let _second = start("istiod-second")?;
    let begin = Instant::now();
    first.process.stop(PATIENCE)?;
    wait("the second leader", || Ok(holder(stage)?.filter(is("istiod-second"))))?;
    // Whoever waits for a Lease that was not given back waits for its end.
    ensure!(begin.elapsed() < Duration::from_secs(12), "handed over after {:?} only", begin.elapsed());
    stage.cluster.delete("v1", "ConfigMap", "default", MAP)?;
    stage.wait_roots("default")?;
    Ok(())
}

fn access(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.namespace("edge", &[])?;
    stage.cluster.account("edge", "gateway")?;
    let host = "shop.example.com";
    let days = Duration::from_secs(24 * 3600);
    let now = std::time::SystemTime::now();
    let (issuer, _) = pki::issuer::Issuer::self_signed("test", days, now)?;
    let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let names = [pki::issuer::San::Dns(host.into())];
    let chain = issuer.issue(&Csr::of_key(&key)?, &names, days, now)?;
    stage.cluster.apply(&[json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop", "namespace": "edge"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": chain[0], "tls.key": key.to_pkcs8_pem().as_str()},
    })])?;
    let istiod = stage.istiod()?;
    let roots = stage.wait_roots("edge")?;
    let token = stage.cluster.token("edge", "gateway", &[AUDIENCE])?;
    let names = |found: &[proto::envoy::service::discovery::v3::Resource]| -> Vec<String> {
        found.iter().map(|one| one.name.clone()).collect()
    };
    let (mut stream, none) = stage.cluster.run(async {
        let channel = Channel::tls(istiod.secure, &roots).await?;
        let node = Node { id: "router~10.9.9.9~gw.edge~edge.svc.cluster.local".into(), ..Node::default() };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: TypeUrl::Secret.as_str().to_owned(),
            resource_names_subscribe: vec!["kubernetes://shop".into()],
            ..DeltaDiscoveryRequest::default()
        };
        let mut stream = channel.delta(Some(&token), first).await?;
        // Nothing comes for it: Envoy waits.
        let none = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
        anyhow::Ok((stream, none))
    })?;
    if let Ok(answer) = none {
        let answer = answer?;
        ensure!(answer.resources.is_empty(), "{:?}", names(&answer.resources));
    }
    ensure!(istiod.output().contains("may not list Secrets of namespace"), "{}", istiod.output());
    let subject = json!([{"kind": "ServiceAccount", "name": "gateway", "namespace": "edge"}]);
    let rule = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch", "list"]}]);
    let metadata: Value = json!({"name": "gateway", "namespace": "edge"});
    let api = "rbac.authorization.k8s.io";
    stage.cluster.apply(&[
        json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata, "rules": rule}),
        json!({
            "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata, "subjects": subject,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "gateway"},
        }),
    ])?;
    let found = stage.cluster.run(async {
        loop {
            let answer = tokio::time::timeout(PATIENCE, stream.next()).await.context("no Secret")??;
            if !answer.resources.is_empty() {
                return anyhow::Ok(names(&answer.resources));
            }
        }
    })?;
    ensure!(found == ["kubernetes://shop"], "{found:?}");
    Ok(())
}
