//! One copy of equal bytes.

use std::collections::HashMap;
use std::sync::Mutex;

use xds::Resource;

use super::lock;

/// Resources by the hash of their bytes.
#[derive(Debug, Default)]
pub(super) struct Interner(Mutex<Bodies>);

#[derive(Debug, Default)]
struct Bodies {
    by_version: HashMap<u64, Resource>,
    /// Pruned when it has become larger than that.
    limit: usize,
}

/// Fewer are not worth looking for what nobody uses.
const SMALL: usize = 4096;

impl Interner {
    /// The resource that was there with the same name and bytes, else this one.
    pub(super) fn intern(&self, resource: Resource) -> Resource {
        let mut bodies = lock(&self.0);
        match bodies.by_version.get(&resource.version) {
            Some(known) if known.body == resource.body => {
                let name = if known.name == resource.name { known.name.clone() } else { resource.name };
                Resource { name, body: known.body.clone(), ..resource }
            }
            _ => {
                bodies.by_version.insert(resource.version, resource.clone());
                resource
            }
        }
    }

    /// Forgets what nobody else holds.
    pub(super) fn prune(&self) {
        let mut bodies = lock(&self.0);
        if bodies.by_version.len() > bodies.limit.max(SMALL) {
            bodies.by_version.retain(|_, resource| !resource.body.is_unique());
            bodies.by_version.shrink_to_fit();
            bodies.limit = bodies.by_version.len() * 5 / 4;
        }
    }

    /// How many there are, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let bodies = lock(&self.0);
        (bodies.by_version.len(), bodies.by_version.values().map(|resource| resource.body.len()).sum())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn equal_bytes_are_kept_once_and_as_long_as_somebody_has_them() {
        let interner = Interner::default();
        let make =
            |name: &str, index: usize| Resource::from_bytes(name, Bytes::from(format!("body {index}")));
        let first = interner.intern(make("a", 1));
        let second = interner.intern(make("b", 1));
        assert_eq!(first.body.as_ptr(), second.body.as_ptr());
        assert_eq!((&*first.name, &*second.name), ("a", "b"));
        for index in 2..SMALL + 10 {
            drop(interner.intern(make("x", index)));
        }
        interner.prune();
        assert_eq!(interner.size().0, 1);
    }
}
