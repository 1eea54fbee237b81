//! A proxy that accepts everything and subscribes as Envoy does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use bytes::Bytes;
use names::TypeUrl;
use pilot::Proxy;
use pilot::cache::{Client, Fresh};
use xds::session::{Asked, Wanted};
use xds::{Answer, Request, Session, Variant};

use super::Plane;

/// A response as the proxy saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its type.
    pub type_url: TypeUrl,
    /// Names that were set.
    pub resources: BTreeSet<Arc<str>>,
    /// Names that were removed.
    pub removed: BTreeSet<Arc<str>>,
}

/// A connected proxy.
#[derive(Debug)]
pub struct Simulated {
    client: Client,
    session: Session,
    /// What the proxy has.
    pub state: BTreeMap<TypeUrl, BTreeMap<Arc<str>, Bytes>>,
    /// Which clusters' endpoints it wants.
    wants: fn(&str) -> bool,
    /// Names it has subscribed to, of the types that are asked for by name.
    subscribed: BTreeMap<TypeUrl, BTreeSet<Arc<str>>>,
    seen: Vec<Pushed>,
}

impl Simulated {
    /// Connects; `wants` tells of which clusters endpoints are asked for.
    ///
    /// # Errors
    /// When the server refuses a subscription.
    pub fn connect(
        plane: &Plane,
        proxy: Proxy,
        variant: Variant,
        wants: fn(&str) -> bool,
        routes: &[&str],
    ) -> anyhow::Result<Self> {
        let mut this = Self {
            client: Client::new(Arc::new(proxy)),
            session: Session::new(variant),
            state: BTreeMap::new(),
            wants,
            subscribed: BTreeMap::new(),
            seen: Vec::new(),
        };
        this.ask(plane, &TypeUrl::Cluster, &[], &[])?;
        this.ask(plane, &TypeUrl::Listener, &[], &[])?;
        let routes: Vec<Arc<str>> = routes.iter().map(|&name| name.into()).collect();
        this.ask(plane, &TypeUrl::Route, &routes, &[])?;
        this.ask(plane, &TypeUrl::NameTable, &[], &[])?;
        Ok(this)
    }

    /// All responses since the last time.
    pub fn take(&mut self) -> Vec<Pushed> {
        std::mem::take(&mut self.seen)
    }

    /// Sends what a change makes new for this proxy.
    ///
    /// # Errors
    /// When the server refuses a subscription.
    pub fn push(&mut self, plane: &Plane) -> anyhow::Result<()> {
        for type_url in TypeUrl::PUSH_ORDER {
            self.push_type(plane, &type_url)?;
        }
        self.settle(plane)
    }

    fn push_type(&mut self, plane: &Plane, type_url: &TypeUrl) -> anyhow::Result<()> {
        let Some(asked) = self.session.asked(type_url) else { return Ok(()) };
        let fresh = self.client.fresh(plane.now(), type_url, asked, self.session.due());
        let now = SystemTime::UNIX_EPOCH;
        let answer = match fresh {
            Fresh::Same => None,
            Fresh::All(resources) => self.session.push(type_url, resources, "v", now),
            Fresh::Some(names, resources) => self.session.push_some(type_url, names, resources, "v", now),
        };
        self.receive(plane, answer)
    }

    fn settle(&mut self, plane: &Plane) -> anyhow::Result<()> {
        let answer = self.session.settle("v", SystemTime::UNIX_EPOCH);
        self.receive(plane, answer)
    }

    /// Subscribes to names, or to all there is when there are none.
    fn ask(
        &mut self,
        plane: &Plane,
        type_url: &TypeUrl,
        add: &[Arc<str>],
        drop: &[Arc<str>],
    ) -> anyhow::Result<()> {
        let names = self.subscribed.entry(type_url.clone()).or_default();
        names.extend(add.iter().cloned());
        names.retain(|name| !drop.contains(name));
        let request = self.request(type_url, "", add, drop);
        self.request_and_receive(plane, &request)
    }

    fn request(&self, type_url: &TypeUrl, nonce: &str, add: &[Arc<str>], drop: &[Arc<str>]) -> Request {
        let text = |names: &mut dyn Iterator<Item = &Arc<str>>| names.map(|name| name.to_string()).collect();
        let is_sotw = self.session.variant() == Variant::Sotw;
        let all = self.subscribed.get(type_url);
        // Who speaks of the whole state names everything each time.
        let last = self.session.status().find(|(known, _)| *known == type_url);
        let last = last.and_then(|(_, status)| status.sent_nonce.clone()).unwrap_or_default();
        Request {
            type_url: type_url.clone(),
            nonce: if is_sotw && nonce.is_empty() { last } else { nonce.to_owned() },
            error: None,
            subscribe: if is_sotw { text(&mut all.into_iter().flatten()) } else { text(&mut add.iter()) },
            unsubscribe: if is_sotw { Vec::new() } else { text(&mut drop.iter()) },
            initial_versions: BTreeMap::new(),
        }
    }

