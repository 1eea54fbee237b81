use names::TypeUrl;
use proptest::prelude::*;
use prost::Message as _;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};

use super::*;
use crate::frame::{PREFIX, framed};
use crate::wire::{to_delta, to_sotw};

fn answer() -> impl Strategy<Value = Answer> {
    let length = prop_oneof![
        Just(0_usize),
        1..200_usize,
        LARGE - 2..LARGE + 2,
        LARGE..3 * LARGE,
        PIECE - 200..PIECE + 2,
        Just(3 * PIECE),
    ];
    let resource = ("[a-z|.]{0,40}", length, any::<u8>())
        .prop_map(|(name, length, byte)| Resource::from_bytes(name, vec![byte; length].into()));
    let type_url = prop_oneof![
        Just(TypeUrl::Cluster),
        Just(TypeUrl::Endpoint),
        Just(TypeUrl::from("")),
        Just(TypeUrl::from("type.googleapis.com/a.type.that.nobody.knows")),
    ];
    let removed = prop::collection::vec(
        (any::<u8>(), 0..3000_usize)
            .prop_map(|(byte, length)| Arc::from(char::from(byte % 26 + b'a').to_string().repeat(length))),
        0..10,
    );
    let resources = prop::collection::vec(resource, 0..10);
    (type_url, "[0-9a-f-]{0,20}", "[ -~]{0,20}", resources, removed).prop_map(
        |(type_url, nonce, version, resources, removed)| Answer {
            type_url,
            nonce,
            version,
            resources,
            removed,
        },
    )
}

fn bytes_of(variant: Variant, answer: &Answer) -> Vec<u8> {
    Pieces::new(variant, answer.clone()).flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_pieces_are_what_prost_writes(answer in answer()) {
        let sotw = bytes_of(Variant::Sotw, &answer);
        prop_assert_eq!(DiscoveryResponse::decode(&sotw[PREFIX..]).unwrap(), to_sotw(answer.clone()));
        prop_assert!(sotw == framed(&to_sotw(answer.clone())));
        let delta = bytes_of(Variant::Delta, &answer);
        prop_assert_eq!(DeltaDiscoveryResponse::decode(&delta[PREFIX..]).unwrap(), to_delta(answer.clone()));
        prop_assert!(delta == framed(&to_delta(answer)));
    }

    #[test]
    fn no_piece_is_empty_or_larger_than_a_frame_but_by_a_large_resource(answer in answer()) {
        for variant in [Variant::Sotw, Variant::Delta] {
            for piece in Pieces::new(variant, answer.clone()) {
                let is_resource = answer.resources.iter().any(|resource| resource.body == piece);
                prop_assert!(!piece.is_empty());
                prop_assert!(piece.len() <= PIECE || is_resource);
            }
        }
    }
}

#[test]
fn large_resources_are_not_copied() {
    let body = Bytes::from(vec![7; LARGE]);
    let answer = Answer {
        type_url: TypeUrl::Listener,
        nonce: "n".into(),
        version: "v".into(),
        resources: vec![Resource::from_bytes("a", body.clone()), Resource::from_bytes("b", body.clone())],
        removed: Vec::new(),
    };
    for variant in [Variant::Sotw, Variant::Delta] {
        let pieces = Pieces::new(variant, answer.clone());
        let same = pieces.filter(|piece| piece.as_ptr() == body.as_ptr() && piece.len() == body.len());
        assert_eq!(same.count(), 2);
    }
}

#[test]
fn many_small_resources_share_their_pieces() {
    let resources = (0..300).map(|i| Resource::from_bytes(format!("cluster-{i}"), vec![1; 900].into()));
    let answer = Answer {
        type_url: TypeUrl::Cluster,
        nonce: String::new(),
        version: String::new(),
        resources: resources.collect(),
        removed: Vec::new(),
    };
    let total = bytes_of(Variant::Delta, &answer).len();
    assert!(Pieces::new(Variant::Delta, answer).count() <= total / (PIECE - 2000) + 1);
}
