//! What is written on a WorkloadEntry about its proxy, and what changes it.
//! Functions of their arguments: entries are JSON, as the API server has them, so
//! that nothing is lost of what this program does not know.

use std::time::Duration;

use names::annotation::{
    AUTO_REGISTRATION_GROUP, CONNECTED_AT, DISCONNECTED_AT, HEALTH_CHECKS, WORKLOAD_CONTROLLER,
};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Condition of an entry whose proxy tells how the workload is.
const HEALTHY: &str = "Healthy";

/// How a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// Why it is not well; `None` when it is.
    pub(super) why: Option<String>,
    /// When that was said.
    pub(super) at: OffsetDateTime,
}

/// What of an entry says whether it is still in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks<'a> {
    group: Option<&'a str>,
    controller: Option<&'a str>,
    connected_at: Option<&'a str>,
    disconnected_at: Option<&'a str>,
    has_health: bool,
}

impl<'a> Marks<'a> {
    /// Of an entry as the API server has it.
    pub(super) fn of_json(entry: &'a Value) -> Self {
        Self::new(|name| text(entry, name), condition(entry).is_some())
    }

    /// Of an object in force.
    pub(super) fn of_object(meta: &'a config::Meta, entry: &config::kube::WorkloadEntry) -> Self {
        let has_health = entry.status.conditions.iter().any(|condition| condition.kind == HEALTHY);
        Self::new(|name| meta.annotations.get(name).map(String::as_str), has_health)
    }

    fn new(get: impl Fn(&str) -> Option<&'a str>, has_health: bool) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        Self {
            group: get(AUTO_REGISTRATION_GROUP),
            controller: get(WORKLOAD_CONTROLLER),
            connected_at: get(CONNECTED_AT),
            disconnected_at: get(DISCONNECTED_AT),
            has_health,
        }
    }

    /// Whether it was made for a workload that has registered itself.
    pub(super) fn is_registered(&self) -> bool {
        self.group.is_some()
    }

    /// Whether its proxy is away for longer than `grace`, or, if nobody has seen it go,
    /// was connected for longer than connections last (`age`). Only entries that were
    /// made here, and those whose health was told, are ever due.
    pub(super) fn is_due(&self, now: OffsetDateTime, grace: Duration, age: Option<Duration>) -> bool {
        let is_told = self.controller.is_some() && self.has_health;
        if !self.is_registered() && !is_told {
            return false;
        }
        let is_past = |at: &str, limit: Duration| parse(at).map(|at| now - at > limit);
        match (self.connected_at, self.disconnected_at) {
            (Some(at), _) => age.is_some_and(|age| is_past(at, age).unwrap_or(false)),
            (None, Some(at)) => is_past(at, grace).unwrap_or(true),
            (None, None) => false,
        }
    }
}

/// The entry with its proxy connected here; `None` when nothing is to be written:
/// it says so already, or the proxy has connected to another control plane later.
pub(super) fn connected(entry: &Value, controller: &str, at: OffsetDateTime) -> Option<Value> {
    let time = |name| text(entry, name).and_then(parse);
    if time(DISCONNECTED_AT).is_some_and(|left| at < left) {
        return None;
    }
    let last = time(CONNECTED_AT);
    let is_mine = text(entry, WORKLOAD_CONTROLLER) == Some(controller);
    if last.is_some_and(|last| at < last || is_mine && at == last) {
        return None;
    }
    let mut entry = entry.clone();
    let annotations = annotations(&mut entry)?;
    annotations.insert(WORKLOAD_CONTROLLER.into(), controller.into());
    annotations.insert(CONNECTED_AT.into(), format(at).into());
    annotations.remove(DISCONNECTED_AT);
    Some(entry)
}

/// The entry with its proxy gone, which had connected here last at `since`; `None` when
/// the proxy is connected again, here or elsewhere.
pub(super) fn disconnected(
    entry: &Value,
    controller: &str,
    since: OffsetDateTime,
    at: OffsetDateTime,
) -> Option<Value> {
    let time = |name| text(entry, name).and_then(parse);
    let (last, left) = (time(CONNECTED_AT), time(DISCONNECTED_AT));
    let is_mine = text(entry, WORKLOAD_CONTROLLER) == Some(controller);
    // That it has come may not have been written, since nobody answered.
    let is_unwritten = last.or(left).is_none_or(|known| known < since);
    if last.is_some_and(|last| last > since || at < last) || !is_mine && !is_unwritten {
        return None;
    }
    let mut entry = entry.clone();
    let annotations = annotations(&mut entry)?;
    annotations.remove(CONNECTED_AT);
    annotations.insert(WORKLOAD_CONTROLLER.into(), controller.into());
    annotations.insert(DISCONNECTED_AT.into(), format(at).into());
    Some(entry)
}

/// The entry with what its proxy says of the workload; `None` when the proxy is
/// connected elsewhere, or something newer is known.
pub(super) fn with_health(entry: &Value, controller: &str, health: &Health) -> Option<Value> {
    if text(entry, WORKLOAD_CONTROLLER) != Some(controller) {
        return None;
    }
    let known = condition(entry);
    let probed = known.and_then(|known| known["lastProbeTime"].as_str()).and_then(parse);
    if probed.is_some_and(|probed| probed > health.at) {
        return None;
    }
    let at = format(health.at);
    let mut new = json!({
        "type": HEALTHY,
        "status": if health.why.is_none() { "True" } else { "False" },
        "lastProbeTime": at,
        "lastTransitionTime": at,
    });
    if let Some(why) = &health.why {
        new["message"] = why.as_str().into();
    }
    let mut entry = entry.clone();
    let all = conditions(&mut entry)?;
    match all.iter_mut().find(|one| one["type"] == HEALTHY) {
        Some(known) => *known = new,
        None => all.push(new),
    }
    Some(entry)
}

/// The entry without what was said of the workload; `None` when nothing was.
pub(super) fn without_health(entry: &Value) -> Option<Value> {
    condition(entry)?;
    let mut entry = entry.clone();
    conditions(&mut entry)?.retain(|one| one["type"] != HEALTHY);
    Some(entry)
}

/// Whether its proxy may tell how the workload is: whatever the annotation says, it is there.
pub(super) fn takes_health(meta: &config::Meta) -> bool {
    meta.annotations.contains_key(HEALTH_CHECKS)
}

/// The moment as annotations have it.
pub(super) fn format(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn text<'a>(entry: &'a Value, annotation: &str) -> Option<&'a str> {
    entry.get("metadata")?.get("annotations")?.get(annotation)?.as_str()
}

fn condition(entry: &Value) -> Option<&Value> {
    let all = entry.get("status")?.get("conditions")?.as_array()?;
    all.iter().find(|one| one["type"] == HEALTHY)
}

fn annotations(entry: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = entry.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut()
}

fn conditions(entry: &mut Value) -> Option<&mut Vec<Value>> {
    let status = entry.as_object_mut()?.entry("status").or_insert_with(|| json!({}));
    if !status.is_object() {
        *status = json!({});
    }
    let conditions = status.as_object_mut()?.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    conditions.as_array_mut()
}

#[cfg(test)]
mod tests;
