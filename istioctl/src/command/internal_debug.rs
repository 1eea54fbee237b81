//! `experimental internal-debug`: pages of istiod, over xDS.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::anyhow;
use proto::envoy::service::discovery::v3::DiscoveryResponse;
use serde_json::Value;

use crate::args::Global;
use crate::args::xds::InternalDebug as Args;
use crate::failure::{Failure, Result, USAGE};
use crate::xds::{self, PAGE, Question, identifier};

/// The page that names all pages.
const LIST: &str = "list";
/// What istiod says of a proxy that is with another one.
const ELSEWHERE: &str = "Proxy not connected to this Pilot instance";
/// What it says of a page that needs a proxy.
const NO_PROXY: &str = "You must provide a proxyID";
/// What it says of a page that there is not.
const UNKNOWN: &str = "404 page not found";

/// Asks istiod for a page.
///
/// # Errors
/// When none answers, or there is no such page.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let page = match (&args.page, args.list) {
        (Some(page), false) => page.clone(),
        (None, true) => LIST.to_owned(),
        (Some(_), true) => return Err(anyhow!("--list names the pages: give no page with it").into()),
        (None, false) => {
            let error =
                anyhow!("debug type is required, you can specify --list flag to list supported debug types");
            return Err(Failure { code: USAGE, error: Some(error) });
        }
    };
    let names = [page.clone()];
    let answers = xds::ask(global, &args.xds, Question { type_url: PAGE, names: &names }).await?;
    let mut told: Vec<(String, String)> =
        answers.iter().map(|answer| (identifier(answer).id, text(answer))).collect();
    if told.iter().any(|(_, text)| text.starts_with(NO_PROXY)) {
        return Err(anyhow!("{page} is of one proxy: write for example {page}?proxyID=web-0.shop").into());
    }
    if told.iter().any(|(_, text)| text.starts_with(UNKNOWN)) {
        return Err(
            anyhow!("istiod has no page {page:?}; istioctl x internal-debug --list names them").into()
        );
    }
    if args.all {
        let by_id: BTreeMap<String, Value> = told
            .into_iter()
            .map(|(id, text)| {
                let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                (id, value)
            })
            .collect();
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&by_id)?)?);
    }
    // Of several, the one that knows.
    if let Some(at) = told.iter().position(|(_, text)| !text.starts_with(ELSEWHERE)) {
        told.swap(0, at);
    }
    let Some((_, text)) = told.first() else { return Ok(()) };
    let shown = match serde_json::from_str::<crate::json::Value<'_>>(text) {
        Ok(value) => pretty(&value),
        Err(_) => text.clone(),
    };
    Ok(writeln!(out, "{shown}")?)
}

fn text(answer: &DiscoveryResponse) -> String {
    let texts = answer.resources.iter().map(|resource| String::from_utf8_lossy(&resource.value).into_owned());
    texts.collect::<Vec<_>>().join("\n")
}

/// JSON with two blanks a level, its names in the order in which they came.
fn pretty(value: &crate::json::Value<'_>) -> String {
    let text = crate::render::json::render(value, crate::render::json::Style::Extension);
    let lines = text.lines().map(|line| {
        let inner = line.trim_start_matches(' ');
        format!("{}{inner}", " ".repeat((line.len() - inner.len()) / 2))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_by_two_and_keeps_its_order() {
        let value = serde_json::from_str(r#"[{"b": [1, {}], "a": "  x"}]"#).unwrap();
        assert_eq!(
            pretty(&value),
            "[\n  {\n    \"b\": [\n      1,\n      {}\n    ],\n    \"a\": \"  x\"\n  }\n]"
        );
    }
}
