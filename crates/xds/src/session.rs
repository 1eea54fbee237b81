//! The protocol state of one client: subscriptions, nonces, what it has.
//!
//! The rules are those of the xDS transport protocol, with two of our own:
//! a response carries only what changed since the client got it, and a cluster
//! is removed only when no listener or route that may still use it is on its
//! way (make before break).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use names::TypeUrl;

use crate::{Resource, TypeStatus};

/// Which of the two protocol variants the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// State of the world: a response of CDS or LDS is everything there is.
    Sotw,
    /// Incremental: a response says what changed.
    Delta,
}

/// A request of either variant.
#[derive(Clone, Debug)]
pub struct Request {
    /// Type of the subscription.
    pub type_url: TypeUrl,
    /// Nonce of the response it answers; empty for a request of its own accord.
    pub nonce: String,
    /// Why the client refused the response.
    pub error: Option<String>,
    /// State of the world: all names. Incremental: names to add.
    pub subscribe: Vec<String>,
    /// Incremental: names to drop.
    pub unsubscribe: Vec<String>,
    /// Incremental, first request of a stream: what the client has already.
    pub initial_versions: BTreeMap<String, String>,
}

/// What a request means for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The last response was accepted; nothing to send.
    Acked,
    /// The last response was refused; the client keeps what it had.
    Nacked(String),
    /// It answers a response that a later one has overtaken.
    Stale,
    /// The client does not want the type any more.
    Unsubscribed,
    /// Send these: everything the subscription covers, or the given names.
    Respond(Wanted),
}

/// Which resources of a type are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that there are.
    All,
    /// Those of these names.
    Names(BTreeSet<Arc<str>>),
}

/// A response of either variant, not yet encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Type of the resources.
    pub type_url: TypeUrl,
    /// Nonce that the client will repeat.
    pub nonce: String,
    /// Version of the whole configuration.
    pub version: String,
    /// Resources to set.
    pub resources: Vec<Resource>,
    /// Incremental: names to remove.
    pub removed: Vec<Arc<str>>,
}

/// One subscription.
#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// What the client has, as far as it was told; bodies are kept only where
    /// a whole state must be repeated (state of the world, wildcard).
    has: BTreeMap<Arc<str>, (u64, Option<Bytes>)>,
    /// Sent again with the next answer even when unchanged.
    force: BTreeSet<Arc<str>>,
    /// Gone, but not removed from the client yet.
    doomed: BTreeSet<Arc<str>>,
    status: TypeStatus,
}

/// The protocol state of one stream.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    watches: BTreeMap<TypeUrl, Watch>,
    /// Clusters that were sent and now wait for their endpoints: Envoy warms a
    /// changed cluster until it gets an assignment, even an unchanged one.
    warming: BTreeSet<Arc<str>>,
    /// New clusters that the client cannot use yet: it has not accepted their
    /// endpoints.
    unusable: BTreeSet<Arc<str>>,
    serial: u64,
}

impl Session {
    /// A stream on which nothing was said yet.
    #[must_use]
    pub fn new(variant: Variant) -> Self {
        Self {
            variant,
            watches: BTreeMap::new(),
            warming: BTreeSet::new(),
            unusable: BTreeSet::new(),
            serial: 0,
        }
    }

    /// The variant it speaks.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The types with a subscription, each with its status.
    pub fn status(&self) -> impl Iterator<Item = (&TypeUrl, &TypeStatus)> {
        self.watches.iter().map(|(type_url, watch)| (type_url, &watch.status))
    }

    /// What the client wants of a type now; `None` without a subscription.
    #[must_use]
    pub fn wanted(&self, type_url: &TypeUrl) -> Option<Wanted> {
        let watch = self.watches.get(type_url)?;
        Some(if watch.wildcard { Wanted::All } else { Wanted::Names(watch.names.clone()) })
    }

    /// Whether endpoints should follow the clusters just sent.
    #[must_use]
    pub fn endpoints_due(&self) -> bool {
        !self.warming.is_empty() && self.watches.contains_key(&TypeUrl::Endpoint)
    }

    /// Whether listeners and routes should wait, as they may lead to clusters
    /// that a push has made and that the client cannot use yet.
    #[must_use]
    pub fn routes_must_wait(&self) -> bool {
        !self.unusable.is_empty()
    }

    /// Waits for new clusters no longer: the client does not want them to work.
    pub fn stop_waiting(&mut self) {
        self.unusable.clear();
    }

