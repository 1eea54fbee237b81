//! Which modules are there. No I/O but a look whether a file still is.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::super::plugin::Wish;
use super::Found;

/// What a module is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Its URL, without tag and digest when it is an image.
    pub(super) name: String,
    /// Its checksum, or the digest of its image.
    pub(super) checksum: String,
}

#[derive(Debug)]
struct Module {
    path: PathBuf,
    /// When it was asked for.
    last: Instant,
    /// URLs that led to it.
    urls: HashSet<String>,
}

/// What a URL led to, and for whom.
#[derive(Debug, Default)]
struct Latest {
    checksum: String,
    versions: HashMap<String, String>,
}

/// The modules.
#[derive(Debug, Default)]
pub(super) struct Table {
    modules: HashMap<Key, Module>,
    latest: HashMap<String, Latest>,
}

impl Table {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.modules.len()
    }

    /// A module that is there. Without a checksum it is what the URL led to
    /// last; unless `any_version`, only for a resource of the same version.
    pub(super) fn look_up(
        &mut self,
        name: String,
        wish: &Wish,
        checksum: Option<&str>,
        any_version: bool,
        now: Instant,
    ) -> Option<Found> {
        let checksum = match checksum {
            Some(checksum) => checksum.to_owned(),
            None => {
                let latest = self.latest.get(&wish.url)?;
                let is_same = latest.versions.get(&wish.resource) == Some(&wish.version);
                (any_version || is_same).then(|| latest.checksum.clone())?
            }
        };
        let key = Key { name, checksum };
        let module = self.modules.get_mut(&key)?;
        if !module.path.exists() {
            self.modules.remove(&key);
            return None;
        }
        module.last = now;
        let path = module.path.clone();
        module.urls.insert(wish.url.clone());
        self.remember(wish, &key.checksum);
        Some((path, key.checksum))
    }

    /// The wish led to the module with that checksum.
    pub(super) fn remember(&mut self, wish: &Wish, checksum: &str) {
        let latest = self.latest.entry(wish.url.clone()).or_default();
        if latest.checksum != checksum {
            latest.checksum = checksum.to_owned();
        }
        latest.versions.insert(wish.resource.clone(), wish.version.clone());
    }

    /// A module is there now, from that URL.
    pub(super) fn add(&mut self, key: Key, path: PathBuf, url: &str, now: Instant) {
        let urls = self.modules.remove(&key).map(|module| module.urls).unwrap_or_default();
        let mut module = Module { path, last: now, urls };
        module.urls.insert(url.to_owned());
        self.modules.insert(key, module);
    }

    /// Files of all modules.
    pub(super) fn paths(&self) -> HashSet<PathBuf> {
        self.modules.values().map(|module| module.path.clone()).collect()
    }

    /// Forgets modules that nobody asked for in that time, and returns their files.
    pub(super) fn take_expired(&mut self, now: Instant, expiry: Duration) -> Vec<PathBuf> {
        let old: Vec<Module> = self
            .modules
            .extract_if(|_, module| now - module.last > expiry)
            .map(|(_, module)| module)
            .collect();
        for url in old.iter().flat_map(|module| &module.urls) {
            self.latest.remove(url);
        }
        old.into_iter().map(|module| module.path).collect()
    }
}
