//! A mesh that has several trust domains means all of them when it names one.

/// What users write for the trust domain of the mesh, whatever its name is.
const LOCAL: &str = "cluster.local";

/// Principals, each of which names one of the trust domains, for all of them.
pub(super) fn expand_principals(principals: &[String], domains: &[String]) -> Vec<String> {
    let mut expanded = Vec::with_capacity(principals.len());
    for principal in principals {
        match split(principal) {
            Some((domain, rest))
                if domain != "*" && (domain == LOCAL || domains.iter().any(|known| fits(domain, known))) =>
            {
                let mut all: Vec<String> = Vec::with_capacity(domains.len());
                for known in domains {
                    // A pattern that this domain fits says the same as before.
                    let is_meant = domain.strip_prefix('*').is_some_and(|end| known.ends_with(end));
                    let next = if is_meant { principal.clone() } else { format!("{known}/{rest}") };
                    if !all.contains(&next) {
                        all.push(next);
                    }
                }
                expanded.append(&mut all);
            }
            _ => expanded.push(principal.clone()),
        }
    }
    expanded
}

/// Trust domains, with all of the mesh where one of them is named.
pub(super) fn expand_domains(values: &[String], domains: &[String]) -> Vec<String> {
    let mut expanded: Vec<String> = Vec::with_capacity(values.len());
    for value in values {
        let all = if domains.contains(value) { domains } else { std::slice::from_ref(value) };
        for domain in all {
            if !expanded.contains(domain) {
                expanded.push(domain.clone());
            }
        }
    }
    expanded
}

/// The trust domain and the rest of `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn split(principal: &str) -> Option<(&str, &str)> {
    if principal.split('/').count() != 5 {
        return None;
    }
    principal.split_once('/')
}

/// Whether one of both, either of which may be a pattern, is the other.
fn fits(one: &str, other: &str) -> bool {
    let matches = |text: &str, pattern: &str| {
        pattern.strip_suffix('*').is_some_and(|start| text.starts_with(start))
            || pattern.strip_prefix('*').is_some_and(|end| text.ends_with(end))
    };
    one == other || matches(one, other) || matches(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_known_domain_stands_for_all() {
        let domains = strings(&["td1", "td2", "some-td"]);
        for (principal, want) in [
            ("td1/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "some-td/ns/a/sa/b"][..]),
            ("cluster.local/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "some-td/ns/a/sa/b"]),
            ("*-td/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "*-td/ns/a/sa/b"]),
            ("td*/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "some-td/ns/a/sa/b"]),
            ("other/ns/a/sa/b", &["other/ns/a/sa/b"]),
            ("*/ns/a/sa/b", &["*/ns/a/sa/b"]),
            ("td1/ns/a/sa/*", &["td1/ns/a/sa/*", "td2/ns/a/sa/*", "some-td/ns/a/sa/*"]),
            ("td1/sa/b", &["td1/sa/b"]),
            ("*", &["*"]),
        ] {
            assert_eq!(expand_principals(&strings(&[principal]), &domains), want, "{principal}");
        }
    }

    #[test]
    fn trust_domains_are_listed_once() {
        let domains = strings(&["td1", "td2"]);
        assert_eq!(expand_domains(&strings(&["td2", "x*", "td1"]), &domains), ["td1", "td2", "x*"]);
    }
}