    /// Takes a request and says what it asks for.
    pub fn request(&mut self, request: &Request, now: SystemTime) -> Reaction {
        match self.variant {
            Variant::Sotw => self.sotw(request, now),
            Variant::Delta => self.delta(request, now),
        }
    }

    fn sotw(&mut self, request: &Request, now: SystemTime) -> Reaction {
        let wildcard = request.type_url.is_wildcard();
        if let Some(reaction) = self.answered(request, now)
            && let Reaction::Stale | Reaction::Nacked(_) = reaction
        {
            return reaction;
        }
        if !wildcard && request.subscribe.is_empty() {
            self.watches.remove(&request.type_url);
            return Reaction::Unsubscribed;
        }
        let names: BTreeSet<Arc<str>> = request.subscribe.iter().map(|name| name.as_str().into()).collect();
        let is_new = request.nonce.is_empty() || !self.watches.contains_key(&request.type_url);
        let watch = self.watches.entry(request.type_url.clone()).or_default();
        if is_new {
            *watch = Watch { status: std::mem::take(&mut watch.status), ..Watch::default() };
        }
        watch.wildcard = wildcard && names.is_empty();
        let added: BTreeSet<Arc<str>> = names.difference(&watch.names).cloned().collect();
        watch.has.retain(|name, _| wildcard || names.contains(name));
        watch.names = names;
        if watch.wildcard {
            return if is_new { Reaction::Respond(Wanted::All) } else { Reaction::Acked };
        }
        if is_new {
            Reaction::Respond(Wanted::Names(watch.names.clone()))
        } else if added.is_empty() {
            Reaction::Acked
        } else {
            watch.force.extend(added.iter().cloned());
            Reaction::Respond(Wanted::Names(added))
        }
    }

    fn delta(&mut self, request: &Request, now: SystemTime) -> Reaction {
        let is_new = !self.watches.contains_key(&request.type_url);
        let reaction = self.answered(request, now);
        if reaction == Some(Reaction::Stale) && request.subscribe.is_empty() && request.unsubscribe.is_empty()
        {
            return Reaction::Stale;
        }
        let wildcard = request.type_url.is_wildcard();
        let watch = self.watches.entry(request.type_url.clone()).or_default();
        if is_new {
            watch.wildcard = wildcard && request.subscribe.is_empty();
            for (name, version) in &request.initial_versions {
                // A version that is not ours never equals one of ours.
                let version = u64::from_str_radix(version, 16).unwrap_or_default();
                watch.has.insert(name.as_str().into(), (version, None));
            }
        }
        let mut added = BTreeSet::new();
        for name in &request.subscribe {
            if name == "*" {
                watch.wildcard = true;
            } else {
                let name: Arc<str> = name.as_str().into();
                // Asking again means the client has dropped it: send it again.
                // On the first request the initial versions say what it has.
                if !is_new {
                    watch.has.remove(&name);
                }
                added.insert(name.clone());
                watch.names.insert(name);
            }
        }
        for name in &request.unsubscribe {
            if name == "*" {
                watch.wildcard = false;
            }
            watch.names.remove(name.as_str());
            watch.has.remove(name.as_str());
        }
        if let Some(Reaction::Nacked(error)) = reaction {
            return Reaction::Nacked(error);
        }
        if is_new {
            // Answered even when nothing is to be sent, so that the client's
            // state is known from then on.
            let wanted = if watch.wildcard { Wanted::All } else { Wanted::Names(watch.names.clone()) };
            return Reaction::Respond(wanted);
        }
        if !added.is_empty() {
            return Reaction::Respond(Wanted::Names(added));
        }
        if request.subscribe.iter().any(|name| name == "*") {
            return Reaction::Respond(Wanted::All);
        }
        reaction.unwrap_or(Reaction::Acked)
    }

    /// Books the answer to a response; `None` when it answers none.
    fn answered(&mut self, request: &Request, now: SystemTime) -> Option<Reaction> {
        if request.nonce.is_empty() {
            return None;
        }
        let watch = self.watches.get_mut(&request.type_url)?;
        let status = &mut watch.status;
        if status.sent_nonce.as_deref() != Some(request.nonce.as_str()) {
            // A nonce of an earlier stream or of an overtaken response.
            return status.sent_nonce.is_some().then_some(Reaction::Stale);
        }
        status.answered_nonce = Some(request.nonce.clone());
        if let Some(error) = &request.error {
            status.last_error = Some(error.clone());
            if matches!(request.type_url, TypeUrl::Cluster | TypeUrl::Endpoint) {
                // What was refused never becomes usable.
                self.unusable.clear();
            }
            return Some(Reaction::Nacked(error.clone()));
        }
        status.acked_nonce = Some(request.nonce.clone());
        status.acked_at = Some(now);
        status.last_error = None;
        if request.type_url == TypeUrl::Endpoint {
            self.unusable.retain(|name| !watch.has.contains_key(name));
        }
        Some(Reaction::Acked)
    }

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
        let whole_state = variant == Variant::Sotw && watch.wildcard;
        if *type_url == TypeUrl::Endpoint {
            watch.force.append(&mut self.warming);
        }

