//! Counts the connections that are open at Envoy, from the kernel's table of
//! sockets: it costs Envoy nothing and works while Envoy is busy.

use std::fs;

use names::port;

/// The kernel's tables of TCP sockets in this network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// Ports on which Envoy accepts redirected connections.
const PORTS: [u16; 2] = [port::OUTBOUND, port::INBOUND];
/// State of a connection that is open at both ends.
const ESTABLISHED: &str = "01";

/// Connections of applications and peers that Envoy holds; `None` when the
/// kernel does not tell.
#[must_use]
pub fn count() -> Option<usize> {
    let mut total = None;
    for table in TABLES {
        if let Ok(text) = fs::read_to_string(table) {
            total = Some(total.unwrap_or(0) + count_in(&text));
        }
    }
    total
}

/// Open connections in a table: `SLOT: LOCAL_IP:PORT REMOTE_IP:PORT STATE …`.
fn count_in(table: &str) -> usize {
    let is_open = |line: &&str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (Some(local), Some(state)) = (words.next(), words.nth(1)) else { return false };
        let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        state == ESTABLISHED && port.is_some_and(|port| PORTS.contains(&port))
    };
    table.lines().filter(is_open).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_open_connections_on_envoys_ports() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:3A9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0A01000A:3A9E 0B01000A:C001 01 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:3A99 0B01000A:C002 01 00000000:00000000 00:00000000 00000000     0        0 3
   3: 0100007F:3A99 0B01000A:C003 06 00000000:00000000 00:00000000 00000000     0        0 4
   4: 0100007F:3A98 0B01000A:C004 01 00000000:00000000 00:00000000 00000000     0        0 5
";
        assert_eq!(count_in(table), 2);
        assert_eq!(count_in(""), 0);
    }
}
