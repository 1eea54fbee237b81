use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn workload() -> (San, Csr) {
    let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let csr = Csr::parse(&crate::csr::request(&key, &id).unwrap()).unwrap();
    (San::Spiffe(id), csr)
}

#[test]
fn issues_for_the_given_identity_only() {
    let now = SystemTime::now();
    let (issuer, _) = Issuer::self_signed("cluster.local", 24 * HOUR, now).unwrap();
    let (_, csr) = workload();
    let other = San::Spiffe("spiffe://cluster.local/ns/x/sa/y".parse().unwrap());
    let chain = issuer.issue(&csr, &[other], HOUR, now).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], issuer.root_pem());
    let leaf = &Certificate::all_from_pem(&chain[0]).unwrap()[0];
    assert_eq!(leaf.uris, ["spiffe://cluster.local/ns/x/sa/y"]);
    assert!(!leaf.is_ca);
    let (_, parsed) = X509Certificate::from_der(leaf.der()).unwrap();
    assert!(parsed.subject_alternative_name().unwrap().unwrap().critical);
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_encipherment());
    assert!(parsed.extended_key_usage().unwrap().unwrap().value.client_auth);
    assert!(parsed.basic_constraints().unwrap().unwrap().critical);
    let age = now.duration_since(leaf.not_before).unwrap().as_secs();
    assert!((119..=121).contains(&age), "{age}");
}

/// What `openssl` prints for a certificate or a check.
fn openssl(args: &[&str]) -> Option<String> {
    // Not every machine that builds has it.
    let Ok(output) = std::process::Command::new("openssl").args(args).output() else { return None };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {text}");
    Some(text)
}

#[test]
fn openssl_accepts_what_is_issued_in_both_roles_and_strictly() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (issuer, _) = Issuer::self_signed("cluster.local", 24 * HOUR, now).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let root = file("root", issuer.root_pem());
    let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
    for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa(2048)] {
        let key = PrivateKey::generate(algorithm).unwrap();
        let csr = Csr::parse(&crate::csr::request(&key, &id).unwrap()).unwrap();
        let leaf = issuer.issue(&csr, &[San::Spiffe(id.clone())], HOUR, now).unwrap();
        let leaf = file("leaf", &leaf[0]);
        for purpose in ["sslserver", "sslclient"] {
            openssl(&["verify", "-x509_strict", "-CAfile", &root, "-purpose", purpose, &leaf]);
        }
        let is_rsa = matches!(algorithm, Algorithm::Rsa(_));
        if let Some(text) = openssl(&["x509", "-noout", "-text", "-in", &leaf]) {
            assert!(
                text.matches("Subject Key Identifier").count() == 1
                    && text.contains("Authority Key Identifier")
            );
            assert_eq!(text.contains("Key Encipherment"), is_rsa, "{text}");
        }
        for format in [key::Format::Traditional, key::Format::Pkcs8] {
            openssl(&["pkey", "-noout", "-check", "-in", &file("key", &key.to_pem(format))]);
        }
    }
    if let Some(text) = openssl(&["x509", "-noout", "-text", "-in", &root]) {
        assert!(text.contains("Certificate Sign, CRL Sign"), "{text}");
        assert!(text.contains("Subject Key Identifier"), "{text}");
    }
}

#[test]
fn a_leaf_never_outlives_its_signer() {
    let now = SystemTime::now();
    let (issuer, _) = Issuer::self_signed("cluster.local", HOUR, now).unwrap();
    let (san, csr) = workload();
    let chain = issuer.issue(&csr, &[san], 48 * HOUR, now).unwrap();
    let leaf = &Certificate::all_from_pem(&chain[0]).unwrap()[0];
    assert_eq!(leaf.not_after, issuer.not_after());
    let (san, csr) = workload();
    assert!(matches!(issuer.issue(&csr, &[san], HOUR, now + 2 * HOUR), Err(Error::Expired)));
}

