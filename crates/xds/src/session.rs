//! The protocol state of one client: subscriptions, nonces, what it has.
//!
//! The rules are those of the xDS transport protocol, with two of our own:
//! a response carries only what changed since the client got it, and a cluster
//! is removed only when the client has no listener or route that may still use
//! it, nor will get one (make before break).

mod answer;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use names::TypeUrl;

use self::watch::Watch;
pub use self::watch::{MAX_NAME_BYTES, MAX_NAMES};
use crate::{Resource, TypeStatus};

/// Which of the two protocol variants the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// State of the world: a response of CDS or LDS is everything there is.
    Sotw,
    /// Incremental: a response says what changed.
    Delta,
}

impl Variant {
    /// Whether each response of the type carries all that the subscription
    /// covers, so that what is missing in it is gone.
    fn repeats_state_of(self, type_url: &TypeUrl) -> bool {
        self == Self::Sotw && type_url.is_wildcard()
    }
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// What the client says of a response; `None` when it answers none of this stream.
    pub verdict: Option<Verdict>,
    /// It answers a response that a later one has overtaken, or none that was sent.
    pub is_overtaken: bool,
    /// Send these: everything the subscription covers, or the given names.
    pub respond: Option<Wanted>,
}

/// What a client says of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It uses it.
    Accepted,
    /// It keeps what it had, for that reason.
    Refused(String),
}

/// A subscription that is larger than any mesh needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a subscription to {names} names of {bytes} bytes in all: at most {MAX_NAMES} names and \
     {MAX_NAME_BYTES} bytes are served; subscribe to fewer, for example by a Sidecar object that \
     limits what the proxy sees"
)]
pub struct TooManyNames {
    /// How many.
    pub names: usize,
    /// Their size.
    pub bytes: usize,
}

/// Longest reason of a refusal that is kept; Envoy lists every resource.
const MAX_ERROR: usize = 4096;
/// The name that stands for all resources.
const ALL: &str = "*";

/// Whether resources of the type are ever sent on a stream, and state is kept for it.
#[must_use]
pub fn is_served(type_url: &TypeUrl) -> bool {
    !matches!(type_url, TypeUrl::Other(_) | TypeUrl::Health)
}

/// Which resources of a type are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that there are.
    All,
    /// Those of these names.
    Names(BTreeSet<Arc<str>>),
}

/// The same without a copy of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// All that there are.
    All,
    /// Those of these names.
    Names(&'a BTreeSet<Arc<str>>),
}

impl Asked<'_> {
    /// With names of its own.
    #[must_use]
    pub fn to_wanted(self) -> Wanted {
        match self {
            Self::All => Wanted::All,
            Self::Names(names) => Wanted::Names(names.clone()),
        }
    }
}

