//! The set `ca`: the files of a CA and a request in, a certificate or an error out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use istiod::auth::{Authenticator, Caller, Chain, Credentials, Refusal};
use istiod::ca::authority::Authority;
use istiod::ca::plugged::Place;
use istiod::ca::service::Service;
use istiod::metrics::Metrics;
use names::SpiffeId;
use pki::certificate::{self, Certificate};
use proto::istio::v1::auth::IstioCertificateRequest;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::{Summary, difference};

/// Differences that are on purpose.
const LISTED: &str = include_str!("../../data/oracle/ca-differences.yaml");
/// Fields of a leaf that are compared.
const FIELDS: [&str; 14] = [
    "basicConstraintsValid",
    "dnsNames",
    "extKeyUsage",
    "extensions",
    "hasAuthorityKeyId",
    "hasSubjectKeyId",
    "ips",
    "isCA",
    "issuer",
    "keyUsage",
    "publicKeyAlgorithm",
    "signatureAlgorithm",
    "subject",
    "uris",
];
/// The extension that names the key of a certificate.
const SUBJECT_KEY_IDENTIFIER: &str = "2.5.29.14";
/// Seconds that two times may differ: a case names the time at which recording began.
const SLACK: i64 = 5;

/// What is different on purpose, by code.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// A certificate is for SPIFFE identities only.
    SpiffeOnly,
    /// A request is refused that is followed by bytes which are not looked at.
    NothingAfterTheRequest,
    /// keyEncipherment is for RSA keys.
    KeyEnciphermentOfRsa,
    /// A leaf has the identifier of its key.
    SubjectKeyIdentifier,
    /// A kind of key that is not supported is refused.
    UnsupportedKey,
}

#[derive(Debug, Deserialize)]
struct Listed {
    rule: Rule,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    #[serde(default)]
    ca_files: Option<BTreeMap<String, String>>,
    #[serde(default)]
    csr: String,
    #[serde(default)]
    identities: Option<Vec<String>>,
    #[serde(default)]
    authentication_fails: bool,
    #[serde(default)]
    validity_duration: i64,
    #[serde(rename = "defaultTTLSeconds")]
    default_ttl: u64,
    #[serde(rename = "maxTTLSeconds")]
    max_ttl: u64,
    recorded_at: String,
    start_error: Option<String>,
    code: Option<String>,
    message: Option<String>,
    leaf: Option<Value>,
    cert_chain: Option<Vec<String>>,
}

/// Compares all cases of a directory.
///
/// # Errors
/// When the directory or a case cannot be read.
pub async fn run(dir: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    let listed: Vec<Listed> = serde_saphyr::from_str(LISTED).context("listed differences")?;
    let mut cases: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("recorded cases in {}", dir.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    cases.sort();
    let mut summary = Summary { set: "ca", ..Summary::default() };
    for path in cases {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !only.is_empty() && !only.iter().any(|pattern| super::fits(pattern, &name)) {
            continue;
        }
        let case: Case = serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| name.clone())?;
        let mut ours = answer(&case).await.with_context(|| name.clone())?;
        let mut theirs = recorded(&case);
        let said = ours["message"].as_str().unwrap_or_default().to_owned();
        even_out(&mut ours, &mut theirs);
        match difference::first(&ours, &theirs, &|_| false) {
            None => summary.equal += 1,
            Some(found) => {
                let rules = on_purpose(&case, &said, ours, theirs);
                let is_listed = |rule: &Rule| listed.iter().any(|listed| listed.rule == *rule);
                if !rules.is_empty() && rules.iter().all(is_listed) {
                    summary.listed += 1;
                } else {
                    summary.different += 1;
                }
                if verbose {
                    let (path, ours, theirs) = (&found.path, &found.ours, &found.theirs);
                    eprintln!("{name}: {rules:?} {path}\n    ours:   {ours}\n    theirs: {theirs}");
                }
            }
        }
    }
    Ok(summary)
}

/// Takes what the recorded answer has, where a difference means nothing: words of
/// errors that it has in another language's terms, some seconds of time.
fn even_out(ours: &mut Value, theirs: &mut Value) {
    if theirs["message"].is_null() && ours["message"].is_string() {
        ours["message"] = Value::Null;
    }
    // They are a set; no reader minds their order.
    for side in [&mut *ours, &mut *theirs] {
        if let Some(extensions) = side["leaf"]["extensions"].as_array_mut() {
            extensions.sort_by_key(|extension| extension["oid"].to_string());
        }
    }
    for field in ["notBefore", "notAfter"] {
        if let (Some(own), Some(recorded)) = (ours["leaf"][field].as_i64(), theirs["leaf"][field].as_i64())
            && (own - recorded).abs() <= SLACK
        {
            ours["leaf"][field] = json!(recorded);
        }
    }
}

