//! Answers of other servers, kept for as long as they say, and longer for when
//! nobody answers (RFC 8767).

use std::collections::HashMap;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;

use super::packet::{self, Packet};
use super::query::Query;

/// Answers that are kept; the one that was not used for longest makes room.
const ENTRIES: usize = 512;
/// Largest answer that is kept, in bytes.
const LARGEST: usize = 4096;
/// Longest time that an answer is fresh, whatever it says: hosts behind it may
/// have moved, and nobody expects a cache here.
const FRESH: Duration = Duration::from_secs(60);
/// The same for answers that there is nothing.
const FRESH_NEGATIVE: Duration = Duration::from_secs(5);
/// How long an answer may be used when nobody gives a newer one.
const STALE: Duration = Duration::from_secs(3600);
/// Time to live of such an answer, in seconds.
const STALE_TTL: u32 = 30;
/// After a failure, how long an old answer is used without a new try.
const RETRY: Duration = Duration::from_secs(5);

/// What answers depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    question: Box<[u8]>,
    flags: u8,
}

impl Key {
    /// The key of a request; `None` for one with options, whose answer is for
    /// that client alone.
    pub(super) fn of(query: &Query) -> Option<Self> {
        if query.abilities.is_some_and(|abilities| abilities.has_options) {
            return None;
        }
        let mut question: Box<[u8]> = query.question_bytes().into();
        let name = question.len().checked_sub(4)?;
        question[..name].make_ascii_lowercase();
        let bits = [
            query.metadata.recursion_desired,
            query.metadata.checking_disabled,
            query.metadata.authentic_data,
            query.abilities.is_some(),
            query.abilities.is_some_and(|abilities| abilities.signatures),
        ];
        let flags = bits.into_iter().fold(0, |flags, bit| flags << 1 | u8::from(bit));
        Some(Self { question, flags })
    }
}

#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    stored: Instant,
    fresh: Duration,
    used: Instant,
    /// No new try before that.
    retry: Option<Instant>,
}

/// What the cache has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// An answer that is as good as a new one.
    Fresh(Vec<u8>),
    /// An old one, for when there is no new one.
    Stale(Vec<u8>),
}

/// The cache; empty, it needs no memory.
#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<Key, Entry>);

impl Cache {
    /// The answer to a request, with its id and its spelling of the name.
    pub(super) fn get(&mut self, key: &Key, query: &Query, now: Instant) -> Option<Cached> {
        let entry = self.0.get_mut(key)?;
        let age = now - entry.stored;
        if age > STALE {
            self.0.remove(key);
            return None;
        }
        entry.used = now;
        let mut bytes = entry.bytes.to_vec();
        let packet = Packet::parse(&bytes).ok()?;
        let at = packet.question.as_ref().map(|question| question.at.clone());
        if age < entry.fresh {
            let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
            packet::set_ttls(&mut bytes, &packet, |ttl| ttl.saturating_sub(seconds).max(1));
        } else {
            packet::set_ttls(&mut bytes, &packet, |_| STALE_TTL);
        }
        packet::mix_addresses(&mut bytes, &packet);
        packet::set_id(&mut bytes, query.metadata.id);
        if let Some(place) = at.and_then(|at| bytes.get_mut(at))
            && place.len() == query.question_bytes().len()
        {
            place.copy_from_slice(query.question_bytes());
        }
        let is_good = age < entry.fresh || entry.retry.is_some_and(|retry| now < retry);
        Some(if is_good { Cached::Fresh(bytes) } else { Cached::Stale(bytes) })
    }

    /// Keeps an answer, if it may be kept.
    pub(super) fn put(&mut self, key: Key, bytes: &[u8], now: Instant) {
        let Some(fresh) = lifetime(bytes) else { return };
        if self.0.len() >= ENTRIES
            && !self.0.contains_key(&key)
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        let entry = Entry { bytes: bytes.into(), stored: now, fresh, used: now, retry: None };
        self.0.insert(key, entry);
    }

    /// Nobody answered: an old answer is good for a moment.
    pub(super) fn failed(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.0.get_mut(key) {
            entry.retry = Some(now + RETRY);
        }
    }
}

/// How long an answer is fresh; `None` for one that must not be kept.
fn lifetime(bytes: &[u8]) -> Option<Duration> {
    if bytes.len() > LARGEST {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    packet.question.as_ref()?;
    let metadata = packet.header.metadata;
    if metadata.truncation {
        return None;
    }
    let records = || packet.records.iter().filter(|record| record.kind != RecordType::OPT);
    let ttl =
        |section: usize| records().filter(|record| record.section <= section).map(|record| record.ttl).min();
    let has_answer = records().any(|record| record.section == 0 && record.kind != RecordType::CNAME)
        || packet.question.as_ref()?.kind == RecordType::CNAME
            && metadata.response_code == ResponseCode::NoError;
    let (seconds, limit) = match metadata.response_code {
        ResponseCode::NoError if has_answer => (ttl(1)?, FRESH),
        ResponseCode::NoError | ResponseCode::NXDomain => {
            // How long that holds is the last number of the zone's record.
            let soa = records().find(|record| record.section == 1 && record.kind == RecordType::SOA)?;
            let data = bytes.get(soa.data.clone())?;
            let minimum = u32::from_be_bytes(*data.last_chunk()?);
            (ttl(1)?.min(minimum), FRESH_NEGATIVE)
        }
        _ => return None,
    };
    let fresh = Duration::from_secs(seconds.into()).min(limit);
    (!fresh.is_zero()).then_some(fresh)
}

#[cfg(test)]
mod tests;
