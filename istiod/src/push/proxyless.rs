//! What is told of applications that speak xDS themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use names::TypeUrl;
use pilot::cache::{Client, Now};
use pilot::generate::NoTls;
use tracing::warn;
use xds::session::Asked;

/// Clusters of one connection that are told of; a client may ask for any number.
const MAX_TOLD: usize = 100;

/// What one connection was told of already.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeSet<Arc<str>>);

impl Told {
    /// Warns of TLS that rules demand and that the application does not begin
    /// by them, once for each of the clusters that it asks for.
    pub(super) fn look(&mut self, client: &mut Client, now: Now<'_>, type_url: &TypeUrl, asked: Asked<'_>) {
        let (TypeUrl::Cluster, Asked::Names(clusters)) = (type_url, asked) else { return };
        for found in self.new_ones(client.without_tls(now, clusters)) {
            let NoTls { cluster, rule: (namespace, name), mode } = &found;
            warn!(
                target: "ads", node = %client.proxy().id, cluster = &**cluster,
                "DestinationRule {namespace}/{name}: TLS of the mode {mode} is not begun by an application that \
                 speaks xDS itself: what it sends is in plaintext unless it has credentials of its own"
            );
        }
    }

    fn new_ones(&mut self, found: Vec<NoTls>) -> Vec<NoTls> {
        let told = &mut self.0;
        let is_new = |one: &NoTls| told.len() < MAX_TOLD && told.insert(one.cluster.clone());
        found.into_iter().filter(is_new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_is_told_of_once() {
        let one =
            |name: &str| NoTls { cluster: name.into(), rule: ("shop".into(), "rule".into()), mode: "SIMPLE" };
        let mut told = Told::default();
        assert_eq!(told.new_ones(vec![one("a"), one("b")]).len(), 2);
        assert_eq!(told.new_ones(vec![one("a"), one("c")]), [one("c")]);
        let many = (0..2 * MAX_TOLD).map(|number| one(&number.to_string())).collect();
        assert_eq!(told.new_ones(many).len(), MAX_TOLD - 3);
    }
}
