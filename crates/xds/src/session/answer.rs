//! What is sent: answers to requests, pushes of changes, late removals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use names::TypeUrl;

use super::watch::{Held, Watch};
use super::{ALL, Answer, Session, Variant, Wanted, is_served};
use crate::Resource;

impl Session {
    /// The answer to a request: the resources it asked for.
    ///
    /// `resources` are those that exist of the wanted ones.
    pub fn respond(
        &mut self,
        type_url: &TypeUrl,
        wanted: &Wanted,
        resources: Vec<Resource>,
        version: &str,
        now: SystemTime,
    ) -> Option<Answer> {
        if !is_served(type_url) {
            // Nothing of it is ever sent, so there is nothing to remember.
            self.serial += 1;
            let removed = match wanted {
                Wanted::Names(names) => names.iter().cloned().collect(),
                Wanted::All => Vec::new(),
            };
            return Some(Answer {
                type_url: type_url.clone(),
                nonce: nonce(version, self.serial),
                version: version.into(),
                resources: Vec::new(),
                removed,
            });
        }
        self.answer(type_url, wanted, resources, version, now, true)
    }

    /// What a change of the configuration sends: `resources` are all that the
    /// subscription covers now. `None` when the client has them all.
    pub fn push(
        &mut self,
        type_url: &TypeUrl,
        resources: Vec<Resource>,
        version: &str,
        now: SystemTime,
    ) -> Option<Answer> {
        let wanted = self.wanted(type_url)?;
        self.answer(type_url, &wanted, resources, version, now, false)
    }

    /// The same where only those names of the subscription may have changed:
    /// `resources` are all of them that exist.
    pub fn push_some(
        &mut self,
        type_url: &TypeUrl,
        names: BTreeSet<Arc<str>>,
        resources: Vec<Resource>,
        version: &str,
        now: SystemTime,
    ) -> Option<Answer> {
        self.answer(type_url, &Wanted::Names(names), resources, version, now, false)
    }

    fn answer(
        &mut self,
        type_url: &TypeUrl,
        wanted: &Wanted,
        mut resources: Vec<Resource>,
        version: &str,
        now: SystemTime,
        always: bool,
    ) -> Option<Answer> {
        let variant = self.variant;
        // A cluster that is about to go keeps its endpoints: requests use it
        // until the client has the routes that do not.
        let leaving = match self.watches.get(&TypeUrl::Cluster) {
            Some(clusters) if *type_url == TypeUrl::Endpoint && !always => clusters.doomed.clone(),
            _ => BTreeSet::new(),
        };
        resources.retain(|resource| !leaving.contains(&resource.name));
        let watch = self.watches.get_mut(type_url)?;
        let whole_state = self.variant.repeats_state_of(type_url);
        if *type_url == TypeUrl::Endpoint {
            watch.force.append(&mut self.warming);
        }

        let exist: BTreeSet<Arc<str>> = resources.iter().map(|resource| resource.name.clone()).collect();
        let gone: Vec<Arc<str>> = match wanted {
            Wanted::All => {
                // Names that were asked for besides are said not to exist.
                let asked = watch.names.get().iter().filter(|name| always && &***name != ALL);
                let asked = asked.filter(|name| !watch.has.contains_key(*name));
                watch.has.keys().chain(asked).filter(|name| !exist.contains(*name)).cloned().collect()
            }
            Wanted::Names(names) => names
                .iter()
                .filter(|name| !exist.contains(*name) && !leaving.contains(*name))
                .filter(|name| always || watch.has.contains_key(*name))
                .cloned()
                .collect(),
        };
        watch.doomed.retain(|name| !exist.contains(name));

        let changed = |watch: &Watch, resource: &Resource| {
            watch.force.contains(&resource.name)
                || watch.has.get(&resource.name).is_none_or(|held| held.version != resource.version)
        };
        let changed_names: Vec<Arc<str>> =
            resources.iter().filter(|r| changed(watch, r)).map(|r| r.name.clone()).collect();

        let mut send: Vec<Resource> = if whole_state {
            if !changed_names.is_empty() || always { resources } else { Vec::new() }
        } else {
            resources.into_iter().filter(|resource| changed(watch, resource)).collect()
        };
        let mut removed = Vec::new();
        if *type_url == TypeUrl::Cluster {
            if !always {
                let is_new = |resource: &&Resource| {
                    resource.awaits_endpoints && !watch.has.contains_key(&resource.name)
                };
                self.unusable.extend(send.iter().filter(is_new).map(|resource| resource.name.clone()));
            }
            self.unusable.retain(|name| exist.contains(name));
            // Make before break: `settle` removes them. A client that does not
            // have the cluster cannot lose it, but is told that it is not there.
            for name in gone {
                if watch.has.contains_key(&name) {
                    watch.doomed.insert(name);
                } else {
                    removed.push(name);
                }
            }
            if whole_state && !send.is_empty() {
                let kept = watch.doomed.iter().filter_map(|name| watch.has.get(name)?.resource(name));
                send.extend(kept.collect::<Vec<_>>());
            }
        } else {
            for name in &gone {
                watch.has.remove(name);
                if variant == Variant::Sotw && !whole_state {
                    // Nothing can be sent of that, so no answer will clear a refusal.
                    watch.forget(name);
                }
            }
            removed = gone;
        }
        let shrinks = whole_state && !removed.is_empty();
        if send.is_empty() && (removed.is_empty() || variant == Variant::Sotw) && !always && !shrinks {
            return None;
        }
        let serial = self.serial + 1;
        let held_before = watch.has.len();
        for resource in &send {
            let since = watch.has.get(&resource.name).map(|held| held.since);
            if since.is_none() {
                // All clients share the text of a name.
                watch.names.share(&resource.name);
            }
            let since = since.unwrap_or(serial);
            let body = whole_state.then(|| Box::new(resource.body.clone()));
            let held = Held { version: resource.version, body, since, sent: serial };
            watch.has.insert(resource.name.clone(), held);
            watch.force.remove(&resource.name);
        }
        if watch.has.len() > 2 * held_before {
            watch.compact();
        }
        if whole_state && shrinks && send.is_empty() {
            // Only removals: the state is what the client has without them.
            send = restate(watch, serial);
        }
        if *type_url == TypeUrl::Cluster {
            self.warming.extend(changed_names);
        }
        self.stamp(type_url, version, now, send, removed)
    }

