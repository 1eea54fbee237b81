//! One log line of one event.

use std::fmt::{self, Write as _};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use super::levels::scope;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A message and its fields, gathered from an event.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Parts {
    fn record(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}").into());
    }
}

fn parts(event: &Event<'_>) -> Parts {
    let mut parts = Parts::default();
    event.record(&mut parts);
    parts
}

fn level(event: &Event<'_>) -> &'static str {
    match *event.metadata().level() {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
    }
}

fn stamp(now: OffsetDateTime) -> String {
    // The format holds only numbers, which always can be written.
    now.format(TIME).unwrap_or_default()
}

/// `DIR/FILE:LINE` of the event's place in the source.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or("unknown");
    let short = file.rmatch_indices('/').nth(1).map_or(file, |(at, _)| &file[at + 1..]);
    format!("{short}:{}", metadata.line().unwrap_or_default())
}

/// The text form, with its line end.
pub(super) fn text(event: &Event<'_>, now: OffsetDateTime, with_caller: bool) -> String {
    let Parts { message, fields } = parts(event);
    let mut line = format!("{}\t{}", stamp(now), level(event));
    if let Some(scope) = scope(event.metadata().target()) {
        line.push('\t');
        line.push_str(scope);
    }
    if with_caller {
        line.push('\t');
        line.push_str(&caller(event.metadata()));
    }
    line.push('\t');
    push_one_line(&mut line, &message);
    let mut before = '\t';
    for (name, value) in fields {
        line.push(before);
        before = ' ';
        line.push_str(name);
        line.push('=');
        match value {
            Value::String(text) => push_one_line(&mut line, &text),
            // Writing to a String cannot fail.
            other => write!(line, "{other}").unwrap_or_default(),
        }
    }
    line.push('\n');
    line
}

/// What others send us must not look like a line of its own.
fn push_one_line(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

/// The JSON form, with its line end; the keys stand in the order of Istio's.
pub(super) fn json(event: &Event<'_>, now: OffsetDateTime, with_caller: bool) -> String {
    let Parts { message, fields } = parts(event);
    let mut line = String::with_capacity(128);
    let mut put = |name: &str, value: &Value| {
        line.push(if line.is_empty() { '{' } else { ',' });
        // Writing to a String cannot fail.
        write!(line, "{}:{value}", Value::from(name)).ok();
    };
    put("level", &level(event).into());
    put("time", &stamp(now).into());
    if let Some(scope) = scope(event.metadata().target()) {
        put("scope", &scope.into());
    }
    if with_caller {
        put("caller", &caller(event.metadata()).into());
    }
    put("msg", &message.into());
    for (name, value) in &fields {
        put(name, value);
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::*;

    /// Keeps both forms of what is logged.
    struct Both(Arc<Mutex<Vec<String>>>, bool);

    impl<S: Subscriber> Layer<S> for Both {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let now = OffsetDateTime::from_unix_timestamp_nanos(1_795_600_000_123_456_789).unwrap();
            self.0.lock().unwrap().extend([text(event, now, self.1), json(event, now, self.1)]);
        }
    }

    fn lines(with_caller: bool, log: impl Fn()) -> Vec<String> {
        let kept = Arc::default();
        let layer = Both(Arc::clone(&kept), with_caller);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let lines = kept.lock().unwrap();
        lines.clone()
    }

    #[test]
    fn lines_are_those_of_istio() {
        let lines = lines(false, || {
            tracing::warn!(target: "ads", count = 3, is_new = true, who = "a b", "hello");
            tracing::info!("plain");
        });
        assert_eq!(
            lines,
            [
                "2026-11-25T09:46:40.123456Z\twarn\tads\thello\tcount=3 is_new=true who=a b\n",
                "{\"level\":\"warn\",\"time\":\"2026-11-25T09:46:40.123456Z\",\"scope\":\"ads\",\"msg\":\"hello\",\
                 \"count\":3,\"is_new\":true,\"who\":\"a b\"}\n",
                "2026-11-25T09:46:40.123456Z\tinfo\tplain\n",
                "{\"level\":\"info\",\"time\":\"2026-11-25T09:46:40.123456Z\",\"msg\":\"plain\"}\n",
            ]
        );
    }

    #[test]
    fn the_caller_stands_before_the_message() {
        let lines = lines(true, || tracing::error!(target: "sds", "x"));
        assert!(lines[0].contains("\terror\tsds\tlog/format.rs:"), "{}", lines[0]);
        assert!(lines[0].ends_with("\tx\n"), "{}", lines[0]);
        assert!(lines[1].contains("\"scope\":\"sds\",\"caller\":\"log/format.rs:"), "{}", lines[1]);
    }

    #[test]
    fn a_line_stays_one_line() {
        let mut line = String::new();
        push_one_line(&mut line, "a\nb\u{1b}[0m\tc");
        assert_eq!(line, "a\\nb\\u{1b}[0m\tc");
    }
}
