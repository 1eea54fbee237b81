//! A Kubernetes API server of the tests' own: kube-apiserver and etcd on the
//! loopback, with RBAC and admission as clusters have them. There is no kubelet
//! and no controller manager; [`Cluster`] makes the service accounts that the
//! latter would make.

mod clients;
mod cluster;
pub mod crd;
mod cut;
mod istiod;
mod keys;
pub mod node;
mod objects;

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

pub use clients::{CLIENTS, programs as clients};
pub use cluster::{Cluster, Place};
pub use cut::Cut;
pub use istiod::{Istiod, Resources};
pub use node::Node;

/// Names the folder of kube-apiserver and etcd that `scripts/kube` fills.
pub const PROGRAMS: &str = "ISTIO_TEST_KUBE";

/// The folder of kube-apiserver and etcd.
///
/// # Errors
/// Nothing says where it is, or it is not there.
#[expect(clippy::disallowed_methods, reason = "the harness's environment")]
pub fn programs() -> anyhow::Result<PathBuf> {
    let path = env::var(PROGRAMS)
        .with_context(|| format!("{PROGRAMS} does not say where kube-apiserver is; use scripts/test kube"))?;
    let path = PathBuf::from(path);
    for name in ["kube-apiserver", "etcd"] {
        ensure!(path.join(name).is_file(), "{}: no {name}; run scripts/kube", path.display());
    }
    Ok(path)
}
