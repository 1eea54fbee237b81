use super::*;

/// A table of `name: [registry, shortname, namespace, address...]`.
pub(in crate::dns) fn table(rows: &[(&str, [&str; 3], &[&str])]) -> NameTable {
    let mut names = NameTable::default();
    for (name, [registry, shortname, namespace], ips) in rows {
        let info = NameInfo {
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            registry: (*registry).into(),
            shortname: (*shortname).into(),
            namespace: (*namespace).into(),
            ..NameInfo::default()
        };
        names.table.insert((*name).into(), info);
    }
    names
}

const EXTERNAL: [&str; 3] = ["External", "", ""];

fn of(names: NameTable) -> Table {
    Table::new(Arc::new(names), "ns1", "ns1.svc.cluster.local")
}

fn found(table: &Table, host: &str) -> Option<String> {
    table.find(host, Some("ns1.svc.cluster.local")).map(|found| found.host.name.to_owned())
}

#[test]
fn a_name_without_a_usable_address_is_not_there() {
    let table = of(table(&[("a.example", EXTERNAL, &["10.0.0.0/8", "x"]), ("b.example", EXTERNAL, &[])]));
    assert_eq!(found(&table, "a.example"), None);
    assert_eq!(found(&table, "b.example"), None);
}

#[test]
fn large_letters_and_last_dots_of_the_table_make_no_difference() {
    let table = of(table(&[
        ("WWW.Example.com", EXTERNAL, &["10.0.0.1"]),
        ("dot.example.", EXTERNAL, &["10.0.0.2"]),
        ("web.ns2.svc.cluster.local.", [KUBERNETES, "web", "ns2"], &["10.0.0.3"]),
    ]));
    assert_eq!(found(&table, "www.example.com").as_deref(), Some("WWW.Example.com"));
    assert_eq!(found(&table, "dot.example").as_deref(), Some("dot.example."));
    // As Istio's agent: Kubernetes gives no such name.
    assert_eq!(found(&table, "web.ns2"), None);
}

#[test]
fn short_forms_are_of_kubernetes_in_the_same_domain_only() {
    let table = of(table(&[
        ("web.ns2.svc.cluster.local", [KUBERNETES, "web", "ns2"], &["10.0.0.1"]),
        ("own.ns1.svc.cluster.local", [KUBERNETES, "own", "ns1"], &["10.0.0.2"]),
        ("far.ns2.svc.cluster.remote", [KUBERNETES, "far", "ns2"], &["10.0.0.3"]),
        ("se.ns1.svc.cluster.local", EXTERNAL, &["10.0.0.4"]),
        ("db-0.db.ns1.svc.cluster.local", [KUBERNETES, "db-0.db", "ns1"], &["10.0.0.5"]),
        // Its short form is not a part of its name.
        ("odd.ns1.svc.cluster.local", [KUBERNETES, "even", "ns1"], &["10.0.0.6"]),
    ]));
    for (host, name) in [
        ("web.ns2", Some("web.ns2.svc.cluster.local")),
        ("web.ns2.svc", Some("web.ns2.svc.cluster.local")),
        ("web.ns2.svc.cluster", None),
        ("web", None),
        ("own", Some("own.ns1.svc.cluster.local")),
        ("own.ns1", Some("own.ns1.svc.cluster.local")),
        ("far.ns2", None),
        ("far.ns2.svc", None),
        ("se", None),
        ("se.ns1.svc", None),
        ("db-0.db", Some("db-0.db.ns1.svc.cluster.local")),
        ("db-0.db.ns1.svc", Some("db-0.db.ns1.svc.cluster.local")),
        ("even", Some("odd.ns1.svc.cluster.local")),
        ("even.ns1.svc", Some("odd.ns1.svc.cluster.local")),
        ("odd", None),
        ("", None),
        (".", None),
        ("..", None),
    ] {
        assert_eq!(found(&table, host).as_deref(), name, "{host}");
    }
}

#[test]
fn without_a_domain_there_are_no_short_forms() {
    let names = table(&[("web.ns1.svc.cluster.local", [KUBERNETES, "web", "ns1"], &["10.0.0.1"])]);
    let table = Table::new(Arc::new(names), "ns1", "");
    assert!(table.find("web", None).is_none());
    assert!(table.find("web.ns1.svc.cluster.local", None).is_some());
}

#[test]
fn an_address_has_the_name_that_says_most() {
    let table = of(table(&[
        ("db.ns1.svc.cluster.local", [KUBERNETES, "db", "ns1"], &["10.1.0.1", "10.1.0.2"]),
        ("db-0.db.ns1.svc.cluster.local", [KUBERNETES, "db-0.db", "ns1"], &["10.1.0.1"]),
        ("a.example", EXTERNAL, &["10.0.0.1"]),
        ("web.ns1.svc.cluster.local", [KUBERNETES, "web", "ns1"], &["10.0.0.1"]),
        ("*.example", EXTERNAL, &["10.0.0.9"]),
        ("six.example", EXTERNAL, &["2001:db8:0::1"]),
    ]));
    let name = |ip: &str| table.name_of(ip.parse().unwrap());
    assert_eq!(name("10.1.0.1"), Some("db-0.db.ns1.svc.cluster.local"));
    assert_eq!(name("10.1.0.2"), Some("db.ns1.svc.cluster.local"));
    assert_eq!(name("10.0.0.1"), Some("web.ns1.svc.cluster.local"));
    assert_eq!(name("2001:db8::1"), Some("six.example"));
    assert_eq!(name("10.0.0.9"), None);
    assert_eq!(name("192.0.2.1"), None);
}
