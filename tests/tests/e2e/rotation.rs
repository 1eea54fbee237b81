//! One authority takes the place of another under load: real Envoys, a handshake
//! for every request between them, certificates that last seconds. No request fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use istio_tests::mesh::{Mesh, Options};
use istio_tests::netns;
use istio_tests::program::Programs;
use pki::issuer::Issuer;
use serde_json::Value;

use super::{load, more, none_failed};

type Case = (&'static str, fn() -> anyhow::Result<()>);

pub(crate) const CASES: &[Case] = &[
    ("a_plugged_in_root_is_replaced_under_load_and_no_request_fails", plugged),
    ("a_self_signed_root_is_renewed_under_load_and_no_request_fails", self_signed),
];

/// Two workloads that call each other; each request has a connection of its own, and
/// with it a handshake.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: productpage, namespace: default}
spec: {clusterIP: 10.96.0.11, selector: {app: productpage}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: productpage-v1, namespace: default, labels: {app: productpage, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: productpage, containers: [{name: productpage, ports: [{containerPort: 9080}]}]}
status: {phase: Running, podIP: 10.77.0.11}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: productpage, namespace: default, labels: {kubernetes.io/service-name: productpage}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.11], targetRef: {kind: Pod, name: productpage-v1, namespace: default}}]
ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: details, namespace: default}
spec: {clusterIP: 10.96.0.12, selector: {app: details}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: details-v1, namespace: default, labels: {app: details, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: details, containers: [{name: details, ports: [{containerPort: 9080}]}]}
status: {phase: Running, podIP: 10.77.0.12}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: details, namespace: default, labels: {kubernetes.io/service-name: details}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.12], targetRef: {kind: Pod, name: details-v1, namespace: default}}]
ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.96.0.13, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, namespace: default, labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews, containers: [{name: reviews, ports: [{containerPort: 9080}]}]}
status: {phase: Running, podIP: 10.77.0.13}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews, namespace: default, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.13], targetRef: {kind: Pod, name: reviews-v1, namespace: default}}]
ports: [{name: http, port: 9080}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: productpage, namespace: default}
spec: {selector: {matchLabels: {app: productpage}}, mtls: {mode: PERMISSIVE}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: details, namespace: default}
spec: {host: details, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
";
/// Where istiod looks for the files of a CA, below the mesh's directory.
const CA_DIR: &str = "etc/cacerts";
/// Lifetime of certificates of workloads.
const TTL: &str = "8s";

fn start(name: &str, files: &[(&str, &str)]) -> anyhow::Result<Mesh> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("mesh.yaml"), OBJECTS)?;
    let short: Vec<(String, String)> = vec![("SECRET_TTL".into(), TTL.into())];
    let apps = ["productpage", "details", "reviews"];
    let agent_env: BTreeMap<String, Vec<_>> =
        apps.into_iter().map(|app| (app.to_owned(), short.clone())).collect();
    let options = Options { name: name.parse()?, objects: folder.path().to_owned(), agent_env };
    Mesh::start_with_files(&Programs::find()?, &options, files, &mut |_| {})
}

/// A root with its key.
struct Ca {
    root: String,
    key: String,
}

impl Ca {
    fn new(name: &str) -> anyhow::Result<Self> {
        let year = Duration::from_secs(365 * 24 * 3600);
        let (issuer, key) = Issuer::self_signed(name, year, std::time::SystemTime::now())?;
        Ok(Self { root: issuer.root_pem().to_owned(), key: key.to_string() })
    }

