//! Where secrets come from, and what a stream follows of them.

use std::sync::Arc;

use proto::Any;
use tokio::sync::watch;
use tonic::Status;

use super::content::{Content, Held, Newest, Version};
use super::secret::{Kind, Name};
use crate::config::sds::{KeyProvider, Sds};
use crate::identity::Current;
use crate::identity::files::{self, Material, Paths, Store};

/// All secrets of the agent; clones are the same.
#[derive(Clone, Debug)]
pub struct Secrets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` when the workload's secrets are those of another server.
    identity: Option<Current>,
    files: Store,
    revoked: Option<Paths>,
    key_provider: Option<KeyProvider>,
}

/// A secret that somebody follows.
#[derive(Debug)]
pub struct Followed {
    /// Its name.
    pub name: Name,
    /// What its follower has.
    pub sent: Option<Version>,
    source: Source,
    /// Lists of revoked certificates, which go along with roots.
    revoked: Option<files::Current>,
    key_provider: Option<KeyProvider>,
    newest: Option<Newest>,
}

#[derive(Debug)]
enum Source {
    Identity(Current),
    Files(files::Current),
}

impl Secrets {
    /// The secrets of an identity, unless another server has them, and of files.
    #[must_use]
    pub fn new(settings: &Sds, identity: Option<Current>, files: Store) -> Self {
        Self(Arc::new(Inner {
            identity,
            files,
            revoked: settings.revoked.clone().map(Paths::Revoked),
            key_provider: settings.key_provider,
        }))
    }

    /// Follows the secret of that name.
    ///
    /// # Errors
    /// When there is none and never will be.
    pub fn follow(&self, text: &str) -> Result<Followed, Status> {
        let name = Name::parse(text).map_err(|error| Status::not_found(error.to_string()))?;
        let source = match (&name.kind, &self.0.identity) {
            (Kind::Files(paths), _) => Source::Files(self.0.files.follow(paths)),
            (Kind::Default | Kind::Root, Some(identity)) => Source::Identity(identity.clone()),
            (Kind::Default | Kind::Root, None) => {
                return Err(Status::failed_precondition(format!(
                    "no secret {text:?} here: another server of this pod serves it, and this agent serves files only"
                )));
            }
        };
        let is_roots = matches!(name.kind, Kind::Root | Kind::Files(Paths::Roots(_)));
        let revoked = self.0.revoked.as_ref().filter(|_| is_roots).map(|paths| self.0.files.follow(paths));
        let key_provider = self.0.key_provider;
        Ok(Followed { name, sent: None, source, revoked, key_provider, newest: None })
    }
}

impl Followed {
    /// Looks for the newest content; what is returned is what the follower has
    /// not got.
    pub fn news(&mut self) -> Option<Version> {
        if let Some(content) = self.content()
            && self.newest.as_ref().is_none_or(|newest| !newest.content.is_same(&content))
        {
            self.newest = Some(Newest::new(content));
        }
        let version = &self.newest.as_ref()?.version;
        (self.sent.as_ref() != Some(version)).then(|| version.clone())
    }

    /// Why there is no content yet.
    #[must_use]
    pub fn failure(&self) -> String {
        let failure = match &self.source {
            Source::Identity(_) => None,
            Source::Files(current) => current.borrow().failure.clone(),
        };
        let revoked = self.revoked.as_ref().and_then(|current| current.borrow().failure.clone());
        failure.or(revoked).unwrap_or_else(|| "there is no certificate yet".to_owned())
    }

    /// Completes when there may be news. May be dropped and called again.
    ///
    /// # Errors
    /// When the agent is ending.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        let revoked = async {
            match &mut self.revoked {
                Some(revoked) => revoked.changed().await,
                None => std::future::pending().await,
            }
        };
        let source = async {
            match &mut self.source {
                Source::Identity(current) => current.changed().await,
                Source::Files(current) => current.changed().await,
            }
        };
        tokio::select! {
            changed = source => changed,
            changed = revoked => changed,
        }
    }

    /// The newest content in an envelope, which counts as sent from now on.
    pub fn pack(&mut self) -> Option<(Version, Any)> {
        let newest = self.newest.as_ref()?;
        let packed = newest.pack(&self.name.text, self.key_provider.as_ref());
        self.sent = Some(newest.version.clone());
        Some((newest.version.clone(), packed))
    }

    /// Serial number of a certificate, for the log.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        self.newest.as_ref()?.content.serial()
    }

    fn content(&mut self) -> Option<Content> {
        let (held, is_certificate) = match &mut self.source {
            Source::Identity(current) => {
                (Held::Identity(current.borrow_and_update().clone()?), self.name.kind == Kind::Default)
            }
            Source::Files(current) => {
                let material = current.borrow_and_update().material.clone()?;
                let is_pair = matches!(*material, Material::Pair(_));
                (Held::Files(material), is_pair)
            }
        };
        if is_certificate {
            return Some(Content::Certificate(held));
        }
        let revoked = match &mut self.revoked {
            None => None,
            Some(current) => {
                let state = current.borrow_and_update();
                // Lists that are there and cannot be read: without them, revoked
                // certificates would be accepted.
                if state.material.is_none() && state.failure.is_some() {
                    return None;
                }
                state.material.clone()
            }
        };
        Some(Content::Roots { held, revoked })
    }
}

/// Completes when there may be news of one of them.
///
/// # Errors
/// When the agent is ending.
pub(super) async fn any_changed(all: &mut [Followed]) -> Result<(), Status> {
    if all.is_empty() {
        return std::future::pending().await;
    }
    let waits = all.iter_mut().map(|followed| Box::pin(followed.changed()));
    let (changed, ..) = futures_util::future::select_all(waits).await;
    changed.map_err(|_| Status::unavailable("the agent is stopping"))
}
