//! From the signal to the end: listeners are drained, and Envoy leaves when
//! its connections are gone, at the latest when the time is over.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;
use tracing::{info, warn};

use super::admin::Local;
use super::connections;
use crate::config::Drain;

/// Between two looks at the connections.
const PERIOD: Duration = Duration::from_millis(100);
/// No connection for this long counts as none any more: peers that have not
/// heard yet that the pod is leaving still open some.
const QUIET: Duration = Duration::from_secs(1);
/// Between two questions for Envoy's own counters.
const STATS_PERIOD: Duration = Duration::from_secs(1);
/// Unanswered questions in a row after which Envoy is given up.
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

/// Waits until Envoy may leave.
pub async fn wait(drain: &Drain, admin: &Local) {
    match drain.until_idle {
        Some(minimum) => {
            info!(?minimum, "drain until there are no connections");
            tokio::time::sleep(minimum).await;
            until_idle(admin).await;
        }
        None if drain.counts_connections => {
            info!(limit = ?drain.limit, "drain until there are no connections, at the latest until the limit");
            let open = until_quiet(drain.limit, connections::count).await;
            info!(open, "drain over");
        }
        None => {
            info!(limit = ?drain.limit, "drain until the limit");
            tokio::time::sleep(drain.limit).await;
        }
    }
}

/// Waits until `count` has been zero for a while, or the limit is over;
/// returns what is still open.
async fn until_quiet(limit: Duration, count: impl Fn() -> Option<usize>) -> usize {
    let start = Instant::now();
    let mut quiet_since = start;
    loop {
        let now = Instant::now();
        // Unknown counts as open.
        let open = count().unwrap_or(1);
        if open > 0 {
            quiet_since = now;
        }
        if now - start >= limit || (open == 0 && now - quiet_since >= QUIET) {
            return open;
        }
        tokio::time::sleep(PERIOD.min(limit - (now - start))).await;
    }
}

/// Waits until Envoy's own counters show no connection; without a limit, which
/// is what `EXIT_ON_ZERO_ACTIVE_CONNECTIONS` asks for.
async fn until_idle(admin: &Local) {
    let mut errors = 0;
    loop {
        let path = "/stats?usedonly&filter=downstream_cx_active$";
        match admin.call(Method::GET, path, Bytes::new(), CALL_TIMEOUT).await {
            Ok((_, body)) => {
                errors = 0;
                let open = open_connections(&String::from_utf8_lossy(&body));
                if open == 0 {
                    info!("no connections any more");
                    return;
                }
                info!(open, "connections are still open");
            }
            Err(error) => {
                errors += 1;
                warn!(%error, "Envoy's counters");
                if errors == MAX_ERRORS {
                    return;
                }
            }
        }
        tokio::time::sleep(STATS_PERIOD).await;
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
    use std::cell::Cell;

    use super::*;

    async fn waited(limit: u64, count: impl Fn(Duration) -> usize) -> (u128, usize) {
        let start = Instant::now();
        let open = until_quiet(Duration::from_secs(limit), || Some(count(Instant::now() - start))).await;
        ((Instant::now() - start).as_millis(), open)
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_when_it_has_been_quiet() {
        assert_eq!(waited(5, |_| 0).await, (1000, 0));
        assert_eq!(waited(5, |at| usize::from(at < Duration::from_secs(2))).await, (2900, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_when_the_time_is_over() {
        assert_eq!(waited(5, |_| 3).await, (5000, 3));
        assert_eq!(waited(0, |_| 3).await, (0, 3));
        let calls = Cell::new(0);
        let blind = until_quiet(Duration::from_secs(2), || {
            calls.set(calls.get() + 1);
            None
        });
        assert_eq!(blind.await, 1);
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