        let exist: BTreeSet<Arc<str>> = resources.iter().map(|resource| resource.name.clone()).collect();
        let gone: Vec<Arc<str>> = match wanted {
            Wanted::All => watch.has.keys().filter(|name| !exist.contains(*name)).cloned().collect(),
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
                || watch.has.get(&resource.name).is_none_or(|(version, _)| *version != resource.version)
        };
        let any_changed = resources.iter().any(|resource| changed(watch, resource));
        let changed_names: Vec<Arc<str>> =
            resources.iter().filter(|r| changed(watch, r)).map(|r| r.name.clone()).collect();

        let mut send: Vec<Resource> = if whole_state {
            if any_changed || always { resources } else { Vec::new() }
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
            // have the cluster cannot lose it.
            watch.doomed.extend(gone.iter().filter(|name| watch.has.contains_key(*name)).cloned());
            if whole_state && !send.is_empty() {
                let kept = watch.doomed.iter().filter_map(|name| {
                    let (version, body) = watch.has.get(name)?;
                    Some(Resource {
                        name: name.clone(),
                        body: body.clone()?,
                        version: *version,
                        awaits_endpoints: false,
                    })
                });
                send.extend(kept.collect::<Vec<_>>());
            }
        } else {
            for name in &gone {
                watch.has.remove(name);
            }
            removed = gone;
        }
        let shrinks = whole_state && !removed.is_empty();
        if send.is_empty() && (removed.is_empty() || variant == Variant::Sotw) && !always && !shrinks {
            return None;
        }
        for resource in &send {
            let body = whole_state.then(|| resource.body.clone());
            watch.has.insert(resource.name.clone(), (resource.version, body));
            watch.force.remove(&resource.name);
        }
        if whole_state && shrinks && send.is_empty() {
            // Only removals: the state is what the client has without them.
            send = Self::state(watch);
        }
        if *type_url == TypeUrl::Cluster {
            self.warming.extend(changed_names);
        }
        Some(Self::stamp(&mut self.serial, watch, type_url, version, now, send, removed))
    }

    /// Everything a state-of-the-world client has of a wildcard type.
    fn state(watch: &Watch) -> Vec<Resource> {
        let resource = |(name, (version, body)): (&Arc<str>, &(u64, Option<Bytes>))| {
            Some(Resource {
                name: name.clone(),
                body: body.clone()?,
                version: *version,
                awaits_endpoints: false,
            })
        };
        watch.has.iter().filter_map(resource).collect()
    }

    fn stamp(
        serial: &mut u64,
        watch: &mut Watch,
        type_url: &TypeUrl,
        version: &str,
        now: SystemTime,
        resources: Vec<Resource>,
        removed: Vec<Arc<str>>,
    ) -> Answer {
        *serial += 1;
        let nonce = format!("{version}-{serial}");
        watch.status.sent_nonce = Some(nonce.clone());
        watch.status.sent_at = Some(now);
        watch.status.last_error = None;
        Answer { type_url: type_url.clone(), nonce, version: version.into(), resources, removed }
    }

    /// Removes clusters that are gone, once the client has answered every
    /// listener and route that was sent: to be called after a push and after
    /// each answer of the client.
    pub fn settle(&mut self, version: &str, now: SystemTime) -> Option<Answer> {
        let busy = [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::Route]
            .iter()
            .filter_map(|type_url| self.watches.get(type_url))
            .any(|watch| watch.status.is_pending());
        let variant = self.variant;
        let watch = self.watches.get_mut(&TypeUrl::Cluster)?;
        if busy || !self.unusable.is_empty() || watch.doomed.is_empty() {
            return None;
        }
        let removed: Vec<Arc<str>> = std::mem::take(&mut watch.doomed).into_iter().collect();
        for name in &removed {
            watch.has.remove(name);
        }
        let resources = if variant == Variant::Sotw { Self::state(watch) } else { Vec::new() };
        Some(Self::stamp(&mut self.serial, watch, &TypeUrl::Cluster, version, now, resources, removed))
    }
}

#[cfg(test)]
mod tests;
