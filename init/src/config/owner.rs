//! Users and groups that packets belong to.

use std::fmt;

/// A user or group id, or a range of them (`1000-1999`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    first: u32,
    last: u32,
}

impl Ids {
    /// One id.
    pub const fn one(id: u32) -> Self {
        Self { first: id, last: id }
    }

    /// The lowest.
    pub const fn first(self) -> u32 {
        self.first
    }

    /// The highest.
    pub const fn last(self) -> u32 {
        self.last
    }

    /// Whether it is one of them.
    pub const fn contains(self, id: u32) -> bool {
        self.first <= id && id <= self.last
    }

    /// From the lowest to the highest.
    pub const fn range(first: u32, last: u32) -> Self {
        Self { first, last }
    }

    /// Reads an id, a range or a name.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, id_of: impl Fn(&str) -> Option<u32>) -> Result<Self, String> {
        if let Some(id) = id_of(text) {
            return Ok(Self::one(id));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            (Some(_), Some(_)) => Err("the range ends before it begins".to_owned()),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
                Err("an id is a decimal number below 4294967295".to_owned())
            }
            _ => Err("no such name on this system; write the number".to_owned()),
        }
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

/// The kernel keeps the highest value for "nobody".
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?.filter(|&id| id != u32::MAX)
}

/// Looks up an id by name in the text of `/etc/passwd` or `/etc/group`. The
/// files are read by hand: a name service may ask the network, and that is not
/// there yet (istio/istio#48416).
pub fn id_of(database: &str, name: &str) -> Option<u32> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? == name { fields.nth(1)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ids_ranges_and_names() {
        let parse = |text: &str| {
            Ids::parse(text, |name| id_of("root:x:0:0::/:\napp:x:77:1::/:\n", name)).map(|i| i.to_string())
        };
        assert_eq!(parse("1337").unwrap(), "1337");
        assert_eq!(parse("10-20").unwrap(), "10-20");
        assert_eq!(parse("app").unwrap(), "77");
        assert!(parse("ghost").unwrap_err().contains("no such name"));
        assert!(parse("").unwrap_err().contains("no such name"));
        assert!(parse("4294967295").unwrap_err().contains("below"));
        assert!(parse("20-10").unwrap_err().contains("before"));
    }
}
