use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use config::{Store, yaml};
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use prost::Message as _;
use proto::envoy::config::core::v3::Node;

use super::*;
use crate::Settings;

/// A certificate and its key.
static MATERIAL: LazyLock<(String, String)> = LazyLock::new(|| {
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let (issuer, _) = Issuer::self_signed("cluster.local", day, now).unwrap();
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let san = [San::Dns("shop.example".into())];
    let chain = issuer.issue(&Csr::of_key(&key).unwrap(), &san, day, now).unwrap();
    (chain[0].clone(), key.to_pkcs8_pem().to_string())
});

fn chain() -> &'static str {
    &MATERIAL.0
}

fn key() -> &'static str {
    &MATERIAL.1
}

fn secret_object(namespace: &str, name: &str, values: &[(&str, &str)]) -> String {
    let value = |(name, text): &(&str, &str)| format!("  {name}: {text:?}\n");
    let values: String = values.iter().map(value).collect();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n{values}---\n"
    )
}

fn snapshot(objects: &str) -> Snapshot {
    let mut store = Store::default();
    for object in yaml::read("mesh.yaml", objects).objects {
        store.apply(Arc::new(object));
    }
    Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"))
}

fn proxy(namespace: &str) -> Proxy {
    let id = format!("router~10.0.0.1~edge.{namespace}~{namespace}.svc.cluster.local");
    Proxy::from_node(&Node { id, ..Node::default() }).unwrap()
}

fn ask(snapshot: &Snapshot, namespace: &str, proven: &[&str], name: &str) -> Result<Secret, Refusal> {
    let wanted = Wanted::Names(BTreeSet::from([name.into()]));
    let proven: Vec<String> = proven.iter().map(|&name| name.to_owned()).collect();
    let (made, mut refused) = secrets(snapshot, &proxy(namespace), &proven, &proven, &wanted);
    assert_eq!(made.len() + refused.len(), 1);
    match made.first() {
        Some(made) => Ok(Secret::decode(&made.body[..]).unwrap()),
        None => Err(refused.remove(0).1),
    }
}