    /// The files of a CA that signs with this key and trusts these roots.
    fn files(&self, roots: &str) -> [(&'static str, String); 4] {
        [
            ("ca-cert.pem", self.root.clone()),
            ("ca-key.pem", self.key.clone()),
            ("cert-chain.pem", String::new()),
            ("root-cert.pem", roots.to_owned()),
        ]
    }
}

/// Hands the roots of the mesh to the pods for as long as it goes on, as the kubelet does
/// with their ConfigMap; checks now and then.
fn meanwhile(mesh: &Mesh, what: &str, check: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut given = String::new();
    Mesh::wait(what, || {
        let roots = mesh.istiod.root()?;
        if roots != given {
            for pod in &mesh.pods {
                pod.write_root(&roots)?;
            }
            given = roots;
        }
        check()
    })
}

/// The serial number of each pod's certificate.
fn serials(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    mesh.pods.iter().map(|pod| Ok(pod.certificate()?.serial)).collect()
}

/// Waits until each pod has got a certificate that it did not have before, twice: the
/// second was asked for after this began.
fn renewed(mesh: &Mesh) -> anyhow::Result<()> {
    for _ in 0..2 {
        let before = serials(mesh)?;
        meanwhile(mesh, "new certificates of all pods", || {
            let old = serials(mesh)?.into_iter().zip(&before).filter(|(now, before)| now == *before).count();
            ensure!(old == 0, "{old} are the old ones");
            Ok(())
        })?;
    }
    Ok(())
}

fn plugged() -> anyhow::Result<()> {
    let (a, b) = (Ca::new("a")?, Ca::new("b")?);
    let both = format!("{}{}", a.root, b.root);
    let first = a.files(&a.root);
    let paths: Vec<(String, &String)> =
        first.iter().map(|(name, text)| (format!("{CA_DIR}/{name}"), text)).collect();
    let files: Vec<(&str, &str)> = paths.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mesh = start("istio-rotate", &files)?;
    let dir = mesh.dir.join(CA_DIR);
    let load = load(&mesh)?;
    let page = mesh.productpage(None)?.json()?;
    ensure!(calls(&page), "{page}");
    for (step, files, trusted) in [
        ("A and B are trusted", a.files(&both), [&a, &b]),
        ("B signs", b.files(&both), [&a, &b]),
        ("B alone is trusted", b.files(&b.root), [&b, &b]),
    ] {
        replace(&dir, &files)?;
        meanwhile(&mesh, step, || {
            let roots = mesh.istiod.root()?;
            ensure!(trusted.iter().all(|ca| roots.contains(ca.root.trim())), "not trusted yet");
            Ok(())
        })
        .context(step)?;
        renewed(&mesh).context(step)?;
        more(&load, 50).context(step)?;
    }
    meanwhile(&mesh, "the end of A", || {
        let roots = mesh.istiod.root()?;
        ensure!(roots.trim() == b.root.trim(), "A is still trusted");
        Ok(())
    })?;
    renewed(&mesh)?;
    let page = mesh.productpage(None)?.json()?;
    ensure!(calls(&page), "{page}");
    let log = mesh.istiod.output();
    ensure!(log.contains("signs with what is in"), "{log}");
    none_failed(load)
}

/// Whether a page shows that both services were called.
fn calls(page: &Value) -> bool {
    page["details"]["title"].is_string() && page["reviews"]["version"] == "v1"
}

/// Replaces files, one after the other.
fn replace(dir: &Path, files: &[(&str, String)]) -> anyhow::Result<()> {
    for (name, text) in files {
        let draft = dir.join("draft");
        fs::write(&draft, text)?;
        fs::rename(&draft, dir.join(name)).with_context(|| (*name).to_owned())?;
    }
    Ok(())
}

fn self_signed() -> anyhow::Result<()> {
    let mut mesh = start("istio-renew", &[])?;
    // From now on a root lasts 40 s, and is renewed about 20 s before its end: it is
    // valid from two minutes before it is made on.
    mesh.istiod.env = vec![
        ("CITADEL_SELF_SIGNED_CA_CERT_TTL", "40s"),
        ("CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", "1s"),
        ("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE", "12"),
    ];
    mesh.istiod.stop()?;
    // A root of these settings, with the key that there is.
    fs::remove_file(mesh.istiod.state.join("root-cert.pem"))?;
    mesh.istiod.start()?;
    let first = mesh.istiod.root()?;
    for pod in &mesh.pods {
        pod.write_root(&first)?;
    }
    mesh.wait_synced()?;
    renewed(&mesh)?;
    let load = load(&mesh)?;
    let begin = Instant::now();
    let mut seen = vec![first];
    while seen.len() < 3 {
        ensure!(begin.elapsed() < Duration::from_secs(180), "{} roots only", seen.len());
        meanwhile(&mesh, "roots", || Ok(()))?;
        let root = mesh.istiod.root()?;
        if seen.last() != Some(&root) {
            seen.push(root);
        }
        netns::pause();
    }
    renewed(&mesh)?;
    more(&load, 50)?;
    none_failed(load)
}
