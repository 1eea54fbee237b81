//! `experimental authz check`: which policies the Envoy of a pod has.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::{Context as _, anyhow};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::proxy_config::file;
use crate::args::Global;
use crate::args::authz::Check;
use crate::dump::view::{Filter, HttpConnectionManager, Listener};
use crate::dump::{ConfigDump, Error, State};
use crate::failure::Result;
use crate::json::Text;
use crate::proxies::Mesh;
use crate::render::table::Table;

const HTTP: &str = "envoy.filters.network.http_connection_manager";
/// The name of the same before it had its prefix.
const OLD_HTTP: &str = "envoy.http_connection_manager";
const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const HTTP_RBAC_TYPE: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const TCP_RBAC: &str = "envoy.filters.network.rbac";
const TCP_RBAC_TYPE: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
/// Begin of the names of policies that ask somebody else.
const CUSTOM: &str = "istio-ext-authz-";
/// What a filter without policies is called: none of them matches.
const NOTHING: &str = "_anonymous_match_nothing_";
/// Blanks between columns.
const PADDING: usize = 3;
const PAGE: &str = "config_dump?mask=dynamic_listeners";
/// In the order in which they are decided.
const ACTIONS: [&str; 7] =
    ["DENY", "ALLOW", "LOG", "CUSTOM", "DENY (dry run)", "ALLOW (dry run)", "LOG (dry run)"];

/// An RBAC filter, of either kind.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rbac<'a> {
    #[serde(borrow)]
    rules: Rules<'a>,
    #[serde(borrow, alias = "shadowRules")]
    shadow_rules: Rules<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rules<'a> {
    #[serde(borrow)]
    action: Text<'a>,
    #[serde(borrow)]
    policies: BTreeMap<Text<'a>, IgnoredAny>,
}

impl Rules<'_> {
    fn action(&self) -> &str {
        if self.action.is_empty() { "ALLOW" } else { &self.action }
    }
}

/// What was found: the names of policies by action, and the rules of each.
#[derive(Default)]
struct Found {
    policies: BTreeMap<String, BTreeSet<String>>,
    rules: BTreeMap<String, BTreeSet<String>>,
}

impl Found {
    fn add(&mut self, action: &str, policy: &str, rule: &str) {
        self.policies.entry(action.to_owned()).or_default().insert(policy.to_owned());
        self.rules.entry(policy.to_owned()).or_default().insert(rule.to_owned());
    }

    fn filter(&mut self, rbac: &Rbac<'_>, with_tried: bool) {
        let action = rbac.rules.action();
        for name in rbac.rules.policies.keys() {
            let (policy, rule) = parts(name);
            self.add(action, &policy, rule);
        }
        for name in rbac.shadow_rules.policies.keys() {
            let (policy, rule) = parts(name);
            if name.starts_with(CUSTOM) {
                self.add("CUSTOM", &policy, rule);
            } else if with_tried {
                self.add(&format!("{} (dry run)", rbac.shadow_rules.action()), &policy, rule);
            }
        }
        if rbac.rules.policies.is_empty() {
            self.add(action, NOTHING, "0");
        }
    }

