use proptest::prelude::*;

use super::{LONGEST, Workload};
use crate::node::Node;

/// What a proxy of Istio 1.5 sent: unsorted, and with much that nobody reads.
const RECORDED: &str = concat!(
    "ChIKBWlzdGlvEgkaB3NpZGVjYXIKDgoIU1RTX1BPUlQSAhoAChEKB01FU0hfSUQSBhoEbWVzaAocChZTVEFDS0RSSVZFUl",
    "9UT0tFTl9GSUxFEgIaAAowCihTVEFDS0RSSVZFUl9MT0dHSU5HX0VYUE9SVF9JTlRFUlZBTF9TRUNTEgQaAjIwCjYKDElO",
    "U1RBTkNFX0lQUxImGiQxMC41Mi4wLjM0LGZlODA6OmEwNzU6MTFmZjpmZTVlOmYxY2QKFAoDYXBwEg0aC3Byb2R1Y3RwYW",
    "dlCisKG1NFQ1VSRV9TVEFDS0RSSVZFUl9FTkRQT0lOVBIMGgpsb2NhbGhvc3Q6Cl0KGmt1YmVybmV0ZXMuaW8vbGltaXQt",
    "cmFuZ2VyEj8aPUxpbWl0UmFuZ2VyIHBsdWdpbiBzZXQ6IGNwdSByZXF1ZXN0IGZvciBjb250YWluZXIgcHJvZHVjdHBhZ2",
    "UKIQoNV09SS0xPQURfTkFNRRIQGg5wcm9kdWN0cGFnZS12MQofChFJTlRFUkNFUFRJT05fTU9ERRIKGghSRURJUkVDVAoe",
    "CgpDTFVTVEVSX0lEEhAaDmNsaWVudC1jbHVzdGVyCkkKD0lTVElPX1BST1hZX1NIQRI2GjRpc3Rpby1wcm94eTo0N2U0NT",
    "U5YjhlNGYwZDUxNmMwZDE3YjIzM2QxMjdhM2RlYjNkN2NlClIKBU9XTkVSEkkaR2t1YmVybmV0ZXM6Ly9hcGlzL2FwcHMv",
    "djEvbmFtZXNwYWNlcy9kZWZhdWx0L2RlcGxveW1lbnRzL3Byb2R1Y3RwYWdlLXYxCsEBCgZMQUJFTFMStgEqswEKFAoDYX",
    "BwEg0aC3Byb2R1Y3RwYWdlCiEKEXBvZC10ZW1wbGF0ZS1oYXNoEgwaCjg0OTc1YmM3NzgKMwofc2VydmljZS5pc3Rpby5p",
    "by9jYW5vbmljYWwtbmFtZRIQGg5wcm9kdWN0cGFnZS12MQoyCiNzZXJ2aWNlLmlzdGlvLmlvL2Nhbm9uaWNhbC1yZXZpc2",
    "lvbhILGgl2ZXJzaW9uLTEKDwoHdmVyc2lvbhIEGgJ2MQopCgROQU1FEiEaH3Byb2R1Y3RwYWdlLXYxLTg0OTc1YmM3Nzgt",
    "cHh6MncKLQoIUE9EX05BTUUSIRofcHJvZHVjdHBhZ2UtdjEtODQ5NzViYzc3OC1weHoydwoaCg1JU1RJT19WRVJTSU9OEg",
    "kaBzEuNS1kZXYKHwoVSU5DTFVERV9JTkJPVU5EX1BPUlRTEgYaBDkwODAKmwEKEVBMQVRGT1JNX01FVEFEQVRBEoUBKoIB",
    "CiYKFGdjcF9na2VfY2x1c3Rlcl9uYW1lEg4aDHRlc3QtY2x1c3RlcgocCgxnY3BfbG9jYXRpb24SDBoKdXMtZWFzdDQtYg",
    "odCgtnY3BfcHJvamVjdBIOGgx0ZXN0LXByb2plY3QKGwoSZ2NwX3Byb2plY3RfbnVtYmVyEgUaAzEyMwopCg9TRVJWSUNF",
    "X0FDQ09VTlQSFhoUYm9va2luZm8tcHJvZHVjdHBhZ2UKHQoQQ09ORklHX05BTUVTUEFDRRIJGgdkZWZhdWx0Cg8KB3Zlcn",
    "Npb24SBBoCdjEKHgoYU1RBQ0tEUklWRVJfUk9PVF9DQV9GSUxFEgIaAAohChFwb2QtdGVtcGxhdGUtaGFzaBIMGgo4NDk3",
    "NWJjNzc4Ch8KDkFQUF9DT05UQUlORVJTEg0aC3Rlc3QsYm9uemFpChYKCU5BTUVTUEFDRRIJGgdkZWZhdWx0CjMKK1NUQU",
    "NLRFJJVkVSX01PTklUT1JJTkdfRVhQT1JUX0lOVEVSVkFMX1NFQ1MSBBoCMjA",
);

