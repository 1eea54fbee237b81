//! Variables of the sidecar that the webhook's URL carries, for clusters whose
//! API server calls an istiod elsewhere.

use std::collections::BTreeMap;

/// Reads the path of a request to the webhook: `/inject/cluster/c1/net/n1`, or
/// the older `/inject/:ENV:K=V:ENV:...`. The path is as the client wrote it.
#[must_use]
pub fn variables(path: &str) -> BTreeMap<String, String> {
    let decoded = decode(path);
    let path = decoded.strip_suffix('/').unwrap_or(&decoded);
    let mut parts = path.splitn(3, '/');
    let Some(rest) = parts.by_ref().nth(2) else { return BTreeMap::new() };
    let pairs: Vec<(&str, String)> = if rest.starts_with(":ENV:") {
        let pairs = rest.split(":ENV:").skip(1).filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| !key.is_empty()).map(|(key, value)| (key, value.to_owned())).collect()
    } else {
        let words: Vec<&str> = rest.split('/').collect();
        // A last key without a value says nothing.
        words.chunks_exact(2).map(|pair| (pair[0], pair[1].replace("--slash--", "/"))).collect()
    };
    pairs.into_iter().map(|(key, value)| (variable(key), value)).filter(|(key, _)| !key.is_empty()).collect()
}

fn variable(key: &str) -> String {
    match key {
        "cluster" => "ISTIO_META_CLUSTER_ID".into(),
        "net" => "ISTIO_META_NETWORK".into(),
        other => other.to_uppercase(),
    }
}

/// Undoes the percent-encoding of a path; what is none stays as it is.
fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Vec<String> {
        variables(path).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn reads_pairs_of_the_path() {
        assert_eq!(read("/inject/cluster/c1/net/n1"), ["ISTIO_META_CLUSTER_ID=c1", "ISTIO_META_NETWORK=n1"]);
        assert_eq!(read("/inject/cluster/a--slash--b/odd/"), ["ISTIO_META_CLUSTER_ID=a/b"]);
        assert_eq!(read("/inject/my_var/x%20y"), ["MY_VAR=x y"]);
        assert_eq!(
            read("/inject/:ENV:cluster=c:ENV:=x:ENV:net=:ENV:a"),
            ["ISTIO_META_CLUSTER_ID=c", "ISTIO_META_NETWORK="]
        );
        assert!(read("/inject").is_empty() && read("/inject/").is_empty() && read("").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_path_ends_the_program(path in "(?s).*", odd in "/inject/[a%:=/0-9é]*") {
            drop((variables(&path), variables(&odd)));
        }
    }
}
