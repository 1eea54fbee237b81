//! Tables, chains and rules as the kernel has them, without what only the
//! kernel knows (handles, values of counters).

use super::expr::Expr;

/// What the names of our tables begin with; the rest is iptables' name.
pub const PREFIX: &str = "istio-proxy-";
/// Our tables, all of family `inet`.
pub const TABLES: [&str; 3] = ["istio-proxy-nat", "istio-proxy-mangle", "istio-proxy-raw"];
/// The base chains that a table of ours may have.
pub const PREROUTING: &str = "prerouting";
/// As above.
pub const OUTPUT: &str = "output";

/// Our tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Tables.
    pub tables: Vec<Table>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its chains; their order means nothing.
    pub chains: Vec<Chain>,
    /// Whether it holds, or is, something that we never make: sets with a name,
    /// or a table that is switched off.
    pub is_strange: bool,
}

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where the kernel enters it; nowhere if only rules jump there.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule: what the kernel does one after the other.
pub type Rule = Vec<Expr>;

/// Where and how the kernel enters a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `nat`, `filter` or `route`.
    pub kind: String,
    /// Number of the place on a packet's way.
    pub number: u32,
    /// Its turn among the chains of that place.
    pub priority: i32,
    /// Whether packets that reach the end are accepted, and not dropped.
    pub accepts: bool,
}

impl Hook {
    /// Of packets that arrive.
    pub const PREROUTING: u32 = 0;
    /// Of packets that this machine sends.
    pub const OUTPUT: u32 = 3;

    /// The hook of a base chain of ours.
    pub fn of(table: &str, chain: &str) -> Option<Self> {
        let number = match chain {
            PREROUTING => Self::PREROUTING,
            OUTPUT => Self::OUTPUT,
            _ => return None,
        };
        let (kind, priority) = match (table.strip_prefix(PREFIX)?, number) {
            ("nat", _) => ("nat", -100),
            // This type looks up the route again when the mark has changed.
            ("mangle", Self::OUTPUT) => ("route", -150),
            ("mangle", _) => ("filter", -150),
            ("raw", _) => ("filter", -300),
            _ => return None,
        };
        Some(Self { kind: kind.to_owned(), number, priority, accepts: true })
    }
}

impl Ruleset {
    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.tables.iter().flat_map(|table| &table.chains).map(|chain| chain.rules.len()).sum()
    }

    /// Whether there is no table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

impl Table {
    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Whether both do the same: order counts for rules, not for chains.
    pub fn is_same(&self, other: &Self) -> bool {
        !self.is_strange
            && !other.is_strange
            && self.chains.len() == other.chains.len()
            && self.chains.iter().all(|chain| other.chain(&chain.name) == Some(chain))
    }
}