    fn listener(&mut self, listener: &Listener<'_>, with_tried: bool) -> serde_json::Result<()> {
        for filter in listener.filter_chains.iter().flat_map(|chain| &chain.filters) {
            match &*filter.name {
                HTTP | OLD_HTTP => {
                    let manager: HttpConnectionManager<'_> = filter.read()?;
                    for filter in manager.http_filters.iter().filter(|filter| &*filter.name == HTTP_RBAC) {
                        self.read(filter, HTTP_RBAC_TYPE, with_tried)?;
                    }
                }
                TCP_RBAC => self.read(filter, TCP_RBAC_TYPE, with_tried)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read(&mut self, filter: &Filter<'_>, kind: &str, with_tried: bool) -> serde_json::Result<()> {
        if filter.typed_config.is_none() || filter.type_name() == kind {
            self.filter(&filter.read()?, with_tried);
        }
        Ok(())
    }
}

/// Namespace, name and rule of a policy's name, `ns[NS]-policy[NAME]-rule[N]`; nothing
/// of one that has another form.
fn parts(name: &str) -> (String, &str) {
    let parts = || {
        let (_, rest) = name.split_once("ns[")?;
        let (rest, rule) = rest.strip_suffix(']').unwrap_or(rest).rsplit_once("]-rule[")?;
        let (namespace, name) = rest.rsplit_once("]-policy[")?;
        Some((format!("{name}.{namespace}"), rule))
    };
    parts().unwrap_or_default()
}

/// Shows the policies of a proxy.
///
/// # Errors
/// When a proxy or file cannot be read, or is none.
pub async fn run(args: &Check, global: &Global, out: &mut impl Write) -> Result {
    let text = match (&args.target.file, &args.target.proxy) {
        (Some(path), _) => {
            file(path).with_context(|| format!("failed to get config dump from file {}", path.display()))?
        }
        (None, Some(name)) => {
            let mesh = Mesh::open(global).await?;
            let proxy = mesh.proxy(name).await?;
            mesh.admin(&proxy, args.proxy_admin_port).get(PAGE).await?
        }
        (None, None) => {
            return Err(anyhow!(
                "expecting pod name or config dump, found: 0; see istioctl x authz check --help"
            )
            .into());
        }
    };
    Ok(out.write_all(table(&text, args.all)?.as_bytes())?)
}

fn table(text: &str, with_tried: bool) -> anyhow::Result<String> {
    let dump = ConfigDump::parse(text)?;
    let listeners: Vec<_> = dump.listeners()?.into_iter().filter(|one| one.state == State::Active).collect();
    if listeners.is_empty() {
        // A proxy without listeners has no table, as one without policies has an empty one.
        return Ok(String::new());
    }
    let mut found = Found::default();
    for resource in listeners {
        let listener: Listener<'_> = resource.read()?;
        let read = found.listener(&listener, with_tried);
        read.map_err(|source| Error::Part { what: "a filter", source })?;
    }
    let mut table = Table::new(PADDING);
    table.row(["ACTION", "AuthorizationPolicy", "RULES"]);
    for action in ACTIONS {
        for policy in found.policies.get(action).into_iter().flatten() {
            let rules = found.rules.get(policy).map_or(0, BTreeSet::len);
            table.row([action.to_owned(), policy.clone(), rules.to_string()]);
        }
    }
    Ok(table.render())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn dump(filters: &Value) -> String {
        json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "dynamic_listeners": [{"name": "a", "active_state": {"listener": {
                "name": "virtualInbound", "filter_chains": [{"filters": filters}],
            }}}],
        }]})
        .to_string()
    }

    fn http(rbac: &Value) -> Value {
        json!({"name": HTTP, "typed_config": {"@type": "type.googleapis.com/x", "http_filters": [
            {"name": HTTP_RBAC, "typed_config": rbac},
        ]}})
    }

    const OF_HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

    #[test]
    fn policies_are_told_by_action_with_the_number_of_their_rules() {
        let allow = json!({"@type": OF_HTTP, "rules": {"policies": {
            "ns[shop]-policy[web]-rule[0]": {}, "ns[shop]-policy[web]-rule[1]": {},
        }}});
        let deny = json!({"@type": OF_HTTP, "rules": {"action": "DENY", "policies": {"ns[a]-policy[b.c]-rule[0]": {}}}});
        let ask = json!({"@type": OF_HTTP, "shadow_rules": {"action": "DENY", "policies": {
            "istio-ext-authz-ns[shop]-policy[ask]-rule[0]": {}, "ns[shop]-policy[tried]-rule[0]": {},
        }}});
        let tcp = json!({"name": TCP_RBAC, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
            "rules": {"action": "LOG", "policies": {"ns[shop]-policy[log]-rule[0]": {}}},
        }});
        let text = dump(&json!([http(&allow), http(&deny), http(&ask), tcp]));
        let wanted = "ACTION   AuthorizationPolicy         RULES\n\
                      DENY     b.c.a                       1\n\
                      ALLOW    _anonymous_match_nothing_   1\n\
                      ALLOW    web.shop                    2\n\
                      LOG      log.shop                    1\n\
                      CUSTOM   ask.shop                    1\n";
        assert_eq!(table(&text, false).unwrap(), wanted);
        let all = table(&text, true).unwrap();
        assert!(
            all.lines().any(|line| line.starts_with("DENY (dry run)") && line.contains("tried.shop")),
            "{all}"
        );
    }

    #[test]
    fn what_is_no_policy_of_istio_has_no_name() {
        assert_eq!(parts("envoy-own"), (String::new(), ""));
        assert_eq!(parts("ns[a]-policy[b]-rule[3]"), ("b.a".to_owned(), "3"));
        let other = http(&json!({"@type": "type.googleapis.com/other", "rules": {"action": "DENY"}}));
        assert_eq!(table(&dump(&json!([other])), false).unwrap(), "ACTION   AuthorizationPolicy   RULES\n");
    }

    #[test]
    fn a_dump_without_listeners_is_told() {
        let error = table(r#"{"configs": []}"#, false).unwrap_err().to_string();
        assert!(error.contains("ListenersConfigDump"), "{error}");
        let none = r#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump"}]}"#;
        assert_eq!(table(none, false).unwrap(), "");
    }
}
