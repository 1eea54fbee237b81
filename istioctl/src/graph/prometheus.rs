//! The text in which metrics are told to Prometheus.

use std::collections::BTreeMap;

/// A value with its name and labels.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) labels: BTreeMap<&'a str, String>,
    pub(super) value: f64,
}

/// The samples of a page; lines that are none are left out.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside.trim_start();
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once('=')?;
            let (value, after) = quoted(after.trim_start())?;
            labels.insert(label.trim(), value);
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        rest = &rest[1..];
    }
    // A time may follow.
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some(Sample { name, labels, value })
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_labels_with_any_text() {
        let text = "# TYPE a counter\na{b=\"c,\\\"}\\\\\\n\",d=\"\",} 3 1700000000\nplain 1.5e3\nbroken{a=\"\nnan NaN\n\n";
        let all: Vec<Sample<'_>> = samples(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].labels, BTreeMap::from([("b", "c,\"}\\\n".to_owned()), ("d", String::new())]));
        assert_eq!((all[0].name, all[0].value, all[1].value), ("a", 3.0, 1500.0));
    }
}