#[test]
fn files_must_fit_together() {
    let now = SystemTime::now();
    let (one, one_key) = Issuer::self_signed("one", HOUR, now).unwrap();
    let (two, _) = Issuer::self_signed("two", HOUR, now).unwrap();
    let load = |cert: &str, key: &str, root: &str| load(cert, key, "", root, now);
    assert!(load(one.root_pem(), &one_key, one.root_pem()).is_ok());
    for (cert, key, root, says) in [
        (two.root_pem(), one_key.as_str(), two.root_pem(), "ca-key.pem is not the key of ca-cert.pem"),
        (one.root_pem(), &one_key, two.root_pem(), "ca-cert.pem does not verify against root-cert.pem"),
        ("", &one_key, one.root_pem(), "ca-cert.pem: no certificate"),
        (one.root_pem(), "", one.root_pem(), "ca-key.pem: no private key"),
        (one.root_pem(), &one_key, "", "root-cert.pem: no certificate"),
    ] {
        let error = load(cert, key, root).unwrap_err().to_string();
        assert!(error.contains(says), "{error} / {says}");
    }
}

fn load(cert: &str, key: &str, chain: &str, root: &str, now: SystemTime) -> Result<Issuer, Error> {
    let [cert, key, chain, root] =
        [("ca-cert.pem", cert), ("ca-key.pem", key), ("cert-chain.pem", chain), ("root-cert.pem", root)]
            .map(|(file, text)| Pem { file, text });
    Issuer::load(&Material { cert, key, chain, root }, now)
}

/// A CA certificate to be signed.
struct Ca {
    params: CertificateParams,
    key: PrivateKey,
    pem: String,
}

fn ca(name: &str, signer: Option<&Ca>, change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let now = SystemTime::now();
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let mut params = params(now - HOUR, now + 24 * HOUR).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    change(&mut params);
    let signed = match signer {
        Some(signer) => params
            .signed_by(key.pair(), &rcgen::Issuer::from_params(&signer.params, signer.key.pair()))
            .unwrap(),
        None => params.self_signed(key.pair()).unwrap(),
    };
    Ca { params, key, pem: signed.pem() }
}

/// Root, intermediate and the CA that signs, each with a change of its own.
fn three(changes: [fn(&mut CertificateParams); 3]) -> [Ca; 3] {
    let root = ca("root", None, changes[0]);
    let middle = ca("middle", Some(&root), changes[1]);
    let signing = ca("signing", Some(&middle), changes[2]);
    [root, middle, signing]
}

fn same(_: &mut CertificateParams) {}

#[test]
fn what_is_sent_leads_from_the_leaf_to_the_roots() {
    let now = SystemTime::now();
    let [root, middle, signing] = three([same; 3]);
    // With and without the signing certificate in the chain, in any order, with the root.
    for (chain, sent) in [
        (middle.pem.clone(), 2),
        (format!("{}{}", signing.pem, middle.pem), 2),
        (format!("{}{}", middle.pem, signing.pem), 2),
        (format!("{}{}{}", signing.pem, middle.pem, root.pem), 3),
    ] {
        let issuer = load(&signing.pem, &signing.key.to_pkcs8_pem(), &chain, &root.pem, now).unwrap();
        let (san, csr) = workload();
        let all = issuer.issue(&csr, &[san], HOUR, now).unwrap();
        assert_eq!(all.len(), 1 + sent + 1, "leaf, chain, roots");
        verify::check_chain(&all[..all.len() - 1].concat(), issuer.root_pem(), now).unwrap();
    }
    // An intermediate right under the root, with an empty chain.
    let issuer = load(&middle.pem, &middle.key.to_pkcs8_pem(), "", &root.pem, now).unwrap();
    let (san, csr) = workload();
    let all = issuer.issue(&csr, &[san], HOUR, now).unwrap();
    assert_eq!(all.len(), 3);
    verify::check_chain(&all[..2].concat(), &root.pem, now).unwrap();
}