/// Which rules make both alike, by what must be so instead; none when they do not.
fn on_purpose(case: &Case, said: &str, mut ours: Value, mut theirs: Value) -> Vec<Rule> {
    let code = ours["code"].as_str().unwrap_or_default();
    let mut ids = case.identities.iter().flatten();
    if ids.any(|id| id.parse::<SpiffeId>().is_err()) {
        return if code == "Unauthenticated" { vec![Rule::SpiffeOnly] } else { Vec::new() };
    }
    if code == "InvalidArgument" && said.contains("not supported") {
        return vec![Rule::UnsupportedKey];
    }
    if code == "InvalidArgument" && said.contains("after its end") {
        return vec![Rule::NothingAfterTheRequest];
    }
    let mut rules = Vec::new();
    let leaf = &mut ours["leaf"];
    if leaf["hasSubjectKeyId"] == true && theirs["leaf"]["hasSubjectKeyId"] == false {
        leaf["hasSubjectKeyId"] = false.into();
        if let Some(extensions) = leaf["extensions"].as_array_mut() {
            extensions.retain(|extension| extension["oid"] != SUBJECT_KEY_IDENTIFIER);
        }
        rules.push(Rule::SubjectKeyIdentifier);
    }
    // 4 is keyEncipherment.
    let is_rsa = theirs["leaf"]["publicKeyAlgorithm"] == "RSA";
    if !is_rsa && theirs["leaf"]["keyUsage"] == 5 && leaf["keyUsage"] == 1 {
        leaf["keyUsage"] = Value::Null;
        theirs["leaf"]["keyUsage"] = Value::Null;
        rules.push(Rule::KeyEnciphermentOfRsa);
    }
    if difference::first(&ours, &theirs, &|_| false).is_some() {
        rules.clear();
    }
    rules
}

/// Gives a caller, or none.
struct Fixed(Option<Vec<SpiffeId>>);

#[tonic::async_trait]
impl Authenticator for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    async fn authenticate(&self, _: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
        let identities = self.0.clone().filter(|ids| !ids.is_empty());
        let caller = identities.map(|identities| Caller { identities, by: "fixed", pod: None });
        Some(caller.ok_or_else(|| Refusal::Unproven(String::new())))
    }
}

async fn answer(case: &Case) -> anyhow::Result<Value> {
    let now: SystemTime = OffsetDateTime::parse(&case.recorded_at, &Rfc3339)?.into();
    let dir = tempfile::tempdir()?;
    for (name, text) in case.ca_files.iter().flatten() {
        fs::write(dir.path().join(name), text)?;
    }
    let place = Place { dir: dir.path().into(), skips_generated: false };
    let issuer = match place.open(now) {
        Ok(issuer) => issuer.context("no CA files")?,
        Err(_) => return Ok(json!({"startError": true})),
    };
    let ttl = |seconds| Duration::from_secs(seconds);
    let authority = Authority::new(issuer, "recorded", ttl(case.default_ttl), ttl(case.max_ttl));
    let ids = case.identities.iter().flatten();
    let ids: Option<Vec<SpiffeId>> = ids.map(|id| id.parse().ok()).collect();
    let chain = Chain::new(vec![Box::new(Fixed(ids.filter(|_| !case.authentication_fails)))]);
    let Ok(caller) = chain.authenticate(&Credentials::default()).await else {
        return Ok(json!({"code": "Unauthenticated", "message": "request authenticate failure"}));
    };
    let service = Service::new(authority, chain, Arc::new(Metrics::default()));
    let request = IstioCertificateRequest {
        csr: case.csr.clone(),
        validity_duration: case.validity_duration,
        ..IstioCertificateRequest::default()
    };
    match service.sign(&request, &caller, None, now).await {
        Ok(chain) => {
            let leaf = leaf(&chain[0], now)?;
            Ok(json!({"code": "OK", "leaf": leaf, "certChain": elements(case, &chain)}))
        }
        Err(status) => Ok(json!({"code": format!("{:?}", status.code()), "message": status.message()})),
    }
}

/// What each element of an answer is, in the words of the recorder.
fn elements(case: &Case, chain: &[String]) -> Vec<String> {
    let files = case.ca_files.clone().unwrap_or_default();
    let root = files.get("root-cert.pem").cloned().unwrap_or_default();
    let blocks = certificate::blocks(files.get("cert-chain.pem").map_or("", String::as_str));
    let last = chain.len() - 1;
    let name = |(index, element): (usize, &String)| {
        let between = blocks.iter().position(|block| block.trim_end() == element.trim_end());
        match between {
            _ if index == 0 => "leaf".to_owned(),
            _ if index == last && *element == root => "root-cert.pem verbatim".to_owned(),
            Some(at) => {
                let extra = element.ends_with("\n\n");
                format!("cert {at} of cert-chain.pem, extra trailing newline={extra}")
            }
            None => "something else".to_owned(),
        }
    };
    chain.iter().enumerate().map(name).collect()
}

