//! The table as `/debug/ndsz` shows it: with all forms of all names.

use proto::istio::networking::nds::v1::NameTable;
use proto::istio::networking::nds::v1::name_table::NameInfo;

use super::table::{KUBERNETES, addresses, forms, without_namespace};

/// The table as JSON, with the further forms of names that Istio's agent adds
/// there, for a pod of that namespace and domain.
pub(super) fn json(names: &NameTable, namespace: &str, domain: &str) -> Option<String> {
    let domain = without_namespace(namespace, domain);
    let mut shown = names.clone();
    for (name, info) in &names.table {
        let (four, six): (Vec<_>, Vec<_>) = addresses(info).partition(std::net::IpAddr::is_ipv4);
        let ips: Vec<String> = four.into_iter().chain(six).map(|ip| ip.to_string()).collect();
        if ips.is_empty() {
            continue;
        }
        let all = forms(name, info, namespace, domain);
        for form in all.into_iter().chain([name.clone()]) {
            let form = if form.ends_with('.') { form } else { form + "." };
            let added = || NameInfo { ips: ips.clone(), registry: KUBERNETES.into(), ..NameInfo::default() };
            shown.table.entry(form).or_insert_with(added);
        }
    }
    serde_json::to_string(&shown).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_all_names_are_shown() {
        let info = |registry: &str, shortname: &str, namespace: &str, ip: &str| NameInfo {
            ips: vec![ip.into()],
            registry: registry.into(),
            shortname: shortname.into(),
            namespace: namespace.into(),
            ..NameInfo::default()
        };
        let mut names = NameTable::default();
        let mut put = |name: &str, info| drop(names.table.insert(name.into(), info));
        put("web.ns1.svc.cluster.local", info(KUBERNETES, "web", "ns1", "10.0.0.1"));
        put("far.ns2.svc.cluster.remote", info(KUBERNETES, "far", "ns2", "10.0.0.2"));
        put("www.example.com", info("External", "", "", "2001:db8::1"));
        put("none.example.com", info("External", "", "", "x"));
        let json = json(&names, "ns1", "ns1.svc.cluster.local").unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let shown: Vec<&str> = json["table"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            shown,
            [
                "far.ns2.svc.cluster.remote",
                "far.ns2.svc.cluster.remote.",
                "none.example.com",
                "web.",
                "web.ns1.",
                "web.ns1.svc.",
                "web.ns1.svc.cluster.local",
                "web.ns1.svc.cluster.local.",
                "www.example.com",
                "www.example.com.",
            ]
        );
        assert_eq!(json["table"]["web."], serde_json::json!({"ips": ["10.0.0.1"], "registry": KUBERNETES}));
    }
}
