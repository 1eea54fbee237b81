//! Every environment variable of istiod, and how flags and variables become
//! [`Settings`]. Nothing else reads the environment.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use mesh::{MeshConfig, MeshNetworks};

use super::args::Discovery;
use super::{Error, Objects, Settings, authority, features};
use crate::{jwks, kube, register, scopes, webhook};

/// Name, default and meaning of each variable.
pub const VARIABLES: &[(&str, &str, &str)] = &[
    ("POD_NAMESPACE", "istio-system", "Namespace of the control plane."),
    ("POD_NAME", "", "Name of this istiod among others, which istioctl shows; the machine's without one."),
    ("CLUSTER_ID", "Kubernetes", "Name of the cluster."),
    ("REVISION", "", "Revision of the control plane: objects with the label of another one are not for it."),
    (
        "ISTIO_WATCH_NAMESPACE",
        "",
        "The only namespace that is watched, besides what is in none; empty: all are.",
    ),
    ("SHARED_MESH_CONFIG", "", "A further ConfigMap with mesh configuration, which the usual one goes over."),
    (
        "ENABLE_NATIVE_SIDECARS",
        "auto",
        "Sidecars are restartable init containers: true, false, or auto, where all nodes run them (1.33).",
    ),
    (
        "INJECTION_WEBHOOK_CONFIG_NAME",
        "istio-sidecar-injector",
        "Set and empty: istiod leaves configurations of the injecting webhook alone.",
    ),
    (
        "VALIDATION_WEBHOOK_CONFIG_NAME",
        "istio-istio-system",
        "Set and empty: istiod leaves configurations of the validating webhook alone.",
    ),
    ("COMPLIANCE_POLICY", "", "Rules of cryptography that injected proxies are told, such as fips-140-2."),
    ("PLATFORM", "", "openshift: users and groups of proxies are those of their namespaces."),
    ("ISTIOD_CUSTOM_HOST", "", "Further host names for istiod's certificate, separated by commas."),
    ("ROOT_CA_DIR", "./etc/cacerts", "Directory of plug-in CA files."),
    (
        "USE_CACERTS_FOR_SELF_SIGNED_CA",
        "false",
        "A self-signed root that is made is kept in Secret cacerts, not in istio-ca-secret.",
    ),
    (
        "ENABLE_CA_SERVER",
        "true",
        "false: others sign for workloads and for istiod, whose certificate is in files.",
    ),
    ("EXTERNAL_CA", "", "ISTIOD_RA_KUBERNETES_API: signers of the cluster sign for workloads."),
    ("K8S_SIGNER", "", "The signer of requests that name none."),
    ("CERT_SIGNER_DOMAIN", "", "What stands before the names of signers in requests, with a slash."),
    (
        "PILOT_CERT_PROVIDER",
        "istiod",
        "Who signs istiod's own certificate: istiod, or k8s.io/SIGNER of the cluster.",
    ),
    (
        "ENABLE_CLUSTER_TRUST_BUNDLE_API",
        "false",
        "The roots are told in ClusterTrustBundle istio.io:istiod-ca:root-cert, too.",
    ),
    (
        "JWT_RULE",
        "",
        "An issuer outside of the cluster whose tokens are taken: {\"issuer\": .., \"jwks_uri\": .., \"audiences\": [..]}.",
    ),
    (
        "TOKEN_ISSUER",
        "",
        "The same without a cluster: iss of the tokens; the discovery document names the keys.",
    ),
    ("AUDIENCE", "", "The audience of tokens of TOKEN_ISSUER."),
    ("TOKEN_AUDIENCES", "istio-ca", "Audiences a token may have, separated by commas."),
    ("DEFAULT_WORKLOAD_CERT_TTL", "24h", "Lifetime of a certificate when the request names none."),
    ("MAX_WORKLOAD_CERT_TTL", "2160h", "Longest lifetime a request may ask for."),
    ("CITADEL_SELF_SIGNED_CA_CERT_TTL", "87600h", "Lifetime of a self-signed root."),
    (
        "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL",
        "1h",
        "Time between two looks at the age of a self-signed root.",
    ),
    (
        "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
        "20",
        "The last part of its life, in percent, in which a self-signed root is renewed.",
    ),
    (
        "CA_TRUSTED_NODE_ACCOUNTS",
        "",
        "Service accounts (NAMESPACE/NAME, separated by commas) of proxies that ask for certificates of all \
         workloads of their node.",
    ),
    (
        "TRUSTED_GATEWAY_CIDR",
        "",
        "Networks of gateways that are believed what they say of their clients' certificates, separated by commas.",
    ),
    ("PILOT_CA_CERT_CONFIGMAP", "istio-ca-root-cert", "Name of the ConfigMap of roots in each namespace."),
    ("PILOT_CRL_CONFIGMAP", "istio-ca-crl", "Name of the ConfigMap of revocation lists in each namespace."),
    ("ENABLE_LEADER_ELECTION", "true", "One of several istiods writes objects; false: each of them does."),
    ("PILOT_DEBOUNCE_AFTER", "100ms", "Quiet time before a change is pushed."),
    ("PILOT_DEBOUNCE_MAX", "10s", "Longest time a change waits while others keep coming."),
    ("PILOT_XDS_SEND_TIMEOUT", "40s", "A proxy that takes no response for so long is dropped."),
    ("PILOT_PUSH_THROTTLE", "0", "How many proxies are computed at the same time; 0: by the number of CPUs."),
    (
        "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL",
        "20m",
        "Time after which keys of token issuers are fetched again.",
    ),
    ("BLOCKED_CIDRS_IN_JWKS_URIS", "", "Networks that no keys are fetched from, separated by commas."),
    ("JWKS_RESOLVER_INSECURE_SKIP_VERIFY", "false", "Servers of keys are not verified."),
    ("ISTIOD_JWKS_ALLOW_LOOPBACK", "false", "Keys may be fetched from this machine itself."),
    (
        "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION",
        "true",
        "WorkloadEntries are made for workloads that say which WorkloadGroup they are of.",
    ),
    (
        "PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS",
        "true",
        "What agents say of the health of workloads is taken into their WorkloadEntries.",
    ),
    (
        "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD",
        "10s",
        "How long a registered workload may be away before its entry goes.",
    ),
    (
        "ISTIO_WORKLOAD_ENTRY_VALIDATE_IDENTITY",
        "true",
        "A workload registers only as one of its own namespace and service account.",
    ),
    (
        "PILOT_ENABLE_XDS_IDENTITY_CHECK",
        "true",
        "A proxy's token must fit its namespace and service account.",
    ),
    (
        "ENABLE_DEBUG_ENDPOINT_AUTH",
        "true",
        "Debug pages are for those of the control plane's namespace; others see proxies of their own.",
    ),
    (
        "DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES",
        "",
        "Further namespaces whose service accounts see all debug pages, separated by commas.",
    ),
];

