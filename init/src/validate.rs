//! The probe of `--run-validation`: dials as the present user, listens where
//! Envoy will, and tells where each dial came out. It changes nothing.
//!
//! What the rules should do with a dial is read from the plan (`expect`), so a
//! path that this user or this configuration exempts is named and not dialled.

mod dial;
mod expect;
mod listen;
mod message;
mod paths;
mod wait;

use std::fmt;
use std::time::{Duration, Instant};

use crate::config::{Config, Validation};
use crate::family::Family;

pub use message::Failure;
use wait::Wait;

/// Whoever sets more means "for ever"; the clock has an end.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A way that packets take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Envoy calls an address of its own pod: to Envoy's inbound listener.
    ToItself,
    /// The application calls somebody: to Envoy's outbound listener.
    Outbound,
    /// Somebody calls the application: to Envoy's inbound listener.
    Inbound,
}

/// What was found out about a path of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The family.
    pub family: Family,
    /// The path.
    pub path: Path,
    /// What was found out.
    pub outcome: Outcome,
    /// Whether a failure is one of the whole: there is traffic of this family.
    pub matters: bool,
}

/// Result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A dial came out at the right port.
    Proven {
        /// What was dialled.
        dialled: std::net::SocketAddr,
        /// Where it came out.
        port: u16,
    },
    /// It did not, and this was seen.
    Failed(String),
    /// Nothing can be said, and this is why.
    Unknown(String),
}

/// What has been proven, and what not.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each family and path.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub took: Duration,
}

/// Probes every family that the configuration has rules for.
///
/// # Errors
/// A path that matters is not redirected as it should be.
pub fn run(config: &Config) -> Result<Report, Failure> {
    let Some(Validation { port, timeout }) = config.validation else {
        return Ok(Report { findings: Vec::new(), took: Duration::ZERO });
    };
    let begin = Instant::now();
    let paths::Paths { probes, mut findings } = paths::of(config, port);
    let is_lost = findings.iter().any(Finding::is_fatal);
    let mut wait = Wait::new(probes, [config.inbound_port, config.envoy_port], is_lost);
    wait.run(begin + timeout.min(LONGEST));
    findings.extend(wait.findings());
    findings.sort_by_key(|finding| (finding.family, finding.path));
    let report = Report { findings, took: begin.elapsed() };

    if report.findings.iter().any(Finding::is_fatal) {
        return Err(Failure::new(config, &report));
    }
    for finding in report.findings.iter().filter(|it| it.has_failed()) {
        tracing::warn!("{finding}; it is let pass since the pod has no {} address", finding.family.name());
    }
    tracing::info!("redirection validated in {report}");
    Ok(report)
}

impl Finding {
    fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    fn is_fatal(&self) -> bool {
        self.matters && self.has_failed()
    }
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToItself => "proxy to its own pod",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), WithoutFamily(self))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.took.as_secs_f64() * 1000.0)?;
        for finding in self.findings.iter().filter(|it| matches!(it.outcome, Outcome::Proven { .. })) {
            write!(f, "; {finding}")?;
        }
        // Both families are left out for the same reason, as a rule.
        let mut told: Vec<&Finding> = Vec::new();
        for finding in self.findings.iter().filter(|it| matches!(it.outcome, Outcome::Unknown(_))) {
            if !told.iter().any(|it| it.path == finding.path && it.outcome == finding.outcome) {
                write!(f, "; {}", WithoutFamily(finding))?;
                told.push(finding);
            }
        }
        Ok(())
    }
}

/// A finding without its family.
struct WithoutFamily<'a>(&'a Finding);

impl fmt::Display for WithoutFamily<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, outcome, .. } = self.0;
        write!(f, "{path}: ")?;
        match outcome {
            Outcome::Proven { dialled, port } => write!(f, "{dialled} came out at port {port}"),
            Outcome::Failed(seen) => f.write_str(seen),
            Outcome::Unknown(why) => write!(f, "not probed, since {why}"),
        }
    }
}
