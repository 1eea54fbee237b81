//! Settings of the authority: who signs, and whose tokens are taken.

use std::path::{Path, PathBuf};

use super::Error;
use super::args::Discovery;
use crate::auth::oidc::Rule;
use crate::ca::registrar::Signers;

/// The one way of having others sign that there is.
const KUBERNETES: &str = "ISTIOD_RA_KUBERNETES_API";
/// Where certificates of others are put.
const PLACE: &str = "./var/run/secrets/istiod";
/// What stands before a signer's name in `PILOT_CERT_PROVIDER`.
const SIGNER: &str = "k8s.io/";

/// Who signs, and whose tokens are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// Files of a certificate of istiod that others sign, as they sign for all
    /// (`ENABLE_CA_SERVER=false`); else istiod is an authority itself.
    pub files: Option<Files>,
    /// Signers of the cluster that sign for workloads (`EXTERNAL_CA`); else istiod does.
    pub signers: Option<Signers>,
    /// The signer of the cluster that signs for istiod (`PILOT_CERT_PROVIDER`); else istiod does.
    pub own_signer: Option<String>,
    /// Whether a self-signed root is kept in Secret `cacerts` (`USE_CACERTS_FOR_SELF_SIGNED_CA`).
    pub in_cacerts: bool,
    /// Whether roots are told in a ClusterTrustBundle, too (`ENABLE_CLUSTER_TRUST_BUNDLE_API`).
    pub trust_bundle: bool,
    /// Issuers whose tokens are taken (`JWT_RULE`, `TOKEN_ISSUER`).
    pub issuers: Vec<Rule>,
}

/// istiod's certificate, its key and the roots of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The roots.
    pub roots: PathBuf,
}

impl Files {
    /// Those of the flags, or else those in the usual places, if all are there.
    fn find(args: &Discovery) -> Option<Self> {
        if let (Some(cert), Some(key), Some(roots)) = (&args.tls_cert, &args.tls_key, &args.ca_cert) {
            return Some(Self { cert: cert.clone(), key: key.clone(), roots: roots.clone() });
        }
        let [cert, key] = ["tls/tls.crt", "tls/tls.key"].map(|name| Path::new(PLACE).join(name));
        let roots = ["ca/root-cert.pem", "tls/ca.crt"].map(|name| Path::new(PLACE).join(name));
        let roots = roots.into_iter().find(|file| file.is_file())?;
        (cert.is_file() && key.is_file()).then_some(Self { cert, key, roots })
    }
}