/// The same workload as a proxy of today sends it.
const SENT: &str = concat!(
    "Ch4KCkNMVVNURVJfSUQSEBoOY2xpZW50LWNsdXN0ZXIKngEKBkxBQkVMUxKTASqQAQoUCgNhcHASDRoLcHJvZHVjdHBhZ2",
    "UKMwofc2VydmljZS5pc3Rpby5pby9jYW5vbmljYWwtbmFtZRIQGg5wcm9kdWN0cGFnZS12MQoyCiNzZXJ2aWNlLmlzdGlv",
    "LmlvL2Nhbm9uaWNhbC1yZXZpc2lvbhILGgl2ZXJzaW9uLTEKDwoHdmVyc2lvbhIEGgJ2MQopCgROQU1FEiEaH3Byb2R1Y3",
    "RwYWdlLXYxLTg0OTc1YmM3NzgtcHh6MncKFgoJTkFNRVNQQUNFEgkaB2RlZmF1bHQKUgoFT1dORVISSRpHa3ViZXJuZXRl",
    "czovL2FwaXMvYXBwcy92MS9uYW1lc3BhY2VzL2RlZmF1bHQvZGVwbG95bWVudHMvcHJvZHVjdHBhZ2UtdjEKIQoNV09SS0",
    "xPQURfTkFNRRIQGg5wcm9kdWN0cGFnZS12MQ==",
);

fn productpage() -> Workload {
    Workload {
        instance: "productpage-v1-84975bc778-pxz2w".into(),
        namespace: "default".into(),
        name: "productpage-v1".into(),
        cluster: "client-cluster".into(),
        canonical_name: "productpage-v1".into(),
        canonical_revision: "version-1".into(),
        app: "productpage".into(),
        version: "v1".into(),
        kind: "deployment".into(),
    }
}

#[test]
fn what_istio_recorded_is_read() {
    assert_eq!(Workload::decode(RECORDED.as_bytes()), Some(productpage()));
    assert_eq!(Workload::decode(SENT.as_bytes()), Some(productpage()));
}

#[test]
fn what_is_written_has_sorted_keys_and_padding() {
    assert_eq!(productpage().encode(), SENT);
    let alone = Workload { instance: "a".into(), ..Workload::default() };
    assert_eq!(alone.encode(), "CgwKBkxBQkVMUxICKgAKCwoETkFNRRIDGgFh", "labels are there even when empty");
}

#[test]
fn the_owner_tells_the_kind() {
    let node = |owner: &str| Node { workload_name: "a".into(), owner: owner.into(), ..Node::default() };
    let kind = |owner| Workload::of(&node(owner)).kind;
    assert_eq!(kind("kubernetes://apis/batch/v1/namespaces/x/jobs/a"), "job");
    assert_eq!(kind("kubernetes://apis/v1/namespaces/x/pods/a"), "pod");
    assert_eq!(kind("kubernetes://apis/apps/v1/namespaces/x/statefulsets/a"), "");
    assert_eq!((kind(""), kind("a"), kind("é/a")), (String::new(), String::new(), String::new()));
}

#[test]
fn an_endpoint_tells_five_things() {
    let known = Workload::of_endpoint("w;n;c;r;k").unwrap();
    assert_eq!((known.name, known.namespace, known.cluster), ("w".into(), "n".into(), "k".into()));
    assert_eq!((known.canonical_name, known.canonical_revision), ("c".into(), "r".into()));
    let known = Workload::of_endpoint("w;n;c;r;k;a;v").unwrap();
    assert_eq!((known.cluster.as_str(), known.app.as_str(), known.version.as_str()), ("k", "a", "v"));
    assert_eq!(Workload::of_endpoint("w;n;c;r"), None);
    assert_eq!(Workload::of_endpoint(""), None);
}

#[test]
fn the_short_form_tells_the_same() {
    let own = productpage();
    let short = own.short().unwrap();
    assert!(short.len() < 140 && 3 * short.len() < own.encode().len(), "{short}");
    assert_eq!(Workload::decode(short.as_bytes()), Some(own));
    for bad in ["a;b", "a b", "é", "a\n"] {
        assert_eq!(Workload { app: bad.into(), ..Workload::default() }.short(), None, "{bad:?}");
    }
}

#[test]
fn a_header_that_is_too_long_means_nothing() {
    let long = "A".repeat(LONGEST + 4);
    assert_eq!(Workload::decode(long.as_bytes()), None);
}

proptest! {
    #[test]
    fn any_header_is_harmless(header in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Workload::decode(&header);
    }

    #[test]
    fn any_struct_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        use base64::Engine as _;
        let _ = Workload::decode(super::ENCODER.encode(bytes).as_bytes());
    }

    #[test]
    fn a_damaged_header_is_harmless(at in 0usize..SENT.len(), with in any::<u8>()) {
        let mut header = SENT.as_bytes().to_vec();
        header[at] = with;
        let _ = Workload::decode(&header);
    }

    #[test]
    fn what_is_written_is_read(texts in prop::collection::vec("[^/]{0,40}", 8)) {
        let [instance, namespace, name, cluster, canonical_name, canonical_revision, app, version] =
            <[String; 8]>::try_from(texts).unwrap();
        let workload = Workload {
            instance, namespace, name, cluster, canonical_name, canonical_revision, app, version,
            kind: String::new(),
        };
        prop_assert_eq!(Workload::decode(workload.encode().as_bytes()), Some(workload));
    }
}
