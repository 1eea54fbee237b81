//! Which of Envoy's statistics exist, and which parts of their names are tags.

use names::annotation;
use serde_json::{Value, json};

use super::Options;

/// Tags and the expressions that find them in names.
const TAGS: [(&str, &str); 16] = [
    ("cluster_name", r"^cluster(\.(.+);)"),
    ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)"),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
];
/// The tag after which tags of the user come.
const LAST_BEFORE_EXTRA: &str = "mongo_prefix";
/// Beginnings of names that exist whatever the user asks for.
const PREFIXES: [&str; 5] = ["cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"];
/// Ends of names that exist whatever the user asks for.
const SUFFIXES: [&str; 4] = ["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied"];
const ROUTES: &str = r"vhost\..*\.route\..*";

/// `stats_config`.
pub(super) fn config(options: &Options<'_>) -> Value {
    let mut tags = Vec::new();
    for (name, regex) in TAGS {
        tags.push(json!({"tag_name": name, "regex": regex}));
        if name == LAST_BEFORE_EXTRA {
            for extra in &options.proxy.extra_stat_tags {
                tags.push(json!({"tag_name": extra, "regex": format!(r"({extra}\.=\.(.*?);\.)")}));
            }
        }
    }
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags,
        "stats_matcher": {"inclusion_list": {"patterns": patterns(options)}},
    })
}

fn patterns(options: &Options<'_>) -> Vec<Value> {
    let matcher = options.proxy.proxy_stats_matcher.clone().unwrap_or_default();
    let asked = |name: &str, configured: Vec<String>| -> Vec<String> {
        let listed = options.annotations.get(name);
        let given = listed.map_or(configured, |list| list.split(',').map(str::to_owned).collect());
        given.iter().filter(|one| !one.is_empty()).flat_map(|one| expand(one, options)).collect()
    };
    let prefixes = asked(annotation::STATS_INCLUSION_PREFIXES, matcher.inclusion_prefixes);
    let suffixes = asked(annotation::STATS_INCLUSION_SUFFIXES, matcher.inclusion_suffixes);
    let regexps = asked(annotation::STATS_INCLUSION_REGEXPS, matcher.inclusion_regexps);
    let prefix = |text: &str| json!({"prefix": text});
    let suffix = |text: &str| json!({"suffix": text});
    let regex = |text: &str| json!({"safe_regex": {"regex": text}});

    let mut all = vec![prefix("reporter=")];
    all.extend(prefixes.iter().map(|text| prefix(text)));
    all.extend(PREFIXES.map(prefix));
    all.extend(suffixes.iter().map(|text| suffix(text)));
    all.extend(SUFFIXES.map(suffix));
    if options.count_connections {
        all.push(suffix("downstream_cx_active"));
    }
    all.extend(regexps.iter().map(|text| regex(text)));
    all.push(regex(ROUTES));
    all.extend(["component", "istio"].map(prefix));
    all
}

/// `{pod_ip}` stands for each address of the pod.
fn expand(pattern: &str, options: &Options<'_>) -> Vec<String> {
    const POD_IP: &str = "{pod_ip}";
    if !pattern.contains(POD_IP) {
        return vec![pattern.to_owned()];
    }
    options.node.ips.iter().map(|ip| pattern.replace(POD_IP, &ip.to_string())).collect()
}
