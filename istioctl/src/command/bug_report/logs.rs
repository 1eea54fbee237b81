//! Lines of logs: which are in the report, and how bad they are.

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::pattern::fits;

/// The times between which lines are in the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Option<OffsetDateTime>,
    pub(super) end: Option<OffsetDateTime>,
}

impl Range {
    /// The lines between them; one without a time goes with the one before.
    pub(super) fn of(self, text: &str) -> String {
        let Self { start, end } = self;
        if start.is_none() && end.is_none() {
            return text.to_owned();
        }
        let mut is_in = start.is_none();
        let mut kept = String::new();
        for line in text.lines() {
            if let Some(parsed) = Line::read(line) {
                is_in = start.is_none_or(|start| parsed.time >= start)
                    && end.is_none_or(|end| parsed.time <= end);
            }
            if is_in {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        kept
    }
}

/// A line of Istio's format, text or JSON.
struct Line<'a> {
    time: OffsetDateTime,
    level: String,
    text: std::borrow::Cow<'a, str>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        if line.starts_with('{') {
            #[derive(Deserialize)]
            struct Json {
                time: String,
                level: String,
                msg: String,
            }
            let Json { time, level, msg } = serde_json::from_str(line).ok()?;
            return Some(Self {
                time: OffsetDateTime::parse(&time, &Rfc3339).ok()?,
                level,
                text: msg.into(),
            });
        }
        let mut parts = line.splitn(3, '\t');
        let (time, level, text) = (parts.next()?, parts.next()?, parts.next()?);
        let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
        Some(Self { time, level: level.to_ascii_lowercase(), text: text.into() })
    }
}

/// How many lines of a log are bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) fatal: usize,
    pub(super) errors: usize,
    pub(super) warnings: usize,
    /// Whether there is an error that somebody waits for.
    pub(super) is_critical: bool,
}

impl Weight {
    /// Counts those of a log.
    pub(super) fn of(text: &str, critical: &[String], ignored: &[String]) -> Self {
        let mut weight = Self::default();
        for line in text.lines().filter_map(Line::read) {
            let count = match line.level.as_str() {
                "fatal" => &mut weight.fatal,
                "error" => &mut weight.errors,
                "warn" | "warning" => &mut weight.warnings,
                _ => continue,
            };
            let is_one_of = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, &line.text));
            if is_one_of(ignored) {
                continue;
            }
            *count += 1;
            weight.is_critical |= is_one_of(critical);
        }
        weight
    }

    /// What is worth reading first has the greatest.
    pub(super) const fn importance(self) -> usize {
        let Self { fatal, errors, warnings, is_critical } = self;
        let base = if is_critical { 1_000_000 } else { 0 };
        base + 1000 * fatal + 100 * errors + 10 * warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "before\n2026-11-25T09:00:00.1Z\tinfo\tads\tone\n2026-11-25T10:00:00Z\terror\ttwo\n  of two\n\
        {\"level\":\"warn\",\"time\":\"2026-11-25T11:00:00Z\",\"msg\":\"three\"}\n";

    fn at(text: &str) -> Option<OffsetDateTime> {
        Some(OffsetDateTime::parse(text, &Rfc3339).unwrap())
    }

    #[test]
    fn lines_are_cut_by_their_times() {
        let range = |start, end| Range { start, end }.of(LOG);
        assert_eq!(range(None, None), LOG);
        assert_eq!(
            range(at("2026-11-25T10:00:00Z"), at("2026-11-25T10:30:00Z")),
            "2026-11-25T10:00:00Z\terror\ttwo\n  of two\n"
        );
        assert!(range(None, at("2026-11-25T09:30:00Z")).starts_with("before\n2026-11-25T09"));
        assert!(range(at("2026-11-25T10:30:00Z"), None).starts_with("{\"level\""));
    }

    #[test]
    fn bad_lines_are_counted() {
        let patterns = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let weight = Weight::of(LOG, &[], &[]);
        assert_eq!(weight, Weight { errors: 1, warnings: 1, ..Weight::default() });
        assert_eq!(weight.importance(), 110);
        assert_eq!(Weight::of(LOG, &[], &patterns(&["tw*"])).importance(), 10);
        assert!(Weight::of(LOG, &patterns(&["t*ee"]), &[]).importance() > 1_000_000);
    }
}