impl Wanted {
    /// Without a copy of the names.
    #[must_use]
    pub fn asked(&self) -> Asked<'_> {
        match self {
            Self::All => Asked::All,
            Self::Names(names) => Asked::Names(names),
        }
    }
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
        self.asked(type_url).map(Asked::to_wanted)
    }

    /// The same without a copy of the names.
    #[must_use]
    pub fn asked(&self, type_url: &TypeUrl) -> Option<Asked<'_>> {
        let watch = self.watches.get(type_url)?;
        Some(if watch.wildcard { Asked::All } else { Asked::Names(watch.names.get()) })
    }

    /// Endpoint assignments that go out with the next push even when unchanged.
    #[must_use]
    pub fn due(&self) -> &BTreeSet<Arc<str>> {
        &self.warming
    }

    /// Lets the next push of each type send everything again.
    pub fn force_all(&mut self) {
        for watch in self.watches.values_mut() {
            watch.force.extend(watch.has.keys().cloned());
        }
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
    ///
    /// # Errors
    /// When the subscription is too large to be served.
    pub fn request(&mut self, request: &Request, now: SystemTime) -> Result<Reaction, TooManyNames> {
        if !is_served(&request.type_url) {
            return Ok(self.unserved(request));
        }
        match self.variant {
            Variant::Sotw => self.sotw(request, now),
            Variant::Delta => self.delta(request, now),
        }
    }

    /// A type that nothing is sent of: questions get an empty answer, so that
    /// the client waits for nothing, and leave no state behind.
    fn unserved(&self, request: &Request) -> Reaction {
        let names: BTreeSet<Arc<str>> = request.subscribe.iter().map(|name| name.as_str().into()).collect();
        let is_question = request.nonce.is_empty() || (self.variant == Variant::Delta && !names.is_empty());
        let respond = is_question && request.type_url != TypeUrl::Health;
        Reaction {
            verdict: request.error.clone().map(|error| Verdict::Refused(clip(&error))),
            is_overtaken: false,
            respond: respond.then_some(Wanted::Names(names)),
        }
    }

    fn sotw(&mut self, request: &Request, now: SystemTime) -> Result<Reaction, TooManyNames> {
        let type_url = &request.type_url;
        let mut reaction = self.answered(request, now);
        if reaction.is_overtaken {
            // The client names everything it wants again with its answer to
            // the response that is on its way.
            return Ok(reaction);
        }
        let names: watch::Names = self.texts(type_url, &request.subscribe).collect();
        names.check()?;
        let known = self.watches.get(type_url).filter(|_| !request.nonce.is_empty());
        let is_new = known.is_none();
        // No names mean all, until the client has given some.
        let never_named = known.is_none_or(|watch| watch.names.get().is_empty());
        let is_all = names.get().contains(ALL) || (names.get().is_empty() && never_named);
        let wildcard = type_url.is_wildcard() && is_all;
        if names.get().is_empty() && !wildcard {
            self.watches.remove(type_url);
            return Ok(reaction);
        }
        let watch = self.watches.entry(type_url.clone()).or_default();
        if is_new {
            *watch = Watch { status: std::mem::take(&mut watch.status), ..Watch::default() };
            watch.status.last_error = None;
        }
        let is_wider = wildcard && !watch.wildcard;
        watch.wildcard = wildcard;
        watch.keep(|name| wildcard || names.get().contains(name));
        let added: BTreeSet<Arc<str>> = names.get().difference(watch.names.get()).cloned().collect();
        watch.names = names;
        let repeats = self.variant.repeats_state_of(type_url);
        reaction.respond = if wildcard {
            (is_new || is_wider || !added.is_empty()).then_some(Wanted::All)
        } else if is_new || (repeats && !added.is_empty()) {
            Some(Wanted::Names(watch.names.get().clone()))
        } else if added.is_empty() {
            None
        } else {
            watch.force.extend(added.iter().cloned());
            Some(Wanted::Names(added))
        };
        Ok(reaction)
    }

    fn delta(&mut self, request: &Request, now: SystemTime) -> Result<Reaction, TooManyNames> {
        let type_url = &request.type_url;
        let is_new = !self.watches.contains_key(type_url);
        let mut reaction = self.answered(request, now);
        let subscribe: Vec<Arc<str>> = self.texts(type_url, &request.subscribe).collect();
        let watch = self.watches.entry(type_url.clone()).or_default();
        if is_new {
            watch.wildcard = type_url.is_wildcard() && request.subscribe.is_empty();
            for (name, version) in &request.initial_versions {
                // A version that is not ours never equals one of ours.
                let version = u64::from_str_radix(version, 16).unwrap_or_default();
                watch.has.insert(name.as_str().into(), watch::Held { version, ..watch::Held::default() });
            }
        }
        let mut added = BTreeSet::new();
        let mut asks_for_all = false;
        // What the client drops and asks for in one message it gets anew.
        for name in &request.unsubscribe {
            if name == ALL && type_url.is_wildcard() {
                watch.wildcard = false;
                let names = std::mem::take(&mut watch.names);
                watch.keep(|name| names.get().contains(name));
                watch.names = names;
            } else if watch.names.remove(name) {
                watch.forget(name);
                if watch.wildcard {
                    // Still covered, and the client has dropped it.
                    added.insert(name.as_str().into());
                }
            }
        }
        for name in subscribe {
            if *name == *ALL && type_url.is_wildcard() {
                // Asking again means the client has dropped all: send all again.
                // On the first request the initial versions say what it has.
                if !is_new {
                    watch.force.extend(watch.has.keys().cloned());
                }
                watch.wildcard = true;
                asks_for_all = true;
            } else {
                if !is_new {
                    watch.force.insert(name.clone());
                }
                added.insert(name.clone());
                watch.names.insert(name);
            }
        }
        watch.names.check()?;
        reaction.respond = if is_new {
            // Answered even when nothing is to be sent, so that the client's
            // state is known from then on.
            Some(if watch.wildcard { Wanted::All } else { Wanted::Names(watch.names.get().clone()) })
        } else if asks_for_all {
            Some(Wanted::All)
        } else {
            (!added.is_empty()).then_some(Wanted::Names(added))
        };
        Ok(reaction)
    }

    /// Names that a client has written. Endpoints are asked for by the names of
    /// clusters, and all clients share the text of those.
    fn texts<'a>(&'a self, of: &TypeUrl, names: &'a [String]) -> impl Iterator<Item = Arc<str>> + use<'a> {
        let clusters = self.watches.get(&TypeUrl::Cluster).filter(|_| *of == TypeUrl::Endpoint);
        names.iter().map(move |name| {
            let known = clusters.and_then(|clusters| clusters.has.get_key_value(name.as_str()));
            known.map_or_else(|| name.as_str().into(), |(text, _)| text.clone())
        })
    }

    /// Books the answer to a response.
    fn answered(&mut self, request: &Request, now: SystemTime) -> Reaction {
        let nothing = Reaction::default();
        let error = request.error.as_deref().map(clip);
        let refused = error.clone().map(Verdict::Refused);
        if request.nonce.is_empty() {
            return Reaction { verdict: refused, ..nothing };
        }
        // Nothing was sent yet: a nonce of an earlier stream.
        let Some(watch) = self.watches.get_mut(&request.type_url) else {
            return Reaction { verdict: refused, ..nothing };
        };
        let Some(sent_nonce) = &watch.status.sent_nonce else {
            return Reaction { verdict: refused, ..nothing };
        };
        let is_overtaken = *sent_nonce != request.nonce;
        let serial = request.nonce.rsplit_once('-').and_then(|(_, serial)| serial.parse::<u64>().ok());
        let serial = serial.filter(|serial| (1..=self.serial).contains(serial));
        if let Some(error) = &error {
            watch.refuse(serial, self.serial, error);
            if matches!(request.type_url, TypeUrl::Cluster | TypeUrl::Endpoint) {
                // What was refused never becomes usable.
                self.unusable.clear();
            }
        } else if let Some(serial) = serial {
            watch.accept(serial);
        }
        if !is_overtaken {
            let status = &mut watch.status;
            status.answered_nonce = Some(request.nonce.clone());
            if error.is_none() {
                status.acked_nonce = Some(request.nonce.clone());
                status.acked_at = Some(now);
                if request.type_url == TypeUrl::Endpoint {
                    self.unusable.retain(|name| !watch.has.contains_key(name));
                }
            }
        }
        let accepted = serial.map(|_| Verdict::Accepted);
        Reaction { verdict: refused.or(accepted), is_overtaken, respond: None }
    }
}

/// The beginning of a text that the client has written.
fn clip(text: &str) -> String {
    if text.len() <= MAX_ERROR {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_ERROR)])
}

#[cfg(test)]
mod tests;
