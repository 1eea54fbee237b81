//! The last line, and the whole as text for people.

use super::explanation::{End, Explanation, Step, Then, Verdict, Way};

/// The last line.
pub(super) fn of(way: &Way) -> String {
    let ends = way.ends();
    let mut groups: Vec<(f64, &End, Vec<&Step>, Vec<&str>)> = Vec::new();
    for (share, end, unknown) in ends {
        let name = match end {
            End::Arrives { workload, .. } => workload.as_str(),
            _ => "",
        };
        match groups.iter_mut().find(|(_, known, doubts, _)| same(known, end) && *doubts == unknown) {
            Some((sum, _, _, names)) => {
                *sum += share;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            None => groups.push((share, end, unknown, vec![name])),
        }
    }
    let only = groups.len() == 1;
    let parts = groups.iter().map(|(share, end, unknown, names)| {
        let text = one(end, names);
        let text = match unknown.as_slice() {
            [] => text,
            doubts => {
                let doubts: Vec<String> =
                    doubts.iter().map(|step| format!("{}: {}", step.what, step.text)).collect();
                format!("{text}, if this lets it pass (cannot tell): {}", doubts.join("; "))
            }
        };
        if only { text } else { format!("{} {text}", percent(*share)) }
    });
    parts.collect::<Vec<_>>().join("; ")
}

fn same(one: &End, other: &End) -> bool {
    match (one, other) {
        (End::Arrives { .. }, End::Arrives { .. }) => true,
        (End::Refused { object: one, change: to, .. }, End::Refused { object: other, change: also, .. }) => {
            (one, to) == (other, also)
        }
        (one, other) => one == other,
    }
}

fn one(end: &End, names: &[&str]) -> String {
    match end {
        End::Arrives { .. } => {
            let shown = names.len().min(5);
            let more = names.len() - shown;
            let more = if more > 0 { format!(" or one of {more} more") } else { String::new() };
            format!("would reach {}{more}", names[..shown].join(" or "))
        }
        End::Answered { status, by, .. } => format!("would be answered with {status} by {by}"),
        End::Refused { status, flag, by, object, change } => {
            let status =
                status.map_or_else(|| "the connection is closed".into(), |status| status.to_string());
            let flag = if flag == "-" { String::new() } else { format!(" {flag}") };
            let object = object.as_ref().map_or_else(String::new, |object| format!(" [{object}]"));
            format!("would be refused ({status}{flag}) by {by}{object}: {change}")
        }
        End::Unknown { why } => format!("cannot tell: {why}"),
    }
}

/// A share as people write it.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

impl Explanation {
    /// The whole as text, a step a line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.way(&self.way, 0);
        let width =
            lines.rows.iter().filter(|row| !row.what.is_empty()).map(|row| row.indent + row.what.len()).max();
        let width = width.unwrap_or(0);
        let mut text = format!("{} from {}\n", self.request, self.from);
        for Row { indent, mark, what, rest } in lines.rows {
            let pad = " ".repeat(indent);
            if what.is_empty() {
                text += &format!("{mark} {pad}{rest}\n");
            } else {
                text += &format!("{mark} {pad}{what:<0$}  {rest}\n", width - indent);
            }
        }
        text += &self.summary;
        text.push('\n');
        text
    }
}

struct Row {
    indent: usize,
    mark: &'static str,
    what: String,
    rest: String,
}

#[derive(Default)]
struct Lines {
    rows: Vec<Row>,
    proxy: String,
}

impl Lines {
    fn way(&mut self, way: &Way, indent: usize) {
        for step in &way.steps {
            if step.proxy != self.proxy {
                self.proxy.clone_from(&step.proxy);
                if !step.proxy.is_empty() {
                    self.plain(indent, format!("at {}", step.proxy));
                }
            }
            let mark = match step.verdict {
                Verdict::Passes => " ",
                Verdict::Refuses => "X",
                Verdict::Answers => "=",
                Verdict::Unknown => "?",
            };
            let object = step.object.as_ref().map_or_else(String::new, |object| format!("  [{object}]"));
            let rest = format!("{}{object}", step.text);
            self.rows.push(Row { indent: indent + 2, mark, what: step.what.into(), rest });
            for detail in &step.details {
                self.plain(indent + 4, detail.clone());
            }
        }
        let Then::Ways(ways) = &way.then else { return };
        let mut shown: Vec<(&Way, usize)> = Vec::new();
        for way in ways {
            match shown.iter_mut().find(|(known, _)| is_like(known, way)) {
                Some((_, count)) => *count += 1,
                None => shown.push((way, 0)),
            }
        }
        for (way, more) in shown {
            let more = if more > 0 { format!(", and the same at {more} more") } else { String::new() };
            self.plain(indent + 2, format!("{} {}{more}", percent(way.share), way.label));
            self.proxy.clear();
            self.way(way, indent + 2);
        }
    }

    fn plain(&mut self, indent: usize, rest: String) {
        self.rows.push(Row { indent, mark: " ", what: String::new(), rest });
    }
}

/// Whether two ways differ only in which workload it is.
fn is_like(one: &Way, other: &Way) -> bool {
    let words = |way: &Way| way.steps.iter().map(|step| (step.what, step.verdict)).collect::<Vec<_>>();
    let is_same_end = match (&one.then, &other.then) {
        (Then::End(one), Then::End(other)) => same(one, other),
        _ => false,
    };
    is_same_end && words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::super::explanation::Trail;
    use super::*;

    fn arrival(name: &str) -> End {
        End::Arrives { workload: name.into(), address: "10.0.0.1:80".into(), request: None }
    }

    #[test]
    fn ways_that_end_alike_are_told_once() {
        let trail = Trail::new();
        let to = |share: f64, end: End| trail.fork(share, String::new()).end(end);
        let way = Trail::new().split(vec![to(0.25, arrival("a")), to(0.75, arrival("b"))]);
        assert_eq!(of(&way), "would reach a or b");
        let mixed = Trail::new().split(vec![
            to(0.5, arrival("a")),
            to(0.5, End::Answered { status: 418, flag: "FI".into(), by: "a fault".into() }),
        ]);
        assert_eq!(of(&mixed), "50 % would reach a; 50 % would be answered with 418 by a fault");
        assert_eq!(percent(0.125), "12.5 %");
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let mut trail = Trail::new();
        trail.unsure("p", "filter", "asks x");
        let way = trail.end(arrival("a"));
        assert_eq!(of(&way), "would reach a, if this lets it pass (cannot tell): filter: asks x");
    }
}
