//! Names of cipher suites and curves. One that Envoy does not know makes it
//! refuse the whole listener or cluster.

/// Suites that Envoy knows.
const SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// Curves that Envoy knows.
pub const CURVES: [&str; 7] =
    ["P-224", "P-256", "P-521", "P-384", "X25519", "X25519Kyber768Draft00", "X25519MLKEM768"];

/// Whether a suite can be given to Envoy: one that it knows, or an expression
/// of BoringSSL, which begins with an operator.
#[must_use]
pub fn is_suite(name: &str) -> bool {
    let is_expression = name.chars().next().is_some_and(|first| !first.is_alphanumeric());
    name.is_empty() || name == "ALL" || is_expression || SUITES.contains(&name)
}

/// The suites of a list that can be given to Envoy, each once.
#[must_use]
pub fn usable_suites(names: &[String]) -> Vec<String> {
    let mut usable: Vec<String> = Vec::new();
    for name in names {
        if is_suite(name) && !usable.contains(name) {
            usable.push(name.clone());
        }
    }
    usable
}

/// The curves of a list that can be given to Envoy.
#[must_use]
pub fn usable_curves(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| CURVES.contains(&name.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_envoy_does_not_know_is_left_out() {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let suites = list(&["AES128-SHA", "FOO", "-ALL", "AES128-SHA", "ALL"]);
        assert_eq!(usable_suites(&suites), ["AES128-SHA", "-ALL", "ALL"]);
        assert_eq!(usable_curves(&list(&["P-256", "P-1"])), ["P-256"]);
    }
}
