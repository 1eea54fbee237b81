//! The addresses of a name, and the one of them that answers first.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::sleep;

use super::{CONNECT_TIMEOUT, Error};
use crate::config::Endpoint;

/// Time that an address has before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(300);

type LookUp = Shared<BoxFuture<'static, Result<Vec<SocketAddr>, Arc<io::Error>>>>;

/// The look-ups under way. One that hangs costs a thread, so it is waited for
/// again and not begun again beside itself.
static LOOK_UPS: Mutex<BTreeMap<String, LookUp>> = Mutex::new(BTreeMap::new());

fn look_ups() -> MutexGuard<'static, BTreeMap<String, LookUp>> {
    LOOK_UPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses of an endpoint, in the order in which they are to be tried.
///
/// # Errors
/// When its name is not known.
pub async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Error> {
    let address = &endpoint.address;
    // A literal address needs no resolver, which costs a thread.
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    let name = address.clone();
    let look_up = async move { Ok(tokio::net::lookup_host(name).await?.collect()) };
    let found = tokio::time::timeout(CONNECT_TIMEOUT, once(address, look_up)).await;
    let failed = |source| Error::Connect { address: address.clone(), source };
    found.map_err(|_| Error::Timeout(address.clone()))?.map_err(failed)
}

/// Looks a name up, or waits for whoever does.
async fn once(
    name: &str,
    look_up: impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let begin = || look_up.map(|found| found.map_err(Arc::new)).boxed().shared();
    let look_up = look_ups().entry(name.to_owned()).or_insert_with(begin).clone();
    let found = look_up.await;
    look_ups().remove(name);
    found.map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

/// The first that succeeds; each has a moment for itself before the next one
/// begins beside it. The last error when none does, `None` without addresses.
pub async fn first<T, E, F: Future<Output = Result<T, E>>>(
    addresses: Vec<SocketAddr>,
    dial: impl Fn(SocketAddr) -> F,
) -> Option<Result<(SocketAddr, T), E>> {
    let mut addresses = addresses.into_iter();
    let mut tries = FuturesUnordered::new();
    let begin = |address| {
        let dialled = dial(address);
        async move { (address, dialled.await) }
    };
    tries.push(begin(addresses.next()?));
    loop {
        let (address, result) = tokio::select! {
            Some(ended) = tries.next() => ended,
            () = sleep(STAGGER), if addresses.len() > 0 => {
                tries.extend(addresses.next().map(&begin));
                continue;
            }
        };
        match result {
            Ok(value) => return Some(Ok((address, value))),
            Err(error) if tries.is_empty() && addresses.len() == 0 => return Some(Err(error)),
            Err(_) => tries.extend(addresses.next().map(&begin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{Instant, timeout};

    use super::*;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| ([127, 0, 0, 1], port).into()).collect()
    }

    /// Port 1 never answers, port 2 refuses, port 3 answers after a second.
    async fn dial(address: SocketAddr) -> Result<u16, u16> {
        match address.port() {
            1 => std::future::pending().await,
            2 => Err(2),
            port => {
                sleep(Duration::from_secs(1)).await;
                Ok(port)
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_hangs_does_not_keep_the_others_from_being_tried() {
        let start = Instant::now();
        let found = first(addresses(3), dial).await;
        assert_eq!(found, Some(Ok((([127, 0, 0, 1], 3).into(), 3))));
        // The second begins after the first's moment and fails at once.
        assert_eq!(Instant::now() - start, STAGGER + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_is_begun_once() {
        let found = addresses(2);
        let begun = Arc::new(AtomicUsize::new(0));
        let slow = || {
            let (begun, found) = (begun.clone(), found.clone());
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(60)).await;
                Ok(found)
            }
        };
        let name = "hangs.test:1";
        for _ in 0..11 {
            assert!(timeout(CONNECT_TIMEOUT, once(name, slow())).await.is_err());
        }
        assert_eq!(tokio::join!(once(name, slow()), once(name, slow())).1.unwrap(), found);
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(!look_ups().contains_key(name));
        let failed = async { Err(io::Error::new(io::ErrorKind::NotFound, "no such name")) };
        assert_eq!(once(name, failed).await.unwrap_err().to_string(), "no such name");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_tells_when_all_fail() {
        let two = vec![([127, 0, 0, 1], 2).into(); 2];
        assert_eq!(first(two, dial).await, Some(Err(2)));
        assert_eq!(first(Vec::new(), dial).await, None);
    }
}
