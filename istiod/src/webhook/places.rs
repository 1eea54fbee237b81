//! Room for connections: so many in all, and so many of one address, so that
//! one client does not keep the API server out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::listener::source;

/// Connections at once; the API server needs a few.
const CONNECTIONS: usize = 512;
/// The same of one address. Several API servers may come from one.
const OF_ONE: usize = 128;

/// The room; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

/// One connection's room, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    source: IpAddr,
}

impl Places {
    /// Room for a connection from that address.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, String> {
        let source = source(address);
        let mut taken = self.taken();
        if taken.all >= CONNECTIONS {
            return Err(format!("there are {CONNECTIONS} connections already"));
        }
        let own = taken.by_source.entry(source).or_default();
        if *own >= OF_ONE {
            return Err(format!("there are {OF_ONE} connections of {source} already"));
        }
        *own += 1;
        taken.all += 1;
        Ok(Place { places: self.clone(), source })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Numbers, right whatever a panic left behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_source.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_does_not_take_all_the_room() {
        let places = Places::default();
        let mut hog: Vec<Place> = (0..OF_ONE).map(|_| places.take(address(1)).unwrap()).collect();
        assert!(places.take(address(1)).unwrap_err().contains("10.0.0.1"));
        places.take(address(2)).unwrap();
        hog.pop();
        hog.push(places.take(address(1)).unwrap());
        let others: Vec<Place> = (2..5)
            .flat_map(|last| (0..OF_ONE).map(move |_| last))
            .map(|last| places.take(address(last)).unwrap())
            .collect();
        assert!(places.take(address(9)).unwrap_err().contains("512"));
        drop((hog, others));
        assert!(places.taken().by_source.is_empty() && places.taken().all == 0);
    }
}
