//! Ports, ranges of ports and lists of them.

use std::fmt;

/// A port or a range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// One port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether it holds every port there is.
    pub const fn is_all(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// The lowest.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether it is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// From the lowest to the highest.
    pub const fn range(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// Reads `80`, `8000:8010` (or `8000-8010`), `:1024`, `49152:` or the name
    /// of a service.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, service: impl Fn(&str) -> Option<u16>) -> Result<Self, String> {
        let range = match text.split_once(':') {
            // Names of services have dashes as well.
            None if text.starts_with(|c: char| c.is_ascii_digit()) => text.split_once('-'),
            range => range,
        };
        let (first, last) = match range {
            None => {
                let port = port(text, service)?;
                (port, port)
            }
            Some((first, last)) => (
                if first.is_empty() { 0 } else { port(first, &service)? },
                if last.is_empty() { u16::MAX } else { port(last, &service)? },
            ),
        };
        if first > last {
            return Err("the range ends before it begins".to_owned());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, ":{}", self.last) }
    }
}

/// Reads one port. Iptables takes a leading zero for octal; nobody means that.
fn port(text: &str, service: impl Fn(&str) -> Option<u16>) -> Result<u16, String> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match text.parse() {
            Ok(port) if text == "0" || !text.starts_with('0') => Ok(port),
            _ => Err("a port is a decimal number from 0 to 65535".to_owned()),
        };
    }
    match text {
        "*" => Err("`*` cannot stand in a list".to_owned()),
        _ => service(text).ok_or_else(|| "neither a port number nor a service of /etc/services".to_owned()),
    }
}

/// Looks up the TCP port of a service in the text of `/etc/services`.
pub fn service(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let first = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let is_it = protocol == "tcp" && (first == name || words.any(|alias| alias == name));
        is_it.then(|| port.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        let services = "ssh 22/tcp\nhttp\t80/tcp www # WorldWideWeb\ndomain 53/udp\n";
        Ports::parse(text, |name| service(services, name)).map(|ports| ports.to_string())
    }

    #[test]
    fn reads_ports_ranges_and_names() {
        for (text, ports) in [
            ("80", "80"),
            ("0", "0"),
            ("1:3", "1:3"),
            ("1-3", "1:3"),
            (":9", "0:9"),
            ("9:", "9:65535"),
            ("7:7", "7"),
        ] {
            assert_eq!(parse(text).unwrap(), ports);
        }
        assert_eq!(parse("www").unwrap(), "80");
        assert_eq!(parse("ssh:http").unwrap(), "22:80");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, told) in [
            ("99999", "0 to 65535"),
            ("8010-8000", "ends before"),
            ("*", "in a list"),
            ("domain", "/etc/services"),
            ("9:1", "ends before"),
            ("010", "decimal"),
            ("", "neither"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
