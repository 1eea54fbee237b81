//! Checks of the annotations that injection reads, so that a mistake is told
//! when the pod is made, and not by a container that does not start.

use std::collections::BTreeMap;
use std::net::IpAddr;

use names::annotation as name;

use crate::proxy_config;
use crate::quantity;

/// Longest name of a network interface in Linux.
const INTERFACE: usize = 15;

/// All annotations that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", list(.0))]
pub struct Errors(Vec<String>);

fn list(errors: &[String]) -> String {
    let plural = if errors.len() == 1 { "error" } else { "errors" };
    format!("{} {plural} occurred:\n\t* {}\n\n", errors.len(), errors.join("\n\t* "))
}

/// Checks the annotations of a pod.
pub(crate) fn check(annotations: &BTreeMap<String, String>) -> Result<(), Errors> {
    let errors: Vec<String> = annotations
        .iter()
        .filter_map(|(key, value)| {
            let why = one(key, value).err()?;
            Some(format!("invalid value '{value}' for annotation '{key}': {why}"))
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Errors(errors)) }
}

fn one(key: &str, value: &str) -> Result<(), String> {
    match key {
        name::INTERCEPTION_MODE => match value {
            "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
            _ => Err("expected REDIRECT, TPROXY or NONE".into()),
        },
        name::STATUS_PORT => port(value),
        name::READINESS_INITIAL_DELAY | name::READINESS_PERIOD | name::READINESS_FAILURES => {
            unsigned::<u32>(value).map(drop).ok_or_else(|| "expected a whole number, not negative".into())
        }
        name::INCLUDE_OUTBOUND_IP_RANGES if value == "*" => Ok(()),
        name::INCLUDE_OUTBOUND_IP_RANGES | name::EXCLUDE_OUTBOUND_IP_RANGES => {
            value.split(',').filter(|_| !value.is_empty()).try_for_each(network)
        }
        name::INCLUDE_INBOUND_PORTS if value == "*" => Ok(()),
        name::INCLUDE_INBOUND_PORTS | name::EXCLUDE_INBOUND_PORTS | name::EXCLUDE_OUTBOUND_PORTS => {
            ports(value)
        }
        name::EXCLUDE_INTERFACES | name::KUBEVIRT_INTERFACES | name::REROUTE_VIRTUAL_INTERFACES => {
            value.split(',').filter(|_| !value.is_empty()).try_for_each(|text| interface(text.trim()))
        }
        name::PROMETHEUS_MERGE => boolean(value).map(drop).ok_or_else(|| "expected true or false".to_owned()),
        name::PROXY_CONFIG => proxy_config::check(value),
        name::PROXY_CPU | name::PROXY_MEMORY | name::PROXY_CPU_LIMIT | name::PROXY_MEMORY_LIMIT => {
            if quantity::is_valid(value) {
                Ok(())
            } else {
                Err("expected an amount such as 100m, 2, 128Mi or 1Gi".into())
            }
        }
        _ => Ok(()),
    }
}

/// A boolean as Go reads one.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A number of digits only: Rust's reader also takes a sign.
fn unsigned<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn port(text: &str) -> Result<(), String> {
    let port = text.trim();
    unsigned::<u16>(port).map(drop).ok_or_else(|| format!("{port:?} is not a port: expected 0 to 65535"))
}

fn ports(list: &str) -> Result<(), String> {
    let list = list.trim();
    list.split(',').filter(|_| !list.is_empty()).try_for_each(port)
}

fn network(text: &str) -> Result<(), String> {
    let wrong = || format!("{text:?} is not a network: expected one such as 10.0.0.0/8 or 2001:db8::/32");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let is_plain = bits == "0" || !bits.starts_with('0');
    match unsigned::<u8>(bits) {
        Some(bits) if is_plain && bits <= most => Ok(()),
        _ => Err(wrong()),
    }
}

fn interface(name: &str) -> Result<(), String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > INTERFACE || !name.bytes().all(is_letter) {
        let rule = "expected up to 15 letters, digits, '-', '_' and '.'";
        return Err(format!("{name:?} is not a network interface: {rule}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_original_takes() {
        for (key, value) in [
            (name::INCLUDE_OUTBOUND_IP_RANGES, ""),
            (name::INCLUDE_OUTBOUND_IP_RANGES, "*"),
            (name::EXCLUDE_OUTBOUND_IP_RANGES, "10.0.0.1/8,::/0"),
            (name::INCLUDE_INBOUND_PORTS, "*"),
            (name::EXCLUDE_INBOUND_PORTS, " 80, 90 "),
            (name::EXCLUDE_OUTBOUND_PORTS, ""),
            (name::STATUS_PORT, "0"),
            (name::REROUTE_VIRTUAL_INTERFACES, "net1, net2.5"),
            (name::PROMETHEUS_MERGE, "T"),
            (name::PROXY_CPU, "1.5"),
            (name::PROXY_CONFIG, "concurrency: 2"),
            (name::PROXY_CONFIG, ""),
        ] {
            assert_eq!(one(key, value), Ok(()), "{key}={value}");
        }
    }

    #[test]
    fn refuses_what_the_original_refuses() {
        for (key, value) in [
            (name::INTERCEPTION_MODE, "redirect"),
            (name::INCLUDE_OUTBOUND_IP_RANGES, "10.0.0.1"),
            (name::EXCLUDE_OUTBOUND_IP_RANGES, "*"),
            (name::EXCLUDE_OUTBOUND_IP_RANGES, "10.0.0.0/8, 11.0.0.0/8"),
            (name::EXCLUDE_OUTBOUND_IP_RANGES, "10.0.0.0/33"),
            (name::EXCLUDE_OUTBOUND_IP_RANGES, "10.0.0.0/08"),
            (name::EXCLUDE_INBOUND_PORTS, "*"),
            (name::EXCLUDE_INBOUND_PORTS, "80,"),
            (name::EXCLUDE_INBOUND_PORTS, "+80"),
            (name::STATUS_PORT, ""),
            (name::STATUS_PORT, "65536"),
            (name::READINESS_PERIOD, "-1"),
            (name::READINESS_PERIOD, ""),
            (name::EXCLUDE_INTERFACES, "a,,b"),
            (name::EXCLUDE_INTERFACES, "eth0;rm"),
            (name::KUBEVIRT_INTERFACES, "abcdefghijklmnop"),
            (name::PROMETHEUS_MERGE, "yes"),
            (name::PROXY_MEMORY, "1\n"),
            (name::PROXY_CONFIG, "concurrency: lots"),
        ] {
            assert!(one(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let all = [(name::PROXY_CPU, "x"), (name::STATUS_PORT, "y")];
        let all = all.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let error = check(&all).unwrap_err().to_string();
        assert!(error.starts_with("2 errors occurred:\n\t* invalid value 'x' for annotation"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_value_ends_the_program(value in "(?s).*") {
            for key in [name::INCLUDE_OUTBOUND_IP_RANGES, name::EXCLUDE_INBOUND_PORTS, name::PROXY_CONFIG,
                name::EXCLUDE_INTERFACES, name::PROXY_CPU] {
                drop(one(key, &value));
            }
        }
    }
}
