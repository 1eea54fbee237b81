//! Our dashboards, `deploy/dashboards`: what each panel asks Prometheus.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// One query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// File of the dashboard.
    pub dashboard: String,
    /// Title of the panel, or name of the variable.
    pub panel: String,
    /// The query, as Grafana has it.
    pub text: String,
}

/// All queries of all dashboards of a folder: of panels and of variables.
///
/// # Errors
/// When a file is no dashboard, or a panel asks nothing.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let page = serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| name.clone())?;
            queries.extend(of(&name, &page).with_context(|| name.clone())?);
        }
    }
    Ok(queries)
}

fn of(dashboard: &str, page: &Value) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    let query = |panel: &str, text: &str| Query {
        dashboard: dashboard.to_owned(),
        panel: panel.to_owned(),
        text: text.to_owned(),
    };
    for variable in page["templating"]["list"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().context("a variable's name")?;
        match variable["type"].as_str() {
            Some("query") => {
                let asked = variable["query"]["query"].as_str().context("a variable's query")?;
                // `label_values(SERIES, LABEL)` is Grafana's own.
                let inner = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
                let (series, _) = inner.and_then(|inner| inner.rsplit_once(',')).context(asked.to_owned())?;
                queries.push(query(name, series));
            }
            Some("datasource" | "custom") => {}
            other => anyhow::bail!("variable {name}: type {other:?}"),
        }
    }
    for panel in page["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a panel's title")?;
        if matches!(panel["type"].as_str(), Some("row" | "text")) {
            continue;
        }
        let targets = panel["targets"].as_array().with_context(|| title.to_owned())?;
        ensure!(!targets.is_empty(), "{title}: no query");
        for target in targets {
            queries.push(query(title, target["expr"].as_str().with_context(|| title.to_owned())?));
        }
    }
    Ok(queries)
}

impl Query {
    /// The query with the values of its variables.
    ///
    /// # Errors
    /// When a variable has none.
    pub fn with(&self, values: &BTreeMap<&str, &str>) -> anyhow::Result<String> {
        let mut text = String::new();
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            text.push_str(before);
            let (name, end) = match after.strip_prefix('{') {
                Some(inner) => {
                    inner.split_once('}').map(|(name, end)| (name.split(':').next().unwrap_or(name), end))
                }
                None => {
                    let end =
                        after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                    Some(after.split_at(end))
                }
            }
            .with_context(|| self.text.clone())?;
            text.push_str(values.get(name).with_context(|| format!("{}: no value of ${name}", self.panel))?);
            rest = end;
        }
        text.push_str(rest);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_their_values() {
        let query = |text: &str| Query { dashboard: String::new(), panel: String::new(), text: text.into() };
        let values = BTreeMap::from([("a", "x|y"), ("__rate_interval", "1m")]);
        let text = query("rate(m{l=~\"$a\",k=\"${a:regex}z\"}[$__rate_interval])").with(&values).unwrap();
        assert_eq!(text, "rate(m{l=~\"x|y\",k=\"x|yz\"}[1m])");
        query("m{l=\"$b\"}").with(&values).unwrap_err();
    }

    #[test]
    fn every_panel_of_ours_asks_something() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dashboards");
        let queries = read(&folder).unwrap();
        assert!(queries.len() > 50, "{}", queries.len());
    }
}
