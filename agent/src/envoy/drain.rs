//! From the signal to the end. There is one rule: Envoy drains for a shortest
//! time, in which its peers learn that the pod is leaving, and then leaves as
//! soon as its connections are gone, at the latest when the time is over.
//! `EXIT_ON_ZERO_ACTIVE_CONNECTIONS` only takes the limit away unless somebody
//! has set one.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::admin::Local;
use super::connections::{Open, Ports};
use crate::config::Drain;

/// Between two looks at the connections.
const PERIOD: Duration = Duration::from_millis(100);
/// No connection for this long counts as none any more: peers that have not
/// heard yet that the pod is leaving still open some.
const QUIET: Duration = Duration::from_secs(1);
/// Between two questions for Envoy's own counters.
const STATS_PERIOD: Duration = Duration::from_secs(1);
/// Unanswered questions in a row after which Envoy is given up, when the kernel
/// does not tell either.
const MAX_ERRORS: u32 = 5;
/// Longest wait for an answer of Envoy.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Tells Envoy to drain; `stay` keeps it running when the drain is over.
pub async fn begin(drain: &Drain, admin: &Local, stay: bool) {
    let inbound = if drain.inbound_only { "inboundonly&" } else { "" };
    let skip = if stay { "&skip_exit" } else { "" };
    let path = format!("/drain_listeners?{inbound}graceful{skip}");
    match admin.call(Method::POST, &path, Bytes::new(), CALL_TIMEOUT).await {
        Ok((status, _)) if status.is_success() => info!(path, "Envoy drains"),
        Ok((status, _)) => warn!(path, %status, "Envoy does not drain"),
        Err(error) => warn!(path, %error, "Envoy does not drain"),
    }
}

/// Ports to look at, before the drain closes them; `None` when connections
/// cannot be told by their ports.
#[must_use]
pub fn ports(drain: &Drain, status_port: u16) -> Option<Ports> {
    drain.counts_connections.then(|| {
        if drain.is_gateway { Ports::listening(drain.admin_port, status_port) } else { Ports::redirected() }
    })
}

/// Waits until Envoy may leave.
pub async fn wait(drain: &Drain, admin: &Local, ports: Option<&Ports>) {
    let Drain { minimum, limit, .. } = *drain;
    let text = limit.map_or_else(|| "none".to_owned(), |limit| format!("{limit:?}"));
    info!(?minimum, limit = text, "draining until there are no connections, at the latest until the limit");
    let start = Instant::now();
    let all = async {
        sleep(minimum).await;
        match ports {
            _ if drain.asks_envoy => until_idle(admin, ports).await,
            Some(ports) => until_quiet(|| ports.open().map(|open| open.count)).await,
            None => std::future::pending().await,
        }
    };
    let left = match limit {
        Some(limit) => timeout(limit, all).await.is_ok(),
        None => {
            all.await;
            true
        }
    };
    let took = start.elapsed();
    match ports.and_then(Ports::open) {
        Some(Open { count, examples }) if count > 0 => warn!(open = count, ?examples, ?took, "drain over"),
        Some(_) => info!(no_connections = true, ?took, "drain over"),
        None => info!(no_connections = left, ?took, "drain over"),
    }
}

/// Waits until `count` has been zero for a while.
async fn until_quiet(count: impl Fn() -> Option<usize>) {
    let mut quiet_since = Instant::now();
    loop {
        let now = Instant::now();
        // Unknown counts as open.
        if count() != Some(0) {
            quiet_since = now;
        } else if now - quiet_since >= QUIET {
            return;
        }
        sleep(PERIOD).await;
    }
}

/// Waits until Envoy's own counters show no connection. While Envoy is too busy
/// to answer, the kernel's table stands in for them.
async fn until_idle(admin: &Local, ports: Option<&Ports>) {
    let mut errors = 0;
    loop {
        let path = "/stats?usedonly&filter=downstream_cx_active$";
        let open = match admin.call(Method::GET, path, Bytes::new(), CALL_TIMEOUT).await {
            Ok((_, body)) => Some(open_connections(&String::from_utf8_lossy(&body))),
            Err(error) => {
                warn!(%error, "Envoy does not tell how many connections are open");
                ports.and_then(Ports::open).and_then(|open| u64::try_from(open.count).ok())
            }
        };
        match open {
            Some(0) => return,
            Some(open) => {
                errors = 0;
                info!(open, "connections are still open");
            }
            None => {
                errors += 1;
                if errors == MAX_ERRORS {
                    return;
                }
            }
        }
        sleep(STATS_PERIOD).await;
    }
}

/// Sums the lines of listeners, without those of workers and of listeners for
/// probes, metrics and administration.
fn open_connections(stats: &str) -> u64 {
    const OTHERS: [&str; 5] = ["worker_", "envoy_internal_", "15021", "15090", "admin"];
    stats
        .lines()
        .filter(|line| line.starts_with("listener.") && !OTHERS.iter().any(|other| line.contains(other)))
        .filter_map(|line| line.rsplit_once(':')?.1.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use names::port;
    use runtime::tasks::Tasks;

    use super::*;

    async fn waited(count: impl Fn(Duration) -> Option<usize>) -> u128 {
        let start = Instant::now();
        until_quiet(|| count(start.elapsed())).await;
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_when_it_has_been_quiet() {
        assert_eq!(waited(|_| Some(0)).await, 1000);
        assert_eq!(waited(|at| Some(usize::from(at < Duration::from_secs(2)))).await, 2900);
        assert_eq!(waited(|at| (at >= Duration::from_secs(2)).then_some(0)).await, 2900);
    }

    /// How long a drain takes with nobody at the admin port, in milliseconds.
    async fn drained(minimum: u64, limit: Option<u64>, asks_envoy: bool, ports: Option<&Ports>) -> u128 {
        let drain = Drain {
            minimum: Duration::from_secs(minimum),
            limit: limit.map(Duration::from_secs),
            asks_envoy,
            inbound_only: true,
            counts_connections: true,
            is_gateway: false,
            admin_port: port::ENVOY_ADMIN,
        };
        let admin = Local { port: 1, tasks: Tasks::new() };
        let start = Instant::now();
        wait(&drain, &admin, ports).await;
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_when_the_time_is_over() {
        // Nothing tells what is open.
        assert_eq!(drained(0, Some(5), false, None).await, 5000);
        assert_eq!(drained(0, Some(0), false, None).await, 0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ports = Ports::listening(1, 2);
        for asks_envoy in [false, true] {
            let took = drained(2, Some(7), asks_envoy, Some(&ports)).await;
            assert_eq!(took, 7000, "{asks_envoy}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_the_shortest_time_first() {
        let took = drained(2, None, true, Some(&Ports::redirected())).await;
        assert!((2000..3000).contains(&took), "{took}");
        // Neither Envoy nor the kernel tells.
        let took = drained(2, None, true, None).await;
        assert!((6000..7000).contains(&took), "{took}");
    }

    #[test]
    fn sums_the_listeners_that_count() {
        let stats = "\
listener.0.0.0.0_15006.downstream_cx_active: 2
listener.0.0.0.0_15006.worker_0.downstream_cx_active: 2
listener.0.0.0.0_15001.downstream_cx_active: 1
listener.0.0.0.0_15090.downstream_cx_active: 4
listener.admin.downstream_cx_active: 1
http.stats.downstream_cx_active: 9
";
        assert_eq!(open_connections(stats), 3);
        assert_eq!(open_connections(""), 0);
    }
}