#[test]
fn a_ca_whose_certificates_peers_refuse_is_not_loaded() {
    let now = SystemTime::now();
    let no_ca: fn(&mut CertificateParams) = |params| params.is_ca = IsCa::ExplicitNoCa;
    let no_sign: fn(&mut CertificateParams) = |params| params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let short: fn(&mut CertificateParams) =
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let over: fn(&mut CertificateParams) =
        |params| params.not_after = OffsetDateTime::now_utc() - time::Duration::MINUTE;
    let early: fn(&mut CertificateParams) =
        |params| params.not_before = OffsetDateTime::now_utc() + time::Duration::HOUR;
    let servers_only: fn(&mut CertificateParams) =
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (changes, file, says) in [
        ([same, same, no_ca], "ca-cert.pem: certificate 1", "CA:FALSE"),
        ([same, no_ca, same], "cert-chain.pem: certificate 1", "CA:FALSE"),
        ([no_ca, same, same], "root-cert.pem: certificate 1", "CA:FALSE"),
        ([same, same, no_sign], "ca-cert.pem: certificate 1", "keyCertSign"),
        ([same, no_sign, same], "cert-chain.pem: certificate 1", "keyCertSign"),
        ([no_sign, same, same], "root-cert.pem: certificate 1", "keyCertSign"),
        ([same, short, same], "cert-chain.pem: certificate 1", "path length"),
        ([short, same, same], "root-cert.pem: certificate 1", "path length"),
        ([same, same, over], "ca-cert.pem: certificate 1", "has expired at 20"),
        ([same, over, same], "cert-chain.pem: certificate 1", "has expired at 20"),
        ([over, same, same], "root-cert.pem: certificate 1", "has expired at 20"),
        ([same, same, early], "ca-cert.pem: certificate 1", "not valid before"),
        ([same, early, same], "cert-chain.pem: certificate 1", "not valid before"),
        ([same, servers_only, same], "signed by ca-cert.pem", "does not verify"),
    ] {
        let [root, middle, signing] = three(changes);
        let loaded = load(&signing.pem, &signing.key.to_pkcs8_pem(), &middle.pem, &root.pem, now);
        let error = loaded.expect_err(says).to_string();
        assert!(error.contains(file) && error.contains(says), "{error} / {file} {says}");
    }
}

#[test]
fn a_leaf_outlives_no_certificate_above_it() {
    let now = SystemTime::now();
    let soon: fn(&mut CertificateParams) =
        |params| params.not_after = OffsetDateTime::now_utc() + time::Duration::minutes(30);
    for changes in [[soon, same, same], [same, soon, same], [same, same, soon]] {
        let [root, middle, signing] = three(changes);
        let issuer = load(&signing.pem, &signing.key.to_pkcs8_pem(), &middle.pem, &root.pem, now).unwrap();
        let (san, csr) = workload();
        let leaf = &issuer.issue(&csr, &[san], HOUR, now).unwrap()[0];
        let leaf = &Certificate::all_from_pem(leaf).unwrap()[0];
        assert!(leaf.not_after < now + HOUR / 2 + Duration::from_secs(5));
    }
}

#[test]
fn names_and_addresses_are_written_as_what_they_are() {
    let now = SystemTime::now();
    let (issuer, _) = Issuer::self_signed("cluster.local", HOUR, now).unwrap();
    let (_, csr) = workload();
    let sans =
        [San::Dns("istiod.svc".into()), San::Ip([10, 77, 0, 2].into()), San::Ip("::1".parse().unwrap())];
    let leaf = &issuer.issue(&csr, &sans, HOUR, now).unwrap()[0];
    let leaf = &Certificate::all_from_pem(leaf).unwrap()[0];
    assert_eq!(leaf.dns_names, ["istiod.svc"]);
    let (_, parsed) = X509Certificate::from_der(leaf.der()).unwrap();
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    let addresses =
        names.iter().filter(|name| matches!(name, x509_parser::prelude::GeneralName::IPAddress(_)));
    assert_eq!(addresses.count(), 2);
}