/// Reads them; what is wrong is told to `errors`.
pub(super) fn read(
    args: &Discovery,
    get: impl Fn(&str) -> Option<String>,
    errors: &mut Vec<Error>,
) -> Authority {
    let env = |name: &str| get(name).unwrap_or_default();
    let mut wrong = |name: &'static str, why: &str| {
        errors.push(Error { name, value: env(name), why: why.to_owned() });
    };
    let mut switch = |name: &'static str, default: bool| match env(name).as_str() {
        "" => default,
        value => value.parse().unwrap_or_else(|_| {
            wrong(name, "expected true or false");
            default
        }),
    };
    let in_cacerts = switch("USE_CACERTS_FOR_SELF_SIGNED_CA", false);
    let trust_bundle = switch("ENABLE_CLUSTER_TRUST_BUNDLE_API", false);
    let is_authority = switch("ENABLE_CA_SERVER", true);
    let files = match (Files::find(args), is_authority) {
        (files @ Some(_), false) => files,
        (None, false) => {
            let why = "others sign: istiod needs its own certificate in ./var/run/secrets/istiod/tls, or by \
                       --tlsCertFile, --tlsKeyFile and --caCertFile";
            wrong("ENABLE_CA_SERVER", why);
            None
        }
        (Some(files), true) => {
            let value = files.cert.display().to_string();
            let why = "a certificate of others needs ENABLE_CA_SERVER=false: workloads would not know who signed it";
            errors.push(Error { name: "--tlsCertFile", value, why: why.to_owned() });
            return Authority::default();
        }
        (None, true) => None,
    };
    let signers = Signers { default: env("K8S_SIGNER"), domain: env("CERT_SIGNER_DOMAIN") };
    let signers = match env("EXTERNAL_CA").as_str() {
        "" => None,
        KUBERNETES if signers == Signers::default() => {
            wrong("EXTERNAL_CA", "needs K8S_SIGNER or CERT_SIGNER_DOMAIN, which name the signers");
            None
        }
        KUBERNETES => Some(signers),
        _ => {
            wrong("EXTERNAL_CA", "expected ISTIOD_RA_KUBERNETES_API, or nothing");
            None
        }
    };
    let provider = env("PILOT_CERT_PROVIDER");
    let own_signer = match (provider.as_str(), provider.strip_prefix(SIGNER)) {
        ("" | "istiod", _) => None,
        (_, Some(signer)) if !signer.contains('/') => {
            wrong("PILOT_CERT_PROVIDER", "expected k8s.io/DOMAIN/NAME, as the signer is called");
            None
        }
        (_, Some(_)) if signers.is_none() => {
            wrong(
                "PILOT_CERT_PROVIDER",
                "needs EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API: istiod has no key then",
            );
            None
        }
        (_, Some(signer)) => Some(signer.to_owned()),
        _ => {
            wrong("PILOT_CERT_PROVIDER", "expected istiod, or k8s.io/SIGNER");
            None
        }
    };
    let mut issuers = Vec::new();
    let rule = env("JWT_RULE");
    if !rule.is_empty() {
        match Rule::parse(&rule) {
            Ok(rule) => issuers.push(rule),
            Err(why) => wrong("JWT_RULE", &why),
        }
    }
    // In a cluster its API server is asked about its tokens.
    let issuer = env("TOKEN_ISSUER");
    if !issuer.is_empty() && env("KUBERNETES_SERVICE_HOST").is_empty() {
        let rule = serde_json::json!({"issuer": issuer, "audiences": [env("AUDIENCE")]});
        match Rule::parse(&rule.to_string()) {
            Ok(rule) => issuers.push(rule),
            Err(why) => wrong("TOKEN_ISSUER", &why.replace("audiences is", "AUDIENCE is")),
        }
    }
    Authority { files, signers, own_signer, in_cacerts, trust_bundle, issuers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &[&str]) -> Discovery {
        use clap::Parser as _;
        let all = ["istiod", "discovery"].iter().chain(flags);
        let cli = crate::config::args::Cli::parse_from(all);
        let crate::config::args::Command::Discovery(args) = cli.command else { panic!() };
        *args
    }

    #[test]
    fn without_an_authority_there_are_files() {
        let of = |flags: &[&str], value: &str| {
            let mut errors = Vec::new();
            let get = |name: &str| (name == "ENABLE_CA_SERVER").then(|| value.to_owned());
            let authority = read(&args(flags), get, &mut errors);
            (authority.files, errors.iter().map(ToString::to_string).collect::<String>())
        };
        let flags = ["--tlsCertFile=c", "--tlsKeyFile=k", "--caCertFile=r"];
        let (files, errors) = of(&flags, "false");
        assert_eq!((files.unwrap().key.to_str(), errors.as_str()), (Some("k"), ""));
        assert!(of(&flags[..2], "false").1.contains("needs its own certificate"));
        assert!(of(&flags, "true").1.contains("needs ENABLE_CA_SERVER=false"));
        assert_eq!(of(&[], ""), (None, String::new()));
    }

    fn read_all(variables: &[(&str, &str)]) -> (Authority, Vec<String>) {
        let mut errors = Vec::new();
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let authority = read(&args(&[]), get, &mut errors);
        (authority, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn istiod_signs_unless_others_are_named() {
        assert_eq!(read_all(&[("PILOT_CERT_PROVIDER", "istiod")]), (Authority::default(), Vec::new()));
        let external = ("EXTERNAL_CA", "ISTIOD_RA_KUBERNETES_API");
        let (authority, errors) = read_all(&[
            external,
            ("CERT_SIGNER_DOMAIN", "a.example"),
            ("PILOT_CERT_PROVIDER", "k8s.io/a.example/istiod"),
        ]);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(authority.signers.unwrap().domain, "a.example");
        assert_eq!(authority.own_signer.as_deref(), Some("a.example/istiod"));
        for (variables, want) in [
            (vec![external], "needs K8S_SIGNER"),
            (vec![("EXTERNAL_CA", "other")], "expected ISTIOD_RA_KUBERNETES_API"),
            (vec![("PILOT_CERT_PROVIDER", "k8s.io/a.example/b")], "needs EXTERNAL_CA"),
            (
                vec![external, ("K8S_SIGNER", "a/b"), ("PILOT_CERT_PROVIDER", "k8s.io/a")],
                "k8s.io/DOMAIN/NAME",
            ),
            (vec![("PILOT_CERT_PROVIDER", "kubernetes")], "expected istiod"),
            (vec![("JWT_RULE", "{}")], "issuer is missing"),
            (vec![("TOKEN_ISSUER", "https://a.example")], "AUDIENCE is missing"),
            (vec![("USE_CACERTS_FOR_SELF_SIGNED_CA", "yes")], "expected true or false"),
        ] {
            let (_, errors) = read_all(&variables);
            assert!(errors.len() == 1 && errors[0].contains(want), "{variables:?}: {errors:?}");
        }
    }

    #[test]
    fn issuers_outside_of_the_cluster_count_where_there_is_none() {
        let token = [("TOKEN_ISSUER", "https://a.example"), ("AUDIENCE", "istio-ca")];
        assert_eq!(read_all(&token).0.issuers.len(), 1);
        let inside = [token[0], token[1], ("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
        assert!(read_all(&inside).0.issuers.is_empty());
    }
}
