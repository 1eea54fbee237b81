//! Envoy's permissions: what is asked for.

use proto::Any;
use proto::envoy::config::core::v3::TypedExtensionConfig;
use proto::envoy::config::rbac::v3::Permission;
use proto::envoy::config::rbac::v3::permission::{Rule, Set};
use proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use proto::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};

use super::matcher;
use super::rule::{Context, Unusable};

/// An attribute of what is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    Host,
    Method,
    Path,
    Port,
    Ip,
    Sni,
    /// Dynamic metadata of a filter, by key.
    Metadata(&'a str, &'a str),
}

fn of(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

pub(super) fn any() -> Permission {
    of(Rule::Any(true))
}

pub(super) fn all_of(rules: Vec<Permission>) -> Permission {
    of(Rule::AndRules(Set { rules }))
}

pub(super) fn one_of(rules: Vec<Permission>) -> Permission {
    of(Rule::OrRules(Set { rules }))
}

pub(super) fn not(rule: Permission) -> Permission {
    of(Rule::NotRule(Box::new(rule)))
}

/// One of those values; `None` when none is left.
pub(super) fn values(
    attribute: Attribute<'_>,
    values: &[String],
    context: Context<'_>,
) -> Result<Option<Permission>, Unusable> {
    if values.is_empty() {
        return Ok(None);
    }
    if let Attribute::Metadata(filter, key) = attribute {
        return context.usable(metadata(filter, key, values));
    }
    let mut rules = Vec::with_capacity(values.len());
    for value in values {
        rules.extend(context.usable(one(attribute, value, context))?);
    }
    Ok((!rules.is_empty()).then(|| one_of(rules)))
}

fn one(attribute: Attribute<'_>, value: &str, context: Context<'_>) -> Result<Permission, Unusable> {
    let rule = match attribute {
        Attribute::Host | Attribute::Method | Attribute::Path if context.is_tcp => return Err(Unusable),
        Attribute::Host => Rule::Header(matcher::header(":authority", value, true)),
        Attribute::Method => Rule::Header(matcher::header(":method", value, false)),
        Attribute::Path if config::path_template::is_template(value) => template(value)?,
        Attribute::Path => {
            let path = Some(path_matcher::Rule::Path(matcher::value(value, "")));
            Rule::UrlPath(PathMatcher { rule: path })
        }
        Attribute::Port => {
            let port: u16 = value.parse().map_err(|_| Unusable)?;
            Rule::DestinationPort(port.into())
        }
        Attribute::Ip => Rule::DestinationIp(matcher::cidr(value).ok_or(Unusable)?),
        Attribute::Sni => Rule::RequestedServerName(matcher::value(value, "")),
        Attribute::Metadata(..) => return Err(Unusable),
    };
    Ok(of(rule))
}

fn template(path: &str) -> Result<Rule, Unusable> {
    config::path_template::check(path).map_err(|_| Unusable)?;
    let path_template = path.replace("{*}", "*").replace("{**}", "**");
    Ok(Rule::UriTemplate(TypedExtensionConfig {
        name: "uri-template".into(),
        typed_config: Some(Any::pack(&UriTemplateMatchConfig { path_template })),
    }))
}

/// A string, or with brackets around it a string in a list.
fn metadata(filter: &str, key: &str, values: &[String]) -> Result<Permission, Unusable> {
    let matchers = values.iter().map(|value| {
        if value.starts_with('[') && value.ends_with(']') {
            let inner = value.trim_matches(|c| c == '[' || c == ']');
            matcher::list(matcher::string_value(matcher::value(inner, "")))
        } else {
            matcher::string_value(matcher::value(value, ""))
        }
    });
    let matcher = matcher::metadata(filter, &[key], matcher::any_of(matchers.collect()));
    Ok(of(Rule::Metadata(matcher.ok_or(Unusable)?)))
}