fn text(source: Option<DataSource>) -> String {
    match source.unwrap().specifier {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn pair() -> String {
    let values = [("tls.crt", chain()), ("tls.key", key()), ("ca.crt", chain())];
    ["a", "b"].map(|namespace| secret_object(namespace, "shop", &values)).concat()
}

#[test]
fn only_proven_identities_of_its_namespace_get_a_secret() {
    let snapshot = snapshot(&pair());
    let gets = |claims: &str, proven: &[&str], name: &str| ask(&snapshot, claims, proven, name).is_ok();
    for name in ["kubernetes://shop", "kubernetes://shop-cacert"] {
        // What the proxy says of itself, what is proven, and whether it gets it.
        for (claims, proven, expected) in [
            ("a", &["a"][..], true),
            ("b", &["b"], true),
            ("c", &["c"], false),
            ("a", &["b"], false),
            ("b", &["a", "c"], false),
            ("a", &["c", "a"], true),
            ("a", &[], false),
        ] {
            assert_eq!(gets(claims, proven, name), expected, "{name} {claims} {proven:?}");
        }
    }
    for scheme in ["kubernetes", "kubernetes-gateway"] {
        for (namespace, proven, expected) in
            [("a", "a", true), ("a", "b", false), ("b", "a", false), ("c", "c", false)]
        {
            let name = format!("{scheme}://{namespace}/shop");
            assert_eq!(gets("a", &[proven], &name), expected, "{name} {proven}");
        }
    }
}

#[test]
fn a_secret_is_a_certificate_with_its_key_or_roots() {
    let snapshot = snapshot(&pair());
    let secret = ask(&snapshot, "a", &["a"], "kubernetes://shop").unwrap();
    assert_eq!(secret.name, "kubernetes://shop");
    let Some(Type::TlsCertificate(pair)) = secret.r#type else { panic!() };
    assert_eq!((text(pair.certificate_chain), text(pair.private_key)), (chain().into(), key().into()));
    let roots = ask(&snapshot, "a", &["a"], "kubernetes://shop-cacert").unwrap();
    let Some(Type::ValidationContext(roots)) = roots.r#type else { panic!() };
    assert_eq!((text(roots.trusted_ca), roots.crl), (chain().into(), None));
}

#[test]
fn roots_of_their_own_come_before_those_beside_the_certificate() {
    let other = format!("{0}{0}", chain());
    let snapshot = snapshot(&(pair() + &secret_object("a", "shop-cacert", &[("cacert", &other)])));
    let roots = ask(&snapshot, "a", &["a"], "kubernetes://shop-cacert").unwrap();
    let Some(Type::ValidationContext(roots)) = roots.r#type else { panic!() };
    assert_eq!(roots.trusted_ca, inline(other.as_bytes()));
}

#[test]
fn nothing_but_roots_is_for_gateways_that_look_for_roots_there() {
    let secret = secret_object("a", "signers", &[("ca.crt", chain())]);
    let gateway = |tls: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: a}}\n\
             spec: {{servers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*'], tls: {tls}}}]}}\n"
        )
    };
    let answer =
        |tls: &str| ask(&snapshot(&(secret.clone() + &gateway(tls))), "a", &["a"], "kubernetes://signers");
    // Envoy would refuse roots as its own certificate.
    let refusal = answer("{mode: SIMPLE, credentialName: signers}").unwrap_err().to_string();
    assert!(refusal.contains("Secret a/signers") && refusal.contains("tls.crt"), "{refusal}");
    let found = answer("{mode: MUTUAL, credentialName: shop, caCertCredentialName: signers}").unwrap();
    assert!(matches!(found.r#type, Some(Type::ValidationContext(_))));
}

#[test]
fn what_there_is_not_is_left_out_and_the_rest_is_sent() {
    let broken = [("tls.crt", "x"), ("tls.key", key())];
    let objects = pair()
        + &secret_object("a", "broken", &broken)
        + &secret_object("a", "cacerts", &[("tls.crt", chain()), ("tls.key", key())]);
    let snapshot = snapshot(&objects);
    let names = ["broken", "none", "cacerts", "shop"].map(|name| Arc::from(format!("kubernetes://{name}")));
    let wanted = Wanted::Names(names.into_iter().chain([Arc::from("configmap://a/b")]).collect());
    let (made, refused) = secrets(&snapshot, &proxy("a"), &["a".to_owned()], &["a".to_owned()], &wanted);
    assert_eq!(made.iter().map(|made| &*made.name).collect::<Vec<_>>(), ["kubernetes://shop"]);
    let reasons: Vec<String> = refused.iter().map(|(_, refusal)| refusal.to_string()).collect();
    assert_eq!(reasons.len(), 4);
    for reason in &reasons {
        assert!(!reason.contains("PRIVATE"), "{reason}");
    }
    assert!(reasons[1].contains("data.tls.crt") || reasons[1].contains("stringData.tls.crt"), "{reasons:?}");
    assert!(reasons[2].contains("control plane itself"), "{reasons:?}");
    assert!(reasons[3].contains("no Secret a/none"), "{reasons:?}");
    let (made, refused) = secrets(&snapshot, &proxy("a"), &["a".to_owned()], &["a".to_owned()], &Wanted::All);
    assert!(made.is_empty() && refused.is_empty());
}

#[test]
fn certificates_of_a_config_map_are_for_everybody_who_is_of_the_mesh() {
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: roots, namespace: a}}\ndata:\n  ca.crt: {:?}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: broken, namespace: a}}\ndata: {{ca.crt: x}}\n",
        chain()
    );
    let snapshot = snapshot(&(pair() + &map));
    for name in ["configmap://a/roots", "configmap://a/roots-cacert"] {
        let secret = ask(&snapshot, "b", &["b"], name).unwrap();
        let Some(Type::ValidationContext(roots)) = secret.r#type else { panic!() };
        assert_eq!((secret.name.as_str(), text(roots.trusted_ca)), (name, chain().into()));
        assert!(ask(&snapshot, "a", &[], name).is_err(), "nothing is proven");
    }
    let why = |name: &str| ask(&snapshot, "a", &["a"], name).unwrap_err().to_string();
    assert!(why("configmap://a/broken").contains("data.ca.crt"), "{}", why("configmap://a/broken"));
    // A Secret of that name is none.
    assert!(why("configmap://a/shop").contains("no ConfigMap a/shop"));
}

#[test]
fn an_account_that_may_not_read_secrets_gets_no_key() {
    let snapshot = snapshot(&pair());
    let names = ["kubernetes://shop", "kubernetes://shop-cacert", "kubernetes://b/shop-cacert"];
    let wanted = Wanted::Names(names.map(Arc::from).into());
    let (made, refused) = secrets(&snapshot, &proxy("a"), &["a".to_owned()], &[], &wanted);
    // Certificates that sign others hold no key; those of another namespace are not its own.
    assert_eq!(made.iter().map(|made| &*made.name).collect::<Vec<_>>(), ["kubernetes://shop-cacert"]);
    assert!(matches!(Secret::decode(&made[0].body[..]).unwrap().r#type, Some(Type::ValidationContext(_))));
    let names: Vec<&str> = refused.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["kubernetes://b/shop-cacert", "kubernetes://shop"]);
    let refused = &refused[1..];
    assert!(refused[0].1.to_string().contains("may not list Secrets of namespace \"a\""), "{refused:?}");
}
