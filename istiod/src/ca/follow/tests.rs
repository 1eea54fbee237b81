use std::fs;
use std::sync::Mutex;

use names::SpiffeId;
use pki::csr::Csr;
use pki::issuer::San;
use pki::key::{Algorithm, PrivateKey};
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::ca::serving;

const HOUR: Duration = Duration::from_secs(3600);
const HOST: &str = "istiod.istio-system.svc";
/// How long it takes until an agent has heard of new roots.
const SLOW: Duration = Duration::from_millis(300);

/// A root with its key.
fn root(name: &str) -> (String, String) {
    let (issuer, key) = Issuer::self_signed(name, 24 * HOUR, SystemTime::now()).unwrap();
    (issuer.root_pem().to_owned(), key.to_string())
}

fn put(dir: &Path, (cert, key): &(String, String), roots: &str) {
    for (name, text) in plugged::FILES.iter().zip([cert.as_str(), key.as_str(), "", roots]) {
        let draft = dir.join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, dir.join(name)).unwrap();
    }
}

fn place(dir: &Path) -> plugged::Place {
    plugged::Place { dir: dir.into(), skips_generated: false }
}

/// A workload with its agent: has a certificate that it asks for anew again and
/// again, and the roots that it has heard of.
struct Workload {
    chain: Mutex<String>,
    roots: Mutex<String>,
}

impl Workload {
    fn new(authority: &Authority) -> Arc<Self> {
        let (chain, roots) = certificate(authority);
        Arc::new(Self { chain: Mutex::new(chain), roots: Mutex::new(roots) })
    }

    async fn run(self: Arc<Self>, authority: Authority) {
        let mut changes = authority.subscribe();
        loop {
            tokio::select! {
                _ = changes.changed() => {
                    let roots = changes.borrow_and_update().roots.clone();
                    tokio::time::sleep(SLOW).await;
                    *self.roots.lock().unwrap() = roots;
                }
                () = tokio::time::sleep(SLOW) => *self.chain.lock().unwrap() = certificate(&authority).0,
            }
        }
    }

    fn trusts(&self, other: &Self) -> bool {
        let (chain, roots) = (other.chain.lock().unwrap().clone(), self.roots.lock().unwrap().clone());
        pki::verify::check_chain(&chain, &roots, SystemTime::now()).is_ok()
    }
}

/// A certificate with what is between it and the roots, and the roots.
fn certificate(authority: &Authority) -> (String, String) {
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
    let csr = Csr::of_key(&key).unwrap();
    let mut all = authority.sign(&csr, &[id], None, SystemTime::now()).unwrap();
    let roots = all.pop().unwrap();
    (all.concat(), roots)
}

/// Whether a client that trusts those roots gets through to istiod.
async fn connects(serving: &serving::Serving, roots: &str) -> bool {
    let client = pki::verify::client_config(roots, None, &[b"h2"]).unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let acceptor = TlsAcceptor::from(serving.borrow().clone());
    let connector = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from(HOST).unwrap();
    let (accepted, connected) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
    accepted.is_ok() && connected.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_authority_takes_the_place_of_another_without_a_failed_handshake() {
    let tasks = Tasks::new();
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (root("a"), root("b"));
    let both = format!("{}{}", a.0, b.0);
    put(dir.path(), &a, &a.0);
    let issuer = place(dir.path()).open(SystemTime::now()).unwrap().unwrap();
    let authority = Authority::new(issuer, plugged::ORIGIN, HOUR, HOUR);
    let files = Files::start(&tasks, |_, _| {});
    let changes = files.watch(&place(dir.path()).files());
    tasks.spawn("CA files", plugged(authority.clone(), place(dir.path()), changes));
    let wanted = serving::Wanted { hosts: vec![San::Dns(HOST.into())], ttl: HOUR };
    let serving = serving::start(&tasks, &authority, serving::Source::Authority, wanted).await.unwrap();
    let workloads = [Workload::new(&authority), Workload::new(&authority)];
    for workload in &workloads {
        tasks.spawn("workload", workload.clone().run(authority.clone()));
    }

    let is_b = |pem: &str| pem.contains(b.0.trim());
    for (step, (signer, roots)) in [(&a, &both), (&b, &both), (&b, &b.0)].into_iter().enumerate() {
        put(dir.path(), signer, roots);
        let end = tokio::time::Instant::now() + 6 * SLOW;
        while tokio::time::Instant::now() < end {
            let [one, two] = &workloads;
            assert!(one.trusts(two) && two.trusts(one), "workloads, step {step}");
            for workload in &workloads {
                let roots = workload.roots.lock().unwrap().clone();
                assert!(connects(&serving, &roots).await, "istiod, step {step}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let current = authority.current();
        assert!(is_b(&current.roots), "step {step}: {}", current.roots);
        let own = current.issuer.as_ref().unwrap().root_pem();
        let signs_b = own.trim() == b.0.trim() || step == 1 && is_b(own);
        assert_eq!(signs_b, step > 0, "step {step}");
    }
    assert_eq!(authority.root_pem().trim(), b.0.trim(), "the old root is gone");
    tasks.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (root("a"), root("b"));
    put(dir.path(), &a, &a.0);
    let issuer = place(dir.path()).open(SystemTime::now()).unwrap().unwrap();
    let authority = Authority::new(issuer, plugged::ORIGIN, HOUR, HOUR);
    let mut kept = Vec::new();
    for (signer, roots, want) in [
        ((b.0.clone(), a.1.clone()), &b.0, "ca-key.pem"),
        ((b.0.clone(), b.1.clone()), &a.0, "root"),
        (("nonsense".to_owned(), b.1.clone()), &b.0, "ca-cert.pem"),
    ] {
        put(dir.path(), &signer, roots);
        let why = load(&authority, &place(dir.path()), &mut kept).unwrap_err();
        assert!(why.contains(want), "{why}");
        assert!(!why.contains("PRIVATE"), "{why}");
        assert_eq!(authority.root_pem(), a.0);
    }
    for name in plugged::FILES {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    assert!(load(&authority, &place(dir.path()), &mut kept).unwrap_err().contains("are gone"));
}
