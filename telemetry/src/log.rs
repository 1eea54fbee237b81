//! Lines in Envoy's own log.
//!
//! Where nobody has told how (in the tests, without an Envoy) lines go to standard error.

use std::sync::OnceLock;

/// How urgent a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// For the curious.
    Info = 2,
    /// Something does not work as asked.
    Warn = 3,
    /// Something is broken.
    Error = 4,
}

static SINK: OnceLock<fn(Level, &str)> = OnceLock::new();

/// Tells where lines go.
pub fn set(sink: fn(Level, &str)) {
    let _ = SINK.set(sink);
}

/// Logs for the curious.
pub fn info(line: &str) {
    write(Level::Info, line);
}

/// Logs what does not work as asked.
pub fn warn(line: &str) {
    write(Level::Warn, line);
}

/// Logs what is broken.
pub fn error(line: &str) {
    write(Level::Error, line);
}

fn write(level: Level, line: &str) {
    match SINK.get() {
        Some(sink) => sink(level, line),
        None => eprintln!("{level:?}: istio telemetry: {line}"),
    }
}
