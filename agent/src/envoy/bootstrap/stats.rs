//! Which of Envoy's statistics exist, and which parts of their names are tags.

use std::collections::BTreeMap;

use mesh::ProxyConfig;
use names::annotation;
use proto::wkt::Duration;
use serde_json::{Value, json};

use super::Options;

/// Time between two flushes unless told otherwise.
const FLUSH_INTERVAL: Duration = Duration { seconds: 5, nanos: 0 };

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

/// Which statistics the user asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Beginnings of names that exist.
    prefixes: Vec<String>,
    /// Ends of names that exist.
    suffixes: Vec<String>,
    /// Expressions for names that exist.
    regexps: Vec<String>,
    /// Tags beside those that are always there.
    tags: Vec<String>,
    /// Limits of buckets by the beginning of a histogram's name.
    buckets: BTreeMap<String, Vec<f64>>,
    /// Keep the counters of open connections.
    count_connections: bool,
    /// Time between two flushes.
    pub(super) flush_interval: Option<Duration>,
    /// Time after which unused statistics are dropped.
    pub(super) eviction_interval: Option<Duration>,
}

impl Settings {
    /// Reads them; annotations beat the configuration. What cannot be read is
    /// left out and told.
    #[must_use]
    pub fn read(
        proxy: &ProxyConfig,
        annotations: &BTreeMap<String, String>,
        count_connections: bool,
    ) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let matcher = proxy.proxy_stats_matcher.clone().unwrap_or_default();
        let annotated = |name: &str| annotations.get(name).filter(|text| !text.is_empty());
        let list = |name: &str, configured: Vec<String>| -> Vec<String> {
            let listed = annotated(name).map(|text| text.split(',').map(str::to_owned).collect());
            let all: Vec<String> = listed.unwrap_or(configured);
            all.into_iter().filter(|one| !one.is_empty()).collect()
        };
        let mut tags: Vec<String> = Vec::new();
        let more = annotated(annotation::EXTRA_STAT_TAGS).into_iter().flat_map(|text| text.split(','));
        for tag in proxy.extra_stat_tags.iter().map(String::as_str).chain(more) {
            if !tag.is_empty() && !tags.iter().any(|known| known == tag) {
                tags.push(tag.to_owned());
            }
        }
        let mut unreadable = |name: &str, text: &str, expected: &str| {
            warnings.push(format!("annotation {name}: {text:?} has no effect: expected {expected}"));
        };
        let name = annotation::STATS_HISTOGRAM_BUCKETS;
        let buckets = annotated(name).and_then(|text| {
            let buckets = serde_json::from_str(text).ok();
            if buckets.is_none() {
                unreadable(name, text, "a JSON object of prefixes with lists of limits");
            }
            buckets
        });
        let mut interval = |name: &str| {
            let text = annotated(name)?;
            let span = text.parse::<Duration>().ok().filter(|span| span.as_nanos() > 0);
            if span.is_none() {
                unreadable(name, text, "a duration such as 10s");
            }
            span
        };
        let flush_interval = interval(annotation::STATS_FLUSH_INTERVAL);
        let name = annotation::STATS_EVICTION_INTERVAL;
        let mut eviction_interval = interval(name);
        let flush = flush_interval.unwrap_or(FLUSH_INTERVAL);
        if let Some(eviction) = eviction_interval
            && eviction.as_nanos() % flush.as_nanos() != 0
        {
            unreadable(name, &eviction.to_string(), &format!("a multiple of the flush interval of {flush}"));
            eviction_interval = None;
        }
        let settings = Self {
            prefixes: list(annotation::STATS_INCLUSION_PREFIXES, matcher.inclusion_prefixes),
            suffixes: list(annotation::STATS_INCLUSION_SUFFIXES, matcher.inclusion_suffixes),
            regexps: list(annotation::STATS_INCLUSION_REGEXPS, matcher.inclusion_regexps),
            tags,
            buckets: buckets.unwrap_or_default(),
            count_connections,
            flush_interval,
            eviction_interval,
        };
        (settings, warnings)
    }
}

/// `stats_config`.
pub(super) fn config(options: &Options<'_>) -> Value {
    let mut tags = Vec::new();
    for (name, regex) in TAGS {
        tags.push(json!({"tag_name": name, "regex": regex}));
        if name == LAST_BEFORE_EXTRA {
            for extra in &options.stats.tags {
                tags.push(json!({"tag_name": extra, "regex": format!(r"({extra}=\.=(.*?);\.;)")}));
            }
        }
    }
    let mut config = json!({
        "use_all_default_tags": false,
        "stats_tags": tags,
        "stats_matcher": {"inclusion_list": {"patterns": patterns(options)}},
    });
    if !options.stats.buckets.is_empty() {
        let buckets = options.stats.buckets.iter();
        config["histogram_bucket_settings"] =
            buckets.map(|(prefix, limits)| json!({"match": {"prefix": prefix}, "buckets": limits})).collect();
    }
    config
}

fn patterns(options: &Options<'_>) -> Vec<Value> {
    let settings = options.stats;
    let expanded = |asked: &[String]| asked.iter().flat_map(|one| expand(one, options)).collect::<Vec<_>>();
    let prefix = |text: &str| json!({"prefix": text});
    let suffix = |text: &str| json!({"suffix": text});
    let regex = |text: &str| json!({"safe_regex": {"regex": text}});

    let mut all = vec![prefix("reporter=")];
    all.extend(expanded(&settings.prefixes).iter().map(|text| prefix(text)));
    all.extend(PREFIXES.map(prefix));
    all.extend(expanded(&settings.suffixes).iter().map(|text| suffix(text)));
    all.extend(SUFFIXES.map(suffix));
    if settings.count_connections {
        all.push(suffix("downstream_cx_active"));
    }
    all.extend(expanded(&settings.regexps).iter().map(|text| regex(text)));
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
