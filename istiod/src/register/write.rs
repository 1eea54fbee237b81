//! What is written about a workload: what stands on its entry now decides, and if
//! somebody else was faster, it is looked at again.

use config::Key;
use pilot::{Proxy, register};
use proto::istio::networking::v1alpha3::WorkloadGroup;
use time::OffsetDateTime;
use tracing::info;

use super::marks::{self, Health, Marks};
use super::store::{Failure, Origin};
use super::workload::{Connected, Workload};
use super::{ATTEMPTS, Inner};

impl Inner {
    /// Writes that a proxy is connected: on its entry, or on one that is made for it.
    pub(super) async fn register(&self, workload: &Workload, connected: &Connected) -> Result<(), Failure> {
        let (key, origin) = (&workload.key, workload.origin());
        for _ in 0..ATTEMPTS {
            let found = self.store.get(key, origin).await?;
            let written = match (found, &workload.group) {
                (Some(entry), _) => {
                    let account = entry["spec"]["serviceAccount"].as_str().unwrap_or_default();
                    self.may_control(connected, account)?;
                    let Some(entry) = marks::connected(&entry, &self.instance, connected.at) else {
                        return Ok(());
                    };
                    let written = self.store.replace(key, origin, entry).await;
                    if written.is_ok() {
                        if workload.group.is_some() {
                            self.metrics.updates.inc();
                        }
                        info!(target: "wle", "{key}: its workload is connected");
                    }
                    // Deleted in this moment: it is made anew.
                    written.map_err(|failure| match failure {
                        Failure::Missing(_) if workload.group.is_some() => Failure::Changed,
                        other => other,
                    })
                }
                (None, Some(group)) => {
                    let made = self.made(group, &connected.proxy)?;
                    self.may_control(connected, &made.spec.service_account)?;
                    let entry = made.to_json().map_err(|error| Failure::Refused(error.to_string()))?;
                    let entry = marks::connected(&entry, &self.instance, connected.at).unwrap_or(entry);
                    let written = self.store.create(key, group, entry).await;
                    if written.is_ok() {
                        self.metrics.success.inc();
                        info!(target: "wle", group, "{key}: made for a workload that registers itself");
                    }
                    written
                }
                (None, None) => Err(Failure::Missing(format!("{key} is not there"))),
            };
            match written {
                Err(Failure::Changed) => {}
                written => return written,
            }
        }
        Err(Failure::Changed)
    }

    /// The same without writing it: what is known says whether the proxy may register.
    pub(super) fn may_register(&self, workload: &Workload, connected: &Connected) -> Result<(), Failure> {
        let (namespace, name) = (&workload.key.namespace, &workload.key.name);
        let known = {
            let world = self.world.borrow();
            let found = world.store.get::<config::kube::WorkloadEntry>(namespace, name);
            found.map(|(_, entry)| entry.service_account.clone())
        };
        let account = match (known, &workload.group) {
            (Some(account), _) => account,
            (None, Some(group)) => self.made(group, &connected.proxy)?.spec.service_account,
            (None, None) => return Err(Failure::Missing(format!("{} is not there", workload.key))),
        };
        self.may_control(connected, &account)
    }

    /// The entry for a proxy of a group.
    pub(super) fn made(&self, group: &str, proxy: &Proxy) -> Result<register::Registered, Failure> {
        let world = self.world.borrow();
        let (_, template) = world.store.get::<WorkloadGroup>(&proxy.namespace, group).ok_or_else(|| {
            Failure::Missing(format!(
                "the workload wants to be registered as one of WorkloadGroup {}/{group} (AUTO_REGISTER_GROUP), \
                 which is not there",
                proxy.namespace
            ))
        })?;
        Ok(register::Registered::new(group, template, proxy))
    }

    /// Whether a caller is the workload of an entry with that service account.
    fn may_control(&self, connected: &Connected, account: &str) -> Result<(), Failure> {
        if !self.settings.checks_identity {
            return Ok(());
        }
        let namespace = &connected.proxy.namespace;
        let Some(caller) = &connected.caller else {
            return Err(Failure::Denied(
                "only a workload that shows who it is can have a WorkloadEntry: connect over TLS, with a token or \
                 a certificate"
                    .into(),
            ));
        };
        let fits = caller.identities.iter().any(|id| {
            id.namespace.as_str() == namespace
                && (account.is_empty() || id.service_account.as_str() == account)
        });
        if fits {
            return Ok(());
        }
        let identities: Vec<String> = caller.identities.iter().map(ToString::to_string).collect();
        Err(Failure::Denied(format!(
            "the WorkloadEntry is for service account {namespace}/{}, and the caller is {}",
            if account.is_empty() { "*" } else { account },
            identities.join(" ")
        )))
    }

    /// Writes how a workload is.
    pub(super) async fn tell(&self, workload: &Workload, health: &Health) -> Result<(), Failure> {
        let (key, origin) = (&workload.key, workload.origin());
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.store.get(key, origin).await? else { return Ok(()) };
            let Some(entry) = marks::with_health(&entry, &self.instance, health) else { return Ok(()) };
            match self.store.replace_status(key, origin, entry).await {
                Err(Failure::Changed) => {}
                // It is gone, or its definition has no status.
                Err(Failure::Missing(_)) => return Ok(()),
                Err(failure) => return Err(failure),
                Ok(()) => {
                    info!(target: "wle", healthy = health.why.is_none(), why = health.why, "{key}: health");
                    return Ok(());
                }
            }
        }
        Err(Failure::Changed)
    }

    /// Writes that a workload has left; `false` when it is not this istiod's any more.
    pub(super) async fn leave(
        &self,
        workload: &Workload,
        since: OffsetDateTime,
        at: OffsetDateTime,
    ) -> Result<bool, Failure> {
        let (key, origin) = (&workload.key, workload.origin());
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.store.get(key, origin).await? else { return Ok(false) };
            let Some(entry) = marks::disconnected(&entry, &self.instance, since, at) else {
                return Ok(false);
            };
            match self.store.replace(key, origin, entry).await {
                Err(Failure::Changed) => {}
                Err(Failure::Missing(_)) => return Ok(false),
                Err(failure) => return Err(failure),
                Ok(()) => {
                    if workload.group.is_some() {
                        self.metrics.unregister.inc();
                    }
                    info!(target: "wle", "{key}: its workload has left");
                    return Ok(true);
                }
            }
        }
        Err(Failure::Changed)
    }

    /// Deletes an entry that was made for a workload which is away for too long; of one
    /// that somebody wrote, only what was said of its health.
    pub(super) async fn clean(&self, key: &Key, origin: Origin, is_round: bool) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.store.get(key, origin).await? else { return Ok(()) };
            let marks = Marks::of_json(&entry);
            if !marks.is_due(OffsetDateTime::now_utc(), self.settings.grace, self.age) {
                return Ok(());
            }
            let is_registered = marks.is_registered();
            let cleaned = if is_registered {
                self.store.delete(key, &entry).await
            } else {
                let Some(entry) = marks::without_health(&entry) else { return Ok(()) };
                self.store.replace_status(key, origin, entry).await
            };
            match cleaned {
                Err(Failure::Changed) => {}
                Err(Failure::Missing(_)) => return Ok(()),
                Err(failure) => return Err(failure),
                Ok(()) => {
                    if is_registered {
                        self.metrics.deletes.inc();
                    }
                    info!(target: "wle", deleted = is_registered, is_round, "{key}: its workload did not come back");
                    return Ok(());
                }
            }
        }
        Err(Failure::Changed)
    }
}
