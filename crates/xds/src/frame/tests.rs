use proptest::prelude::*;
use prost::Message as _;
use proto::Any;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};

use super::*;

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend(body);
    frame
}

/// Events with the place where each comes.
fn events(fields: Fields, bytes: &[u8], cuts: &[usize]) -> Result<Vec<(usize, Event)>, Malformed> {
    let mut scanner = Scanner::new(fields);
    let mut found = Vec::new();
    let (mut at, mut cuts) = (0, cuts.iter().cycle());
    while at < bytes.len() {
        let end = (at + cuts.next().copied().unwrap_or(bytes.len()).max(1)).min(bytes.len());
        loop {
            let (used, event) = scanner.next(&bytes[at..end])?;
            at += used;
            match event {
                Some(event) => found.push((at, event)),
                None => break,
            }
        }
        assert_eq!(at, end, "all bytes are taken");
    }
    Ok(found)
}

fn any(type_url: &str, size: usize) -> Any {
    Any { type_url: type_url.into(), value: vec![7; size].into() }
}

#[test]
fn the_type_is_told_by_the_first_resource_and_the_rest_at_the_end() {
    let response = DiscoveryResponse {
        version_info: "7".into(),
        resources: vec![any("t/a", 3000); 3],
        type_url: "t/b".into(),
        nonce: "n-1".into(),
        ..DiscoveryResponse::default()
    };
    let bytes = [framed(&response), framed(&DiscoveryResponse::default()), framed(&response)].concat();
    let full = Seen {
        type_url: "t/b".into(),
        resource_type: "t/a".into(),
        version: "7".into(),
        nonce: "n-1".into(),
        length: u32::try_from(response.encoded_len()).unwrap(),
        ..Seen::default()
    };
    let length = framed(&response).len();
    let expected = [
        (16, Event::Type("t/a".into())),
        (length, Event::End(full.clone())),
        (length + 5, Event::End(Seen::default())),
        (length + 5 + 16, Event::Type("t/a".into())),
        (length * 2 + 5, Event::End(full)),
    ];
    for piece in [1, 2, 3, 7, 64, 4096, bytes.len()] {
        let found = events(Fields::SOTW_RESPONSE, &bytes, &[piece]).unwrap();
        assert_eq!(found, expected, "pieces of {piece}");
    }
}

fn told(fields: Fields, message: &impl prost::Message) -> Vec<String> {
    let found = events(fields, &framed(message), &[]).unwrap();
    let types = found.into_iter().filter_map(|(_, event)| match event {
        Event::Type(text) => Some(text),
        Event::End(_) => None,
    });
    types.collect()
}

#[test]
fn the_type_is_found_through_every_kind_of_envelope() {
    let inner = Resource { name: "r".into(), resource: Some(any("t/a", 10)), ..Resource::default() };
    let delta = DeltaDiscoveryResponse {
        resources: vec![Resource::default(), inner.clone()],
        type_url: "t/b".into(),
        ..DeltaDiscoveryResponse::default()
    };
    assert_eq!(told(Fields::DELTA_RESPONSE, &delta), ["t/a"], "an empty resource tells nothing");
    let wrapped = Any { type_url: WRAPPER.into(), value: inner.encode_to_vec().into() };
    let sotw = DiscoveryResponse { resources: vec![wrapped], ..DiscoveryResponse::default() };
    assert_eq!(told(Fields::SOTW_RESPONSE, &sotw), ["t/a"]);
    let empty = DiscoveryResponse { type_url: "t/b".into(), ..DiscoveryResponse::default() };
    assert_eq!(told(Fields::SOTW_RESPONSE, &empty), ["t/b"]);
    // Envelopes without end are not followed.
    let mut deep = inner;
    for _ in 0..20 {
        let any = Any { type_url: WRAPPER.into(), value: deep.encode_to_vec().into() };
        deep = Resource { resource: Some(any), ..Resource::default() };
    }
    let delta = DeltaDiscoveryResponse { resources: vec![deep], ..DeltaDiscoveryResponse::default() };
    assert_eq!(told(Fields::DELTA_RESPONSE, &delta), Vec::<String>::new());
}

#[test]
fn a_refusal_is_seen_with_its_reason() {
    let status =
        proto::google::rpc::Status { code: 13, message: "bad listener".repeat(1000), ..Default::default() };
    let delta = DeltaDiscoveryRequest {
        type_url: "x".into(),
        error_detail: Some(status.clone()),
        ..DeltaDiscoveryRequest::default()
    };
    let sotw = DiscoveryRequest { error_detail: Some(status), ..DiscoveryRequest::default() };
    for (fields, bytes) in [(Fields::DELTA_REQUEST, framed(&delta)), (Fields::SOTW_REQUEST, framed(&sotw))] {
        let found = events(fields, &bytes, &[9]).unwrap();
        let Some((_, Event::End(seen))) = found.last() else { panic!("{found:?}") };
        assert!(seen.error.as_ref().unwrap().starts_with("bad listenerbad"), "{seen:?}");
    }
}