/// The default of `--meshConfig`, which need not be there; a file that somebody
/// named must.
const MESH_CONFIG: &str = "./etc/istio/config/mesh";
/// The same of `--networksConfig`.
const NETWORKS_CONFIG: &str = "./etc/istio/config/meshNetworks";
/// Where the injector's ConfigMap is mounted.
const INJECTOR: &str = "./var/lib/istio/inject";
/// More proxies are never computed at the same time.
const MAX_THROTTLE: usize = 100_000;
/// Longest lifetime of a certificate: later dates are none that X.509 can hold.
const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads flags and variables together; reports everything that is wrong.
///
/// # Errors
/// All settings that cannot be used.
pub fn resolve(args: &Discovery, get: impl Fn(&str) -> Option<String>) -> Result<Settings, Vec<Error>> {
    let mut errors = Vec::new();
    let env = |name: &'static str| {
        let default =
            VARIABLES.iter().find(|(known, ..)| *known == name).map_or("", |(_, default, _)| default);
        get(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };

    let mut duration = |name: &'static str, value: &str| {
        parse_duration(name, value).unwrap_or_else(|error| {
            errors.push(error);
            Duration::ZERO
        })
    };
    let workload_ttl = duration("DEFAULT_WORKLOAD_CERT_TTL", &env("DEFAULT_WORKLOAD_CERT_TTL"));
    let max_workload_ttl = duration("MAX_WORKLOAD_CERT_TTL", &env("MAX_WORKLOAD_CERT_TTL"));
    let root_ttl = duration("CITADEL_SELF_SIGNED_CA_CERT_TTL", &env("CITADEL_SELF_SIGNED_CA_CERT_TTL"));
    let check = "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL";
    let root_check = duration(check, &env(check));
    let debounce_after = duration("PILOT_DEBOUNCE_AFTER", &env("PILOT_DEBOUNCE_AFTER"));
    let debounce_max = duration("PILOT_DEBOUNCE_MAX", &env("PILOT_DEBOUNCE_MAX"));
    let send_timeout = duration("PILOT_XDS_SEND_TIMEOUT", &env("PILOT_XDS_SEND_TIMEOUT"));
    let refresh = duration("PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", &env("PILOT_JWT_PUB_KEY_REFRESH_INTERVAL"));
    let grace_period = "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD";
    let grace_period = duration(grace_period, &env(grace_period));
    let shutdown = duration("--shutdownDuration", &args.shutdown);
    let keepalive = (
        duration("--keepaliveInterval", &args.keepalive_interval),
        duration("--keepaliveTimeout", &args.keepalive_timeout),
    );
    let age = args.max_connection_age.as_deref();
    let max_connection_age = age.map(|age| duration("--keepaliveMaxServerConnectionAge", age));

    let mut address = |name: &'static str, value: &str| {
        parse_address(name, value).unwrap_or_else(|error| {
            errors.push(error);
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        })
    };
    let secure_grpc = address("--secureGRPCAddr", &args.secure_grpc);
    let plain_grpc = (!args.grpc.is_empty()).then(|| address("--grpcAddr", &args.grpc));
    let monitoring = address("--monitoringAddr", &args.monitoring);
    let http = address("--httpAddr", &args.http);
    let https = (!args.https.is_empty()).then(|| address("--httpsAddr", &args.https));
    let controlz = scopes::address(&args.ctrlz_address, args.ctrlz_port).unwrap_or_else(|why| {
        errors.push(Error { name: "--ctrlz_address", value: args.ctrlz_address.clone(), why });
        None
    });

    let native = env("ENABLE_NATIVE_SIDECARS").parse().unwrap_or_else(|why| {
        errors.push(Error { name: "ENABLE_NATIVE_SIDECARS", value: env("ENABLE_NATIVE_SIDECARS"), why });
        inject::native_sidecar::Mode::Off
    });
    let throttle = env("PILOT_PUSH_THROTTLE");
    let push_throttle = throttle.parse().ok().filter(|number| *number <= MAX_THROTTLE).unwrap_or_else(|| {
        let why = format!("expected a whole number up to {MAX_THROTTLE}");
        errors.push(Error { name: "PILOT_PUSH_THROTTLE", value: throttle.clone(), why });
        0
    });
    let grace = "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE";
    let root_grace = env(grace).parse().ok().filter(|percent| *percent <= 100).unwrap_or_else(|| {
        errors.push(Error { name: grace, value: env(grace), why: "expected 0 to 100".into() });
        0
    });
    let mut switch = |name: &'static str, default: bool| {
        let value = env(name);
        value.parse().unwrap_or_else(|_| {
            errors.push(Error { name, value, why: "expected true or false".to_owned() });
            default
        })
    };
    let identity_check = switch("PILOT_ENABLE_XDS_IDENTITY_CHECK", true);
    let leader_election = switch("ENABLE_LEADER_ELECTION", true);
    let debug_auth = switch("ENABLE_DEBUG_ENDPOINT_AUTH", true);
    let registration = register::Settings {
        registers: switch("PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION", true),
        takes_health: switch("PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS", true),
        checks_identity: switch("ISTIO_WORKLOAD_ENTRY_VALIDATE_IDENTITY", true),
        grace: grace_period,
    };
    let insecure = switch("JWKS_RESOLVER_INSECURE_SKIP_VERIFY", false);
    let allows_loopback = switch("ISTIOD_JWKS_ALLOW_LOOPBACK", false);
    let networks = list(&env("BLOCKED_CIDRS_IN_JWKS_URIS")).into_iter().filter_map(|value| {
        let network = value.parse::<jwks::Network>();
        network
            .map_err(|why| {
                errors.push(Error { name: "BLOCKED_CIDRS_IN_JWKS_URIS", value, why: why.to_string() });
            })
            .ok()
    });
    let guard = jwks::Guard { blocked: networks.collect(), allows_loopback };
    let gateways = list(&env("TRUSTED_GATEWAY_CIDR")).into_iter().filter_map(|value| {
        let network = value.parse::<jwks::Network>();
        network
            .map_err(|why| errors.push(Error { name: "TRUSTED_GATEWAY_CIDR", value, why: why.to_string() }))
            .ok()
    });
    let trusted_gateways = gateways.collect();
    let accounts = list(&env("CA_TRUSTED_NODE_ACCOUNTS")).into_iter().filter_map(|value| {
        let account = value.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        if account.as_ref().is_none_or(|(namespace, name)| namespace.is_empty() || name.is_empty()) {
            let why = "expected NAMESPACE/NAME".to_owned();
            errors.push(Error { name: "CA_TRUSTED_NODE_ACCOUNTS", value, why });
            return None;
        }
        account
    });
    let trusted_node_accounts = accounts.collect();
    if let Some(dir) = args.config_dir.as_ref().filter(|dir| !dir.is_dir()) {
        let value = dir.display().to_string();
        errors.push(Error { name: "--configDir", value, why: "is not a directory".into() });
    }
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if args.domain.is_empty() || !args.domain.bytes().all(is_letter) {
        let why = "expected a domain such as cluster.local".into();
        errors.push(Error { name: "--domain", value: args.domain.clone(), why });
    }
    if !args.api_qps.is_finite() || args.api_qps < 0.0 {
        let value = args.api_qps.to_string();
        errors.push(Error { name: "--kubernetesApiQPS", value, why: "expected a number from 0 on".into() });
    }
    let watched = Some(env("ISTIO_WATCH_NAMESPACE")).filter(|name| !name.is_empty());
    if let Some(value) = watched.clone().filter(|name| name.parse::<names::Namespace>().is_err()) {
        let why = "expected the name of one namespace".into();
        errors.push(Error { name: "ISTIO_WATCH_NAMESPACE", value, why });
    }
    let features = features::read(&get, &mut errors);
    let authority = authority::read(args, &get, &mut errors);
    let keys = jwks::Settings { fetch: features.key_fetch, refresh, guard, insecure };
    let mesh = read_mesh_config(args).unwrap_or_else(|error| {
        errors.push(error);
        MeshConfig::default()
    });
    let networks = read_networks(args).unwrap_or_else(|error| {
        errors.push(error);
        MeshNetworks::default()
    });

    // What is wrong by itself is told already.
    if errors.is_empty() {
        let (default, max) = ("DEFAULT_WORKLOAD_CERT_TTL", "MAX_WORKLOAD_CERT_TTL");
        for (name, ttl) in
            [(default, workload_ttl), (max, max_workload_ttl), ("CITADEL_SELF_SIGNED_CA_CERT_TTL", root_ttl)]
        {
            if ttl > MAX_TTL {
                errors.push(Error {
                    name,
                    value: env(name),
                    why: "expected 100 years (876000h) at most".into(),
                });
            }
        }
        if workload_ttl > max_workload_ttl {
            let why = format!("is longer than {max}={:?}: every certificate would be refused", env(max));
            errors.push(Error { name: default, value: env(default), why });
        }
        if debounce_after > debounce_max {
            let (name, max) = ("PILOT_DEBOUNCE_AFTER", "PILOT_DEBOUNCE_MAX");
            let why = format!("is longer than {max}={:?}", env(max));
            errors.push(Error { name, value: env(name), why });
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    for field in &mesh.unknown_fields {
        tracing::warn!(target: "config", "{}: {field}: no such field; it has no effect", args.mesh_config.display());
    }
    let mut provider_variables = BTreeMap::new();
    for name in mesh::extension_provider::variables(&mesh.extension_providers) {
        match get(name) {
            Some(value) => drop(provider_variables.insert(name.to_owned(), value)),
            None => tracing::warn!(
                target: "config",
                "{}: extensionProviders: {name} is not set: the header is sent without a value",
                args.mesh_config.display()
            ),
        }
    }
    for warning in mesh.warnings() {
        tracing::warn!(target: "config", "{}: {warning}", args.mesh_config.display());
    }
    for warning in &networks.warnings {
        tracing::warn!(target: "config", "{}: {warning}", args.networks_config.display());
    }
    let objects = match &args.config_dir {
        Some(dir) => Objects::Directory(dir.clone()),
        None => Objects::Kubernetes {
            api: kube::Settings {
                kubeconfig: args.kubeconfig.clone(),
                qps: args.api_qps,
                burst: args.api_burst,
            },
            mesh: kube::mesh::Settings {
                file: fs::read_to_string(&args.mesh_config).ok(),
                networks_file: fs::read_to_string(&args.networks_config).ok(),
                revision: env("REVISION"),
                shared: env("SHARED_MESH_CONFIG"),
                environment: kube::mesh::Environment::default(),
            },
        },
    };
    Ok(Settings {
        objects,
        state_dir: args.state_dir.clone(),
        ca_dir: env("ROOT_CA_DIR").into(),
        secure_grpc,
        plain_grpc,
        monitoring,
        http,
        controlz,
        webhooks: webhook::Settings {
            address: https,
            // Set and empty: somebody else looks after them.
            keeps_injection: get("INJECTION_WEBHOOK_CONFIG_NAME").is_none_or(|name| !name.is_empty()),
            keeps_validation: get("VALIDATION_WEBHOOK_CONFIG_NAME").is_none_or(|name| !name.is_empty()),
            dir: INJECTOR.into(),
            revision: env("REVISION"),
            compliance_policy: env("COMPLIANCE_POLICY"),
            platform: env("PLATFORM"),
            native,
        },
        namespace: args.namespace.clone().unwrap_or_else(|| env("POD_NAMESPACE")),
        domain: args.domain.clone(),
        watched,
        cluster_id: args.cluster_id.clone().unwrap_or_else(|| env("CLUSTER_ID")),
        authority,
        custom_hosts: list(&env("ISTIOD_CUSTOM_HOST")),
        mesh,
        networks,
        features,
        provider_variables,
        keys,
        audiences: list(&env("TOKEN_AUDIENCES")),
        workload_ttl,
        max_workload_ttl,
        root_ttl,
        root_check,
        root_grace,
        debounce_after,
        debounce_max,
        send_timeout,
        push_throttle,
        identity_check,
        instance: Some(env("POD_NAME")).filter(|name| !name.is_empty()).unwrap_or_else(machine),
        // Two of one machine, which have no name of their own, must not be taken for one.
        holder: Some(env("POD_NAME"))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| format!("{}_{:08x}", machine(), rand::random::<u32>())),
        leader_election,
        trusted_gateways,
        trusted_node_accounts,
        ca_maps: [env("PILOT_CA_CERT_CONFIGMAP"), env("PILOT_CRL_CONFIGMAP")],
        debug_auth,
        debug_namespaces: list(&env("DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES")),
        shutdown,
        keepalive,
        max_connection_age,
        registration,
    })
}

