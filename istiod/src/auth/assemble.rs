//! The authenticators of istiod, in Istio's order.

use runtime::tasks::Tasks;
use tokio::sync::watch;

use super::client_cert::ClientCert;
use super::oidc::Oidc;
use super::xfcc::Forwarded;
use super::{Authenticator, Chain};
use crate::config::Settings;
use crate::jwks::{Client, Guard};
use crate::kube::mesh::Mesh;

/// Fetches what istiod's own settings name. Who may set them may have everything, so
/// this machine may be asked; metadata servers are not even then.
#[must_use]
pub fn client(tasks: &Tasks) -> Client {
    let guard = Guard { blocked: Vec::new(), allows_loopback: true };
    Client { guard, insecure: false, tasks: tasks.clone() }
}

/// All that the settings ask for; `tokens` checks those of istiod's own cluster or state directory.
#[must_use]
pub fn chain(
    tasks: &Tasks,
    settings: &Settings,
    mesh: &watch::Receiver<Mesh>,
    tokens: Box<dyn Authenticator>,
) -> Chain {
    let mut all: Vec<Box<dyn Authenticator>> = vec![Box::new(ClientCert)];
    for rule in &settings.authority.issuers {
        let refresh = settings.keys.refresh;
        all.push(Box::new(Oidc::start(tasks, rule.clone(), refresh, client(tasks), mesh.clone())));
    }
    all.push(tokens);
    if !settings.trusted_gateways.is_empty() {
        all.push(Box::new(Forwarded { trusted: settings.trusted_gateways.clone() }));
    }
    Chain::new(all)
}
