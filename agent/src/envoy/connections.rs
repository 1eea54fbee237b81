//! Counts the connections that are open at Envoy, from the kernel's table of
//! sockets: it costs Envoy nothing and works while Envoy is busy.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use names::port;

/// The kernel's tables of TCP sockets in this network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// State of a connection that is open at both ends.
const ESTABLISHED: &str = "01";
/// State of a socket that accepts connections.
const LISTEN: &str = "0A";
/// Connections that are shown of many.
const EXAMPLES: usize = 5;
/// Ports that nobody's traffic comes in by.
const OTHERS: [u16; 6] = [
    port::ENVOY_ADMIN,
    15004,
    port::AGENT_STATUS,
    port::ENVOY_HEALTH,
    port::AGENT_DNS,
    port::ENVOY_PROMETHEUS,
];

/// Ports on which Envoy accepts the connections that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(BTreeSet<u16>);

/// Connections that are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// How many.
    pub count: usize,
    /// A few of them: the port, and who is at the other end.
    pub examples: Vec<(u16, SocketAddr)>,
}

impl Ports {
    /// Those of redirected connections (sidecars).
    #[must_use]
    pub fn redirected() -> Self {
        Self([port::OUTBOUND, port::INBOUND].into())
    }

    /// Those that are open now, but for the ones of probes, metrics and
    /// administration (gateways: nobody else listens there).
    #[must_use]
    pub fn listening(admin: u16, status: u16) -> Self {
        let mut ports = BTreeSet::new();
        for text in tables() {
            ports.extend(
                text.lines().filter_map(socket).filter(|socket| socket.state == LISTEN).map(|it| it.local),
            );
        }
        ports.retain(|port| !OTHERS.contains(port) && ![admin, status].contains(port));
        Self(ports)
    }

    /// Connections of applications and peers that Envoy holds; `None` when the
    /// kernel does not tell.
    #[must_use]
    pub fn open(&self) -> Option<Open> {
        let mut found = None;
        for text in tables() {
            self.add(&text, found.get_or_insert_default());
        }
        found
    }

    fn add(&self, table: &str, open: &mut Open) {
        for socket in table.lines().filter_map(socket) {
            if socket.state == ESTABLISHED && self.0.contains(&socket.local) {
                open.count += 1;
                if open.examples.len() < EXAMPLES
                    && let Some(peer) = address(socket.peer)
                {
                    open.examples.push((socket.local, peer));
                }
            }
        }
    }
}

fn tables() -> impl Iterator<Item = String> {
    TABLES.iter().filter_map(|path| fs::read_to_string(path).ok())
}

struct Socket<'a> {
    local: u16,
    peer: &'a str,
    state: &'a str,
}

/// A line of a table: `SLOT: LOCAL_IP:PORT REMOTE_IP:PORT STATE …`.
fn socket(line: &str) -> Option<Socket<'_>> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, peer, state) = (words.next()?, words.next()?, words.next()?);
    let local = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some(Socket { local, peer, state })
}

/// Words of 32 bits in the machine's order, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:3A9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0A01000A:3A9E 0B01000A:C001 01 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:3A99 0B01000A:C002 01 00000000:00000000 00:00000000 00000000     0        0 3
   3: 0100007F:3A99 0B01000A:C003 06 00000000:00000000 00:00000000 00000000     0        0 4
   4: 0100007F:3A98 0B01000A:C004 01 00000000:00000000 00:00000000 00000000     0        0 5
";

    #[test]
    fn counts_open_connections_on_envoys_ports() {
        let mut open = Open::default();
        Ports::redirected().add(TABLE, &mut open);
        assert_eq!(open.count, 2);
        let peer = |port| SocketAddr::from(([10, 0, 1, 11], port));
        assert_eq!(open.examples, [(15006, peer(0xc001)), (15001, peer(0xc002))]);
        let mut none = Open::default();
        Ports::redirected().add("", &mut none);
        assert_eq!(none, Open::default());
    }

    #[test]
    fn reads_addresses_of_both_families() {
        assert_eq!(address("0100007F:3A99").unwrap().to_string(), "127.0.0.1:15001");
        let six = "00000000000000000000000001000000:0050";
        assert_eq!(address(six).unwrap().to_string(), "[::1]:80");
        let mapped = "0000000000000000FFFF00000100007F:0050";
        assert_eq!(address(mapped).unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(address("01:0050"), None);
    }

    #[test]
    fn a_gateways_ports_are_those_it_listens_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(Ports::listening(1, 2).0.contains(&port));
        assert!(!Ports::listening(port, 2).0.contains(&port));
        let open = Ports([port].into()).open().unwrap();
        assert_eq!((open.count, open.examples[0]), (1, (port, client.local_addr().unwrap())));
    }
}
