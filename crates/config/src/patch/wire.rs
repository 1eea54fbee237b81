//! Encoded messages, taken apart and put together again.

use std::collections::BTreeMap;

use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_reflect::{Kind, MessageDescriptor};
use proto::{Any, reflect};

/// The same message with entries of maps by their keys and, on request, with
/// both parts of lengths of time even where one is zero. `None` when the bytes
/// are no such message.
pub(super) fn rewrite(
    descriptor: &MessageDescriptor,
    bytes: &[u8],
    whole_durations: bool,
) -> Option<Vec<u8>> {
    match descriptor.full_name() {
        "google.protobuf.Duration" if whole_durations => return duration(bytes),
        "google.protobuf.Any" => return any(bytes, whole_durations),
        _ => {}
    }
    let mut rest = bytes;
    let mut fields: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut maps: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    while !rest.is_empty() {
        let (number, wire) = decode_key(&mut rest).ok()?;
        let mut field = Vec::new();
        encode_key(number, wire, &mut field);
        match wire {
            WireType::Varint => encode_varint(decode_varint(&mut rest).ok()?, &mut field),
            WireType::SixtyFourBit => field.extend(take(&mut rest, 8)?),
            WireType::ThirtyTwoBit => field.extend(take(&mut rest, 4)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let content = take(&mut rest, length)?;
                let known = descriptor.get_field(number);
                if known.as_ref().is_some_and(prost_reflect::FieldDescriptor::is_map) {
                    maps.entry(number).or_default().push(fields.len());
                }
                let content = match known.map(|field| field.kind()) {
                    Some(Kind::Message(inner)) => rewrite(&inner, content, whole_durations)?,
                    _ => content.to_vec(),
                };
                encode_varint(content.len() as u64, &mut field);
                field.extend(content);
            }
            // Envoy's API has no groups.
            WireType::StartGroup | WireType::EndGroup => return None,
        }
        fields.push((number, field));
    }
    for places in maps.into_values() {
        let mut entries: Vec<Vec<u8>> =
            places.iter().map(|place| std::mem::take(&mut fields[*place].1)).collect();
        entries.sort();
        for (place, entry) in places.into_iter().zip(entries) {
            fields[place].1 = entry;
        }
    }
    Some(fields.into_iter().flat_map(|(_, field)| field).collect())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn duration(bytes: &[u8]) -> Option<Vec<u8>> {
    let duration = proto::wkt::Duration::decode(bytes).ok()?;
    let mut out = Vec::new();
    // Negative numbers have ten bytes in either field.
    for (number, value) in [(1, duration.seconds), (2, i64::from(duration.nanos))] {
        encode_key(number, WireType::Varint, &mut out);
        encode_varint(value as u64, &mut out);
    }
    Some(out)
}

fn any(bytes: &[u8], whole_durations: bool) -> Option<Vec<u8>> {
    let mut any = Any::decode(bytes).ok()?;
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if let Some(inner) = reflect::pool().get_message_by_name(name) {
        any.value = rewrite(&inner, &any.value, whole_durations)?.into();
    }
    Some(any.encode_to_vec())
}