/// Fields of a certificate, as they were recorded.
fn leaf(pem: &str, now: SystemTime) -> anyhow::Result<Value> {
    let all = Certificate::all_from_pem(pem)?;
    let certificate = &all[0];
    let (_, parsed) = X509Certificate::from_der(certificate.der())?;
    let offset = |time: SystemTime| match time.duration_since(now) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    };
    let extensions: Vec<Value> = parsed
        .extensions()
        .iter()
        .map(|extension| json!({"oid": extension.oid.to_id_string(), "critical": extension.critical}))
        .collect();
    let (mut dns, mut uris, mut ips) = (Vec::new(), Vec::new(), Vec::new());
    for name in parsed.subject_alternative_name()?.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns.push(*name),
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::IPAddress(address) => ips.push(format!("{address:?}")),
            _ => {}
        }
    }
    let usage = parsed.key_usage()?.map(|usage| usage.value);
    // The bits as Go counts them.
    let key_usage = usage.map_or(0, |usage| {
        u8::from(usage.digital_signature())
            + 4 * u8::from(usage.key_encipherment())
            + 32 * u8::from(usage.key_cert_sign())
    });
    let extended = parsed.extended_key_usage()?.map(|usage| usage.value);
    let mut purposes = Vec::new();
    if let Some(extended) = extended {
        purposes.extend(extended.server_auth.then_some(1));
        purposes.extend(extended.client_auth.then_some(2));
    }
    let has = |wanted: fn(&ParsedExtension<'_>) -> bool| {
        parsed.extensions().iter().any(|extension| wanted(extension.parsed_extension()))
    };
    let algorithm = |oid: &str| match oid {
        "1.2.840.113549.1.1.1" => "RSA",
        "1.2.840.10045.2.1" => "ECDSA",
        "1.3.101.112" => "Ed25519",
        "1.2.840.113549.1.1.11" => "SHA256-RSA",
        "1.2.840.10045.4.3.2" => "ECDSA-SHA256",
        "1.2.840.10045.4.3.3" => "ECDSA-SHA384",
        _ => "other",
    };
    let list = |items: Value| if items == json!([]) { Value::Null } else { items };
    let key = parsed.public_key().algorithm.algorithm.to_id_string();
    let signature = parsed.signature_algorithm.algorithm.to_id_string();
    Ok(json!({
        "basicConstraintsValid": parsed.basic_constraints()?.is_some(),
        "isCA": parsed.is_ca(),
        "dnsNames": list(json!(dns)), "uris": list(json!(uris)), "ips": list(json!(ips)),
        "keyUsage": key_usage, "extKeyUsage": purposes, "extensions": extensions,
        "hasAuthorityKeyId": has(|extension| matches!(extension, ParsedExtension::AuthorityKeyIdentifier(_))),
        "hasSubjectKeyId": has(|extension| matches!(extension, ParsedExtension::SubjectKeyIdentifier(_))),
        "publicKeyAlgorithm": algorithm(&key), "signatureAlgorithm": algorithm(&signature),
        "subject": subject(&parsed.subject().to_string()), "issuer": subject(&parsed.issuer().to_string()),
        "notBefore": offset(certificate.not_before), "notAfter": offset(certificate.not_after),
    }))
}

/// A name, the most particular part first.
fn subject(name: &str) -> String {
    let mut parts: Vec<&str> = name.split(", ").collect();
    parts.reverse();
    parts.join(",")
}

/// What was recorded, in the form of [`answer`].
fn recorded(case: &Case) -> Value {
    if case.start_error.is_some() {
        return json!({"startError": true});
    }
    let code = case.code.clone().unwrap_or_default();
    if code != "OK" {
        let message = case.message.clone().unwrap_or_default();
        // The words of Go's libraries are not ours.
        let own = code == "Unauthenticated" || message.contains("requested TTL");
        let message = if own { json!(message) } else { Value::Null };
        return json!({"code": code, "message": message});
    }
    let theirs = case.leaf.clone().unwrap_or_default();
    let mut leaf = serde_json::Map::new();
    for field in FIELDS {
        let value = theirs[field].clone();
        leaf.insert(field.to_owned(), if value == json!([]) { Value::Null } else { value });
    }
    leaf.insert("notBefore".into(), theirs["notBeforeOffsetSeconds"].clone());
    leaf.insert("notAfter".into(), theirs["notAfterOffsetSeconds"].clone());
    json!({"code": "OK", "leaf": leaf, "certChain": case.cert_chain})
}