    /// Numbers an answer and books it as sent.
    fn stamp(
        &mut self,
        type_url: &TypeUrl,
        version: &str,
        now: SystemTime,
        resources: Vec<Resource>,
        removed: Vec<Arc<str>>,
    ) -> Option<Answer> {
        self.serial += 1;
        let nonce = nonce(version, self.serial);
        let status = &mut self.watches.get_mut(type_url)?.status;
        status.sent_nonce = Some(nonce.clone());
        status.sent_at = Some(now);
        Some(Answer { type_url: type_url.clone(), nonce, version: version.into(), resources, removed })
    }

    /// Removes clusters that are gone, once the client has answered every
    /// listener and route that was sent: to be called after a push and after
    /// each answer of the client.
    ///
    /// A client that refused a listener or route still uses what it had before;
    /// the clusters that were there then stay until it accepts a later version.
    pub fn settle(&mut self, version: &str, now: SystemTime) -> Option<Answer> {
        let is_busy = [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::Route]
            .iter()
            .filter_map(|type_url| self.watches.get(type_url))
            .any(|watch| watch.status.is_pending());
        if is_busy || !self.unusable.is_empty() {
            return None;
        }
        let in_use_until = [TypeUrl::Listener, TypeUrl::Route]
            .iter()
            .filter_map(|type_url| self.watches.get(type_url)?.refusals.in_use_until())
            .max();
        let variant = self.variant;
        let watch = self.watches.get_mut(&TypeUrl::Cluster)?;
        let in_use = |name: &Arc<str>| {
            // A cluster that came after the refusal is in nothing that came before it.
            let since = watch.has.get(name).map_or(u64::MAX, |held| held.since);
            in_use_until.is_some_and(|until| since <= until)
        };
        let removed: Vec<Arc<str>> = watch.doomed.iter().filter(|name| !in_use(name)).cloned().collect();
        if removed.is_empty() {
            return None;
        }
        for name in &removed {
            watch.has.remove(name);
            watch.doomed.remove(name);
        }
        let resources = match variant {
            Variant::Sotw => restate(watch, self.serial + 1),
            Variant::Delta => Vec::new(),
        };
        self.stamp(&TypeUrl::Cluster, version, now, resources, removed)
    }
}

/// The whole state once more, as part of that response.
fn restate(watch: &mut Watch, serial: u64) -> Vec<Resource> {
    for held in watch.has.values_mut() {
        held.sent = serial;
    }
    watch.state()
}

fn nonce(version: &str, serial: u64) -> String {
    format!("{version}-{serial}")
}