/// Name of this machine.
fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(name.trim()).filter(|name| !name.is_empty()).unwrap_or("istiod").to_owned()
}

fn read_mesh_config(args: &Discovery) -> Result<MeshConfig, Error> {
    let path = &args.mesh_config;
    let error = |why: String| Error { name: "--meshConfig", value: path.display().to_string(), why };
    match fs::read_to_string(path) {
        Ok(text) => MeshConfig::from_yaml(&text).map_err(|why| error(why.to_string())),
        Err(why) if why.kind() == ErrorKind::NotFound && path == Path::new(MESH_CONFIG) => {
            Ok(MeshConfig::default())
        }
        Err(why) => Err(error(why.to_string())),
    }
}

fn read_networks(args: &Discovery) -> Result<MeshNetworks, Error> {
    let path = &args.networks_config;
    let error = |why: String| Error { name: "--networksConfig", value: path.display().to_string(), why };
    match fs::read_to_string(path) {
        Ok(text) => MeshNetworks::from_yaml(&text).map_err(|why| error(why.to_string())),
        Err(why) if why.kind() == ErrorKind::NotFound && path == Path::new(NETWORKS_CONFIG) => {
            Ok(MeshNetworks::default())
        }
        Err(why) => Err(error(why.to_string())),
    }
}

