//! Secrets that do not come from the CA, and the sockets they are served on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use proto::envoy::service::discovery::v3::DiscoveryRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use crate::istiod::Istiod;
use crate::pod::{Pod, Secret, secret};
use crate::{PERIOD, request, soon, until};

const HOUR: Duration = Duration::from_secs(3600);
const XDS: &str = "./etc/istio/proxy/XDS";
const FILES: &str = "./var/run/secrets/credential-uds/files-socket";
/// An empty frame of settings, with which a server of HTTP/2 begins.
const SETTINGS: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// A chain with its key.
fn pair(issuer: &Issuer) -> (String, String) {
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let san = San::Spiffe("spiffe://files/ns/default/sa/web".parse().unwrap());
    let chain = issuer.issue(&Csr::of_key(&key).unwrap(), &[san], HOUR, SystemTime::now()).unwrap();
    (pki::certificate::join_pem(&chain), key.to_pkcs8_pem().to_string())
}

fn ask(name: &str) -> DiscoveryRequest {
    DiscoveryRequest { resource_names: vec![name.into()], ..DiscoveryRequest::default() }
}

#[tokio::test]
async fn mounted_files_are_the_workloads_certificate_and_no_ca_is_asked() {
    let istiod = Istiod::start().await;
    let (issuer, _) = Issuer::self_signed("files", HOUR, SystemTime::now()).unwrap();
    let (chain, key) = pair(&issuer);
    let pod = Pod::prepare(&istiod, &[("FILE_MOUNTED_CERTS", "true")]);
    pod.write("etc/certs/cert-chain.pem", &chain);
    pod.write("etc/certs/key.pem", &key);
    let pod = pod.run().await;
    let mut stream = pod.secrets().await;
    stream.send(ask("default")).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), stream.next()).await.is_err(), "no roots yet");
    fs::write(pod.path("etc/certs/root-cert.pem"), issuer.root_pem()).unwrap();
    let first = soon("the certificate", stream.next()).await.unwrap();
    let Secret::Certificate { chain: served, .. } = secret(&pod, "default").await else { panic!() };
    assert_eq!(served, chain);
    let Secret::Roots(roots) = secret(&pod, "ROOTCA").await else { panic!() };
    assert_eq!(roots, issuer.root_pem());

    let (chain, key) = pair(&issuer);
    fs::write(pod.path("etc/certs/key.pem"), key).unwrap();
    fs::write(pod.path("etc/certs/cert-chain.pem"), &chain).unwrap();
    let second = soon("the new one", stream.next()).await.unwrap();
    assert_ne!(first.version_info, second.version_info);
    let Secret::Certificate { chain: served, .. } = secret(&pod, "default").await else { panic!() };
    assert_eq!(served, chain);
    assert!(istiod.calls().is_empty(), "no CA is asked");
    pod.stop().await;
}

#[tokio::test]
async fn with_another_server_of_secrets_only_files_are_served() {
    let istiod = Istiod::start().await;
    let pod = Pod::prepare(&istiod, &[("WORKLOAD_IDENTITY_SOCKET_FILE", "spire.sock")]);
    pod.write("var/run/secrets/workload-spiffe-uds/roots.pem", &istiod.root_pem());
    // It comes some time after the agent.
    let path = pod.path("var/run/secrets/workload-spiffe-uds/spire.sock");
    let tasks = runtime::tasks::Tasks::new();
    drop(tasks.spawn("spire", async move {
        sleep(Duration::from_millis(300)).await;
        let listener = UnixListener::bind(path).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(SETTINGS).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.ok();
        }
    }));
    let pod = soon("the start", pod.run()).await;
    assert!(!pod.path(names::path::SDS_SOCKET).exists());
    let mut stream = pod.secrets_at(FILES).await;
    stream.send(ask("default")).await;
    let status = soon("an end", stream.next()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    let mut stream = pod.secrets_at(FILES).await;
    let roots = pod.path("var/run/secrets/workload-spiffe-uds/roots.pem");
    stream.send(ask(&format!("file-root:{}", roots.display()))).await;
    assert_eq!(soon("roots", stream.next()).await.unwrap().resources.len(), 1);
    assert!(istiod.calls().is_empty() && pod.identity().is_none(), "no CA is asked");
    pod.stop().await;
}

#[tokio::test]
async fn sockets_that_are_removed_are_made_again_and_streams_go_on() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("ISTIO_AGENT_SOCKET_MODE", "0660")]).await;
    let mut before = pod.delta().await;
    before.send(request("a")).await;
    soon("an answer", before.next()).await.unwrap();
    for socket in [XDS, names::path::SDS_SOCKET] {
        let path = pod.path(socket);
        fs::remove_file(&path).unwrap();
        soon("another socket", async {
            while UnixStream::connect(&path).await.is_err() {
                sleep(PERIOD).await;
            }
        })
        .await;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    }
    before.send(request("b")).await;
    assert_eq!(soon("an answer", before.next()).await.unwrap().resources[0].name, "b");
    let mut after = pod.delta().await;
    after.send(request("c")).await;
    assert_eq!(soon("an answer", after.next()).await.unwrap().resources[0].name, "c");
    until("a certificate", || pod.identity().is_some()).await;
    assert!(matches!(secret(&pod, "default").await, Secret::Certificate { .. }));
    pod.stop().await;
}
