//! What a name says of its value: one table for fields, variables, flags, headers,
//! queries and running text.

/// Ends of names, letters and digits only, whose values are secret.
const ENDS: [&str; 51] = [
    "accesskey",
    "accountkey",
    "apikey",
    "authorization",
    "auths",
    "caheader",
    "connectionstring",
    "connstr",
    "cookie",
    "credential",
    "dbpass",
    "dockercfg",
    "dockerconfigjson",
    "encryptionkey",
    "encryptionsecret",
    "hmackey",
    "htpasswd",
    "keydata",
    "licensekey",
    "masterkey",
    "mysqlpwd",
    "netrc",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "passwordhash",
    "pgpass",
    "pkcs12",
    "presharedkey",
    "privatekey",
    "privatekeypem",
    "requirepass",
    "rootpass",
    "saskey",
    "secret",
    "secretkey",
    "secretkeybase",
    "secretvalue",
    "sessionid",
    "sessionkey",
    "sessionticketkey",
    "sharedkey",
    "signingkey",
    "sshkey",
    "sslkey",
    "storagekey",
    "tlskey",
    "token",
    "userpass",
    "xdsheader",
];
/// Last words of such names; they are the ends of too many others.
const WORDS: [&str; 6] = ["dsn", "pass", "psk", "pw", "pwd", "sas"];
/// Begins of such names: variables of the agent with headers.
const BEGINS: [&str; 2] = ["caheader", "xdsheader"];
/// Last words of headers `x-...` whose values are secret.
const EXTENDED: [&str; 6] = ["auth", "key", "session", "sig", "signature", "ticket"];
/// Last words of parameters of URLs whose values are.
const QUERIES: [&str; 10] =
    ["assertion", "auth", "code", "jwt", "key", "session", "sid", "sig", "signature", "ticket"];
/// Names that end as those, and whose values only name or count something.
const HARMLESS: [&str; 7] =
    ["fromcookie", "imagepullsecret", "maxtoken", "nexttoken", "oldpwd", "pullsecret", "pwd"];
/// Headers, whose values go on after a blank.
const HEADERS: [&str; 2] = ["authorization", "cookie"];
/// Fields below a name that is secret, which name something or say what kind it is.
const NAMING: [&str; 41] = [
    "@type",
    "algorithm",
    "apiVersion",
    "audience",
    "audiences",
    "claim",
    "clientID",
    "clientId",
    "client_id",
    "defaultMode",
    "domain",
    "driver",
    "expirationSeconds",
    "filename",
    "group",
    "iss",
    "issuer",
    "kid",
    "kind",
    "last_updated",
    "lastUpdated",
    "mode",
    "mountPath",
    "name",
    "namespace",
    "optional",
    "path",
    "provider",
    "provider_name",
    "resourceVersion",
    "secretName",
    "secretNamespace",
    "server",
    "stat_prefix",
    "ttl",
    "type",
    "typeUrl",
    "type_url",
    "uid",
    "version_info",
    "versionInfo",
];
/// Fields below such a name with what is public again.
const PUBLIC: [&str; 12] = [
    "certificateChain",
    "certificate_chain",
    "caCertificates",
    "metadata",
    "rootCerts",
    "root_certs",
    "sdsConfig",
    "sds_config",
    "trustedCa",
    "trusted_ca",
    "validationContext",
    "validation_context",
];
/// Fields that say what something with a name is: it is a thing, and no header or
/// variable of that name.
const THINGS: [&str; 43] = [
    "@type",
    "address",
    "apiVersion",
    "category",
    "clusterIP",
    "cluster_name",
    "configMap",
    "containerPort",
    "creationTimestamp",
    "domains",
    "emptyDir",
    "endpoints",
    "filter_chains",
    "hostname",
    "hosts",
    "image",
    "imageID",
    "kind",
    "labels",
    "last_updated",
    "load_assignment",
    "metadata",
    "mountPath",
    "namespace",
    "number",
    "observability_name",
    "persistentVolumeClaim",
    "port",
    "ports",
    "projected",
    "protocol",
    "proxy",
    "resourceVersion",
    "routes",
    "secret",
    "selector",
    "spec",
    "targetPort",
    "typed_config",
    "typedConfig",
    "uid",
    "version_info",
    "virtual_hosts",
];
/// Fields with the value of what an object names, whatever else it has.
const VALUES: [&str; 23] = [
    "contains",
    "data",
    "default",
    "exact",
    "exact_match",
    "inlineBytes",
    "inlineString",
    "inline_bytes",
    "inline_string",
    "notValues",
    "prefix",
    "prefix_match",
    "rawValue",
    "raw_value",
    "regex",
    "safe_regex",
    "safe_regex_match",
    "string_match",
    "suffix",
    "suffix_match",
    "value",
    "valueTemplate",
    "values",
];
/// Begins of variables that say how something runs.
const VARIABLES: [&str; 39] = [
    "CA_ADDR",
    "CA_PROVIDER",
    "CA_ROOT",
    "CITADEL_",
    "CLOUD_PLATFORM",
    "CLUSTER_ID",
    "CREDENTIAL_FETCHER_TYPE",
    "DISABLE_",
    "DNS_",
    "DRAIN_",
    "ENABLE_",
    "ENVOY_",
    "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "HOSTNAME",
    "HOST_IP",
    "INJECT",
    "INSTANCE_IP",
    "ISTIO",
    "JWT_POLICY",
    "KUBERNETES_",
    "K_REVISION",
    "LANG",
    "LC_",
    "LOCAL_CLUSTER_SECRET_WATCHER",
    "NODE_NAME",
    "OUTPUT_CERTS",
    "PILOT_",
    "POD_",
    "PROXY_",
    "SERVICE_ACCOUNT",
    "SHARED_MESH_CONFIG",
    "TERMINATION_",
    "TRUST_DOMAIN",
    "VALIDATION_",
    "XDS_",
];
/// Their last words.
const SETTINGS: [&str; 24] = [
    "ADDR",
    "ADDRESS",
    "ADDRESSES",
    "DOMAIN",
    "ENABLED",
    "HOST",
    "HOSTS",
    "INTERVAL",
    "LEVEL",
    "LOCALE",
    "MODE",
    "NAMESPACE",
    "PATH",
    "PORT",
    "PORTS",
    "REGION",
    "REPLICAS",
    "REVISION",
    "SECONDS",
    "TIMEOUT",
    "TZ",
    "VERSION",
    "WORKERS",
    "ZONE",
];