#[test]
fn what_is_no_protobuf_is_skipped_by_its_length() {
    let good = framed(&DiscoveryRequest { type_url: "x".into(), ..DiscoveryRequest::default() });
    let bad: [&[u8]; 7] = [
        // Longer than the message; a group; field 0; a number without end; cut
        // in a number of fixed length; cut within a tag; compressed.
        &[0, 0, 0, 0, 3, 0x22, 0x7f, 0],
        &[0, 0, 0, 0, 2, 0x0b, 0],
        &[0, 0, 0, 0, 2, 0x02, 0],
        &[0, 0, 0, 0, 11, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        &[0, 0, 0, 0, 3, 0x0d, 0, 0],
        &[0, 0, 0, 0, 1, 0x80],
        &[1, 0, 0, 0, 3, 0x1f, 0x8b, 8],
    ];
    for bytes in bad {
        let both = [bytes, &good].concat();
        let found = events(Fields::SOTW_REQUEST, &both, &[1]).unwrap();
        let ends: Vec<_> = found.iter().filter(|(_, event)| matches!(event, Event::End(_))).collect();
        assert_eq!(ends.len(), 2, "{bytes:?}: {found:?}");
        let (at, Event::End(first)) = ends[0] else { panic!() };
        assert!(first.is_unreadable && *at == bytes.len(), "{bytes:?}: {found:?}");
        let Event::End(second) = &ends[1].1 else { panic!() };
        assert!(!second.is_unreadable && second.type_url == "x");
    }
    assert_eq!(events(Fields::SOTW_REQUEST, &[9, 0, 0, 0, 1, 0], &[]), Err(Malformed));
}

fn resource() -> impl Strategy<Value = Resource> {
    let any = proptest::option::of((".{0,20}", 0..300_usize));
    (".{0,8}", any, proptest::bool::ANY).prop_map(|(name, inner, wrap)| {
        let mut resource = inner.map(|(type_url, size)| any_of(&type_url, size));
        if wrap {
            let inner = Resource { resource, ..Resource::default() };
            resource = Some(Any { type_url: WRAPPER.into(), value: inner.encode_to_vec().into() });
        }
        Resource { name, resource, ..Resource::default() }
    })
}

fn any_of(type_url: &str, size: usize) -> Any {
    any(type_url, size)
}

fn response() -> impl Strategy<Value = DeltaDiscoveryResponse> {
    let resources = proptest::collection::vec(resource(), 0..5);
    (resources, ".{0,30}", ".{0,10}", proptest::collection::vec(".{0,9}", 0..3)).prop_map(
        |(resources, type_url, nonce, removed_resources)| DeltaDiscoveryResponse {
            resources,
            type_url,
            nonce,
            removed_resources,
            ..DeltaDiscoveryResponse::default()
        },
    )
}

fn sotw(delta: &DeltaDiscoveryResponse) -> DiscoveryResponse {
    DiscoveryResponse {
        resources: delta.resources.iter().filter_map(|resource| resource.resource.clone()).collect(),
        type_url: delta.type_url.clone(),
        nonce: delta.nonce.clone(),
        ..DiscoveryResponse::default()
    }
}

fn first_type(resources: &[Any]) -> Option<String> {
    resources.iter().find_map(|any| {
        if any.type_url != WRAPPER {
            return (!any.type_url.is_empty()).then(|| any.type_url.clone());
        }
        let inner = Resource::decode(any.value.clone()).unwrap().resource?;
        (!inner.type_url.is_empty() && inner.type_url != WRAPPER).then_some(inner.type_url)
    })
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut_the_events_are_the_same(
        messages in proptest::collection::vec(response(), 0..5),
        is_delta: bool,
        cuts in proptest::collection::vec(1..200_usize, 1..20),
    ) {
        let (fields, bytes): (_, Vec<u8>) = if is_delta {
            (Fields::DELTA_RESPONSE, messages.iter().flat_map(framed).collect())
        } else {
            (Fields::SOTW_RESPONSE, messages.iter().map(sotw).flat_map(|message| framed(&message)).collect())
        };
        let whole = events(fields, &bytes, &[]).unwrap();
        prop_assert_eq!(&events(fields, &bytes, &cuts).unwrap(), &whole);
        // And they are what the messages say.
        let mut found = whole.into_iter().map(|(_, event)| event).peekable();
        for message in &messages {
            let resources: Vec<Any> = sotw(message).resources;
            let told = first_type(&resources).or((!message.type_url.is_empty()).then(|| message.type_url.clone()));
            if let Some(told) = told {
                prop_assert_eq!(found.next(), Some(Event::Type(told)));
            }
            let Some(Event::End(seen)) = found.next() else { panic!("an end") };
            prop_assert_eq!((&seen.type_url, &seen.nonce), (&message.type_url, &message.nonce));
            prop_assert!(!seen.is_unreadable);
        }
        prop_assert_eq!(found.next(), None);
    }

    #[test]
    fn no_bytes_break_the_scanner(
        body in proptest::collection::vec(any_byte(), 0..600),
        with_frame: bool,
        cuts in proptest::collection::vec(1..50_usize, 1..9),
    ) {
        let mut bytes = Vec::new();
        if with_frame {
            bytes.push(0);
            bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        }
        bytes.extend(&body);
        for fields in
            [Fields::SOTW_REQUEST, Fields::SOTW_RESPONSE, Fields::DELTA_REQUEST, Fields::DELTA_RESPONSE]
        {
            let whole = events(fields, &bytes, &[]);
            prop_assert_eq!(events(fields, &bytes, &cuts), whole.clone());
            if with_frame {
                let (at, last) = whole.unwrap().pop().unwrap();
                prop_assert!(matches!(last, Event::End(_)) && at == bytes.len());
            }
        }
    }
}

/// Bytes that look like fields more often than chance has it.
fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        proptest::sample::select(vec![0x0a_u8, 0x12, 0x1a, 0x22, 0x2a, 2, 4, 8]),
        proptest::num::u8::ANY
    ]
}
