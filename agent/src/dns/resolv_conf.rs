//! `resolv.conf`: whom to ask what the table does not know, and the search
//! domain that clients add to names. Changes are noticed when it is used.

use std::fs::{self, Metadata};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// Port of DNS servers.
const PORT: u16 = 53;
/// How old what is known of the file may be.
const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Servers in their order.
    pub(super) servers: Vec<SocketAddr>,
    /// First search domain in small letters, without the last dot.
    pub(super) search: Option<String>,
}

impl ResolvConf {
    /// Reads the text of such a file; what makes no sense is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("domain" | "search") => {
                    let domain = words.next().map(|word| word.trim_end_matches('.').to_ascii_lowercase());
                    conf.search = domain.filter(|domain| !domain.is_empty());
                }
                _ => {}
            }
        }
        conf
    }
}

/// The address of a server, which may have the zone of a link-local address.
fn server(word: &str) -> Option<SocketAddr> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, PORT));
    }
    let (ip, zone) = word.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let scope = zone.parse().ok().or_else(|| nix::net::if_::if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(ip, PORT, 0, scope).into())
}

/// What tells one state of a file from another.
type Stamp = (u64, i64, i64, u64);

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())
}

#[derive(Debug)]
struct State {
    conf: Arc<ResolvConf>,
    stamp: Stamp,
    checked: Instant,
    /// A change that cannot be read is told once.
    is_lost: bool,
}

/// The file, as it is at any time.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    state: Mutex<State>,
}

impl Watched {
    /// Reads it for the first time.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let (conf, stamp) = read(path)?;
        let state = State { conf: Arc::new(conf), stamp, checked: Instant::now(), is_lost: false };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// One that never changes, with servers on any port.
    #[cfg(test)]
    pub(super) fn fixed(conf: ResolvConf) -> Self {
        let stamp = Stamp::default();
        let state = State { conf: Arc::new(conf), stamp, checked: Instant::now(), is_lost: true };
        Self { path: PathBuf::new(), state: Mutex::new(state) }
    }

    /// What it says now; what it said last, when it cannot be read.
    pub(super) fn current(&self) -> Arc<ResolvConf> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now - state.checked < CHECK_PERIOD {
            return state.conf.clone();
        }
        state.checked = now;
        let path = self.path.display();
        match fs::metadata(&self.path).map(|metadata| stamp(&metadata)) {
            Ok(stamp) if stamp == state.stamp => state.is_lost = false,
            Ok(_) => match read(&self.path) {
                Ok((conf, stamp)) => {
                    if conf != *state.conf {
                        info!(target: "dns", servers = ?conf.servers, search = conf.search, "{path} has changed");
                        state.conf = Arc::new(conf);
                    }
                    state.stamp = stamp;
                    state.is_lost = false;
                }
                Err(error) => lost(&mut state, &self.path, &error),
            },
            Err(error) => lost(&mut state, &self.path, &error),
        }
        state.conf.clone()
    }
}

fn lost(state: &mut State, path: &Path, error: &std::io::Error) {
    if !state.is_lost {
        warn!(target: "dns", %error, "read {}: what it said before stays in force", path.display());
    }
    state.is_lost = true;
}

fn read(path: &Path) -> std::io::Result<(ResolvConf, Stamp)> {
    let text = fs::read_to_string(path)?;
    Ok((ResolvConf::parse(&text), stamp(&fs::metadata(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_the_first_search_domain_are_read() {
        let conf = ResolvConf::parse(
            "# comment\nnameserver 10.0.0.10\nnameserver fd00::a  \nnameserver fe80::1%1\nnameserver x\n\
             search ns1.svc.Cluster.local. svc.cluster.local\noptions ndots:5\n",
        );
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.10:53", "[fd00::a]:53", "[fe80::1%1]:53"]);
        assert_eq!(conf.search.as_deref(), Some("ns1.svc.cluster.local"));
        assert_eq!(ResolvConf::parse("domain a.b\nsearch c.d\n").search.as_deref(), Some("c.d"));
        assert_eq!(ResolvConf::parse("search .\nnameserver\n"), ResolvConf::default());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_noticed_and_a_lost_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let watched = Watched::open(&path).unwrap();
        let first = |watched: &Watched| watched.current().servers[0].to_string();
        fs::write(dir.path().join("next"), "nameserver 10.0.0.22\n").unwrap();
        fs::rename(dir.path().join("next"), &path).unwrap();
        assert_eq!(first(&watched), "10.0.0.1:53");
        tokio::time::advance(CHECK_PERIOD).await;
        assert_eq!(first(&watched), "10.0.0.22:53");
        fs::remove_file(&path).unwrap();
        tokio::time::advance(CHECK_PERIOD).await;
        assert_eq!(first(&watched), "10.0.0.22:53");
        assert!(Watched::open(&path).is_err());
    }
}
