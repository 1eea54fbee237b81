//! The table of variables as text for `istio-agent proxy --help`.

use std::fmt::Write as _;

use super::{CA_HEADER, GROUPS, META, META_JSON, XDS_HEADER};

/// Families of variables, by the beginning of their names.
pub const PREFIXES: [(&str, &str); 4] = [
    (META, "Node metadata: the rest of the name and the value are told to istiod."),
    (META_JSON, "Node metadata: the fields of the JSON object are told to istiod."),
    (CA_HEADER, "Header of calls to the CA."),
    (XDS_HEADER, "Header of xDS streams."),
];

/// All variables by subject, with defaults.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Environment variables, also set by proxyMetadata of the ProxyConfig (the environment wins):\n",
    );
    // Writing to a string does not fail.
    for group in GROUPS {
        writeln!(text, "\n{}:", group.title).ok();
        for variable in group.variables {
            let default = if variable.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", variable.default)
            };
            writeln!(text, "  {}{default}\n      {}", variable.name, variable.doc).ok();
        }
    }
    text.push_str("\nFamilies of variables:\n");
    for (prefix, doc) in PREFIXES {
        writeln!(text, "  {prefix}*\n      {doc}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_in_the_help() {
        let text = help();
        assert!(text.contains("  SECRET_TTL [default: 24h]\n      Lifetime"));
        assert!(text.contains("  ISTIO_META_*\n"));
        for variable in GROUPS.iter().flat_map(|group| group.variables) {
            assert!(text.contains(&format!("  {}", variable.name)), "{}", variable.name);
        }
    }
}