/// Letters and digits, small.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// The last word of a name: `apiKey`, `API_KEY` and `api-key` end in `key`.
fn last_word(name: &str) -> String {
    let name = name.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
    let mut begin = name.len();
    let mut after: Option<char> = None;
    for (at, letter) in name.char_indices().rev() {
        let is_next = !letter.is_ascii_alphanumeric()
            || letter.is_ascii_lowercase() && after.is_some_and(|after| after.is_ascii_uppercase());
        if is_next {
            break;
        }
        begin = at;
        after = Some(letter);
    }
    name[begin..].to_ascii_lowercase()
}

/// A name for one of what it names several of.
fn one_of(plain: &str) -> &str {
    match plain.strip_suffix('s') {
        Some(one) if !one.ends_with('s') => one,
        _ => plain,
    }
}

/// Whether a name is of several.
pub(super) fn is_plural(name: &str) -> bool {
    let plain = plain(name);
    one_of(&plain) != plain
}

/// Whether what has this name is secret.
pub(super) fn is_secret(name: &str) -> bool {
    let plain = plain(name);
    let one = one_of(&plain);
    if plain.is_empty() || HARMLESS.contains(&plain.as_str()) || HARMLESS.contains(&one) {
        return false;
    }
    if ENDS.iter().any(|end| plain.ends_with(end) || one.ends_with(end))
        || BEGINS.iter().any(|begin| plain.starts_with(begin))
    {
        return true;
    }
    let word = last_word(name);
    let is_extended = name.starts_with("x-") || name.starts_with("X-");
    WORDS.contains(&word.as_str()) || is_extended && EXTENDED.contains(&word.as_str())
}

/// The same of a parameter of a URL.
pub(super) fn is_secret_query(name: &str) -> bool {
    is_secret(name) || QUERIES.contains(&last_word(name).as_str())
}

/// Whether it is a header whose value may have blanks.
pub(super) fn is_header(name: &str) -> bool {
    let plain = plain(name);
    HEADERS.iter().any(|end| plain.ends_with(end))
}

/// Whether a field below a secret name may be read.
pub(super) fn is_naming(field: &str) -> bool {
    NAMING.contains(&field)
}

/// Whether what is below a field below a secret name is as anything else.
pub(super) fn is_public(field: &str) -> bool {
    PUBLIC.contains(&field) || field.ends_with("Ref") || field.ends_with("Refs")
}

/// Whether a field says that an object is a thing that has a name.
pub(super) fn is_of_thing(field: &str) -> bool {
    THINGS.contains(&field)
}

/// Whether a field has the value of what its object names.
pub(super) fn is_value(field: &str) -> bool {
    VALUES.contains(&field)
}

/// Whether a variable only says how something runs.
pub(super) fn is_setting(variable: &str) -> bool {
    let is_known = VARIABLES.iter().any(|begin| variable.starts_with(begin))
        || SETTINGS.contains(&last_word(variable).to_ascii_uppercase().as_str());
    is_known && !is_secret(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_in_all_spellings() {
        for name in [
            "DB_PASS",
            "PGPASS",
            "MYSQL_PWD",
            "dbPass",
            "SECRET_KEY_BASE",
            "SIGNING_KEY",
            "AWS_CREDENTIAL",
            "google_credentials",
            "CONNECTION_STRING",
            "AZURE_SAS",
            ".dockerconfigjson",
            "client-key-data",
            "apiKey",
            "apiKeys",
            "api_key",
            "x-api-key",
            "X-Vault-Token",
            "x-goog-signature",
            "passwords",
            "Set-Cookie",
            "proxy-authorization",
            "request.headers[x-api-key]",
            "tokens",
            "clientSecret",
            "session_ticket_keys",
            "XDS_HEADER_X_Y",
            "CA_HEADER_Z",
            "SENTRY_DSN",
            "X-Amz-Security-Token",
        ] {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in [
            "",
            "secretName",
            "tokenAudience",
            "bypass",
            "compass",
            "PWD",
            "path",
            "key",
            "imagePullSecrets",
            "max_tokens",
            "tls_certificate_sds_secret_configs",
            "canvas",
            "credentialName",
            "cookie_names",
            "authorization_policies",
            "signature",
            "code",
            "nonce",
            "x-request-id",
            "fromCookies",
        ] {
            assert!(!is_secret(name), "{name}");
        }
        assert!(is_secret_query("sig") && is_secret_query("X-Amz-Signature") && !is_secret_query("page"));
    }

    #[test]
    fn variables_of_istio_and_settings_are_read() {
        for name in
            ["ISTIO_META_CLUSTER_ID", "PILOT_TRACE_SAMPLING", "POD_NAME", "MODE", "LOG_LEVEL", "DB_HOST"]
        {
            assert!(is_setting(name), "{name}");
        }
        for name in ["MODE_X", "DB", "ISTIO_META_API_KEY", "VAULT_TOKEN", "XDS_HEADER_A", "MYSQL_PWD", "SALT"]
        {
            assert!(!is_setting(name), "{name}");
        }
    }
}