/// A length of time as Go writes it, more than zero.
pub(crate) fn parse_duration(name: &'static str, value: &str) -> Result<Duration, Error> {
    let error = |why: String| Error { name, value: value.into(), why };
    let parsed: proto::wkt::Duration =
        value.parse().map_err(|_| error("expected a duration such as 100ms, 30s or 24h".into()))?;
    parsed
        .to_std()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| error("must be longer than zero".into()))
}

/// `:PORT` on all addresses, or `IP:PORT`.
fn parse_address(name: &'static str, value: &str) -> Result<SocketAddr, Error> {
    let full = if value.starts_with(':') { format!("[::]{value}") } else { value.to_owned() };
    full.parse().map_err(|_| Error {
        name,
        value: value.into(),
        why: "expected :PORT or IP:PORT, such as :15012 or 127.0.0.1:15012".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        assert_eq!(parse_address("x", ":15012").unwrap().port(), 15012);
        assert_eq!(parse_address("x", "127.0.0.1:1").unwrap().to_string(), "127.0.0.1:1");
        assert!(parse_address("x", "15012").is_err());
        assert!(parse_address("x", ":99999").is_err());
    }

    fn wrong(flags: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        use clap::Parser as _;
        let args = ["istiod", "discovery", "--configDir", "/"].iter().chain(flags);
        let cli = crate::config::args::Cli::parse_from(args);
        let crate::config::args::Command::Discovery(args) = &cli.command else { panic!() };
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        resolve(args, get).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn settings_are_checked_against_each_other() {
        assert!(wrong(&[], &[]).is_empty());
        for (name, value, want) in [
            ("DEFAULT_WORKLOAD_CERT_TTL", "2161h", "is longer than MAX_WORKLOAD_CERT_TTL=\"2160h\""),
            ("BLOCKED_CIDRS_IN_JWKS_URIS", "10.0.0.0/8, x", "expected networks such as"),
            ("ISTIOD_JWKS_ALLOW_LOOPBACK", "yes", "expected true or false"),
            ("PILOT_DEBOUNCE_AFTER", "11s", "is longer than PILOT_DEBOUNCE_MAX=\"10s\""),
            ("PILOT_XDS_SEND_TIMEOUT", "0s", "must be longer than zero"),
            ("PILOT_PUSH_THROTTLE", "9223372036854775807", "expected a whole number up to 100000"),
            ("CITADEL_SELF_SIGNED_CA_CERT_TTL", "1000000h", "expected 100 years"),
            ("ISTIO_WATCH_NAMESPACE", "a,b", "expected the name of one namespace"),
        ] {
            let errors = wrong(&[], &[(name, value)]);
            assert!(errors.len() == 1 && errors[0].contains(want), "{name}: {errors:?}");
        }
    }

    #[test]
    fn a_mesh_configuration_that_was_named_must_be_there() {
        let errors = wrong(&["--meshConfig", "/no/such/file"], &[]);
        assert!(errors.len() == 1 && errors[0].starts_with("--meshConfig=\"/no/such/file\""), "{errors:?}");
    }

    #[test]
    fn names_the_setting_that_is_wrong() {
        let error = parse_duration("PILOT_DEBOUNCE_AFTER", "fast").unwrap_err().to_string();
        assert_eq!(error, "PILOT_DEBOUNCE_AFTER=\"fast\": expected a duration such as 100ms, 30s or 24h");
        assert!(parse_duration("x", "0s").is_err());
    }
}