    fn request_and_receive(&mut self, plane: &Plane, request: &Request) -> anyhow::Result<()> {
        let now = SystemTime::UNIX_EPOCH;
        let type_url = &request.type_url;
        let reaction = self.session.request(request, now).context("a subscription")?;
        if let Some(wanted) = reaction.respond {
            let resources = self.client.resources(plane.now(), type_url, wanted.asked());
            let answer = self.session.respond(type_url, &wanted, resources, "v", now);
            self.receive(plane, answer)?;
            if self.session.endpoints_due() {
                self.push_type(plane, &TypeUrl::Endpoint)?;
            }
        }
        self.settle(plane)
    }

    /// Takes a response, accepts it, and asks for what it leads to.
    fn receive(&mut self, plane: &Plane, answer: Option<Answer>) -> anyhow::Result<()> {
        let Some(answer) = answer else { return Ok(()) };
        let state = self.state.entry(answer.type_url.clone()).or_default();
        let before: BTreeSet<Arc<str>> = state.keys().cloned().collect();
        if self.session.variant() == Variant::Sotw && answer.type_url.is_wildcard() {
            state.clear();
        }
        for resource in &answer.resources {
            state.insert(resource.name.clone(), resource.body.clone());
        }
        answer.removed.iter().for_each(|name| drop(state.remove(name)));
        let after: BTreeSet<Arc<str>> = state.keys().cloned().collect();
        self.seen.push(Pushed {
            type_url: answer.type_url.clone(),
            resources: answer.resources.iter().map(|resource| resource.name.clone()).collect(),
            removed: answer.removed.iter().cloned().collect(),
        });
        let accept = self.request(&answer.type_url, &answer.nonce, &[], &[]);
        self.request_and_receive(plane, &accept)?;
        if answer.type_url == TypeUrl::Cluster {
            let wants = self.wants;
            let pick = |names: &BTreeSet<Arc<str>>, others: &BTreeSet<Arc<str>>| -> Vec<Arc<str>> {
                names.difference(others).filter(|name| wants(name)).cloned().collect()
            };
            let (added, gone) = (pick(&after, &before), pick(&before, &after));
            if let Some(endpoints) = self.state.get_mut(&TypeUrl::Endpoint) {
                gone.iter().for_each(|name| drop(endpoints.remove(name)));
            }
            if !added.is_empty() || !gone.is_empty() {
                self.ask(plane, &TypeUrl::Endpoint, &added, &gone)?;
            }
        }
        Ok(())
    }

    /// What it should have: everything that it has subscribed to, made anew.
    #[must_use]
    pub fn expected(&self, plane: &Plane) -> BTreeMap<TypeUrl, BTreeMap<Arc<str>, Bytes>> {
        let mut all = BTreeMap::new();
        for type_url in TypeUrl::PUSH_ORDER {
            let wanted = self.session.asked(&type_url).map(Asked::to_wanted);
            let wanted = match (&type_url, wanted) {
                // Routes that nobody has are not held either.
                (_, Some(wanted)) => wanted,
                (_, None) => Wanted::Names(BTreeSet::new()),
            };
            let resources = pilot::generate(&plane.snapshot, self.client.proxy(), &type_url, &wanted);
            let resources = resources.into_iter().map(|resource| (resource.name, resource.body));
            all.insert(type_url, resources.collect());
        }
        all
    }

    /// Whether a cluster is of a service that has lost its endpoints: it keeps
    /// the identities that it knows, as nobody can connect.
    fn has_no_endpoints(&self, plane: &Plane, name: &str) -> bool {
        let host = name.parse::<names::ClusterName>().map(|cluster| cluster.host);
        let service = host.ok().and_then(|host| plane.snapshot.service(&host));
        let is_there = self.state.get(&TypeUrl::Cluster).is_some_and(|clusters| clusters.contains_key(name));
        is_there && service.is_some_and(|service| service.endpoints.is_empty())
    }

    /// Of which type and name it has something else than it should have.
    #[must_use]
    pub fn difference(&self, plane: &Plane) -> Option<String> {
        let expected = self.expected(plane);
        let none = BTreeMap::new();
        for (type_url, expected) in &expected {
            let has = self.state.get(type_url).unwrap_or(&none);
            let names: BTreeSet<&Arc<str>> = has.keys().chain(expected.keys()).collect();
            let is_old = |name: &&&Arc<str>| {
                has.get(**name) != expected.get(**name)
                    && !(*type_url == TypeUrl::Cluster && self.has_no_endpoints(plane, name))
            };
            if let Some(name) = names.iter().find(is_old) {
                let what = match (has.contains_key(*name), expected.contains_key(*name)) {
                    (true, true) => "an old version of",
                    (true, false) => "still",
                    _ => "not",
                };
                return Some(format!("the proxy has {what} {} {name:?}", type_url.short()));
            }
        }
        None
    }
}
