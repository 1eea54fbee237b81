//! `experimental wait`: until the proxies have accepted an object as it is now.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use analysis::Kind;
use anyhow::{Context as _, anyhow, bail};
use config::digest;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::args::Global;
use crate::args::wait::Wait as Args;
use crate::args::xds::Xds;
use crate::failure::Result;
use crate::proxies::{Mesh, Proxy};
use crate::xds::{self, PAGE, Question};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for the answer to one.
const ANSWER: Duration = Duration::from_secs(30);
/// What istiod says of an object that is not there.
const ABSENT: &str = "absent";
/// Where it says which versions were accepted.
const ACKED: &str = "_acked";

/// Waits, and says how many proxies have it.
///
/// # Errors
/// When they do not have it in time, or there is no such object.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let is_deletion = match args.condition.as_str() {
        "distribution" => false,
        "delete" => true,
        other => return Err(anyhow!("--for must be 'delete' or 'distribution', got: {other}").into()),
    };
    if !(0.0..=1.0).contains(&args.threshold) {
        return Err(anyhow!("--threshold {}: expected a number from 0 to 1", args.threshold).into());
    }
    let kind = kind(&args.kind)?;
    let mesh = Mesh::open(global).await?;
    let object = mesh.named(&args.name);
    let full = format!("{kind}/{}/{}", object.namespace, object.name);
    let deadline = Instant::now() + args.xds.timeout;
    let mut seen = Seen::default();
    let wanted = Wanted { args, global, mesh: &mesh, kind, object: &object, full: &full, is_deletion };
    match timeout_at(deadline, wanted.until(&mut seen)).await {
        Ok(told) => Ok(writeln!(out, "{}", told?)?),
        Err(_) => Err(late(&seen, &full).into()),
    }
}

fn late(seen: &Seen, full: &str) -> anyhow::Error {
    let (count, all) = seen.count();
    let left = seen.left();
    let who = if left.is_empty() { String::new() } else { format!("; not on {}", left.join(", ")) };
    anyhow!(
        "timeout expired before resource {full} became effective on all sidecars: it is on {count} of {all}{who}"
    )
}

/// What is waited for.
struct Wanted<'a> {
    args: &'a Args,
    global: &'a Global,
    mesh: &'a Mesh,
    kind: Kind,
    object: &'a Proxy,
    /// Name of the object, as istiod knows it.
    full: &'a str,
    is_deletion: bool,
}

impl Wanted<'_> {
    /// Asks until enough proxies have it; what is to be said then.
    async fn until(&self, seen: &mut Seen) -> anyhow::Result<String> {
        let Self { args, global, mesh, kind, object, full, is_deletion } = *self;
        let names = [format!("config_distribution?resource={full}")];
        let xds = Xds { timeout: ANSWER, ..args.xds.clone() };
        loop {
            let wanted = if is_deletion {
                Some(ABSENT.to_owned())
            } else {
                version(mesh, kind, object, args.generation).await?
            };
            if let Some(wanted) = &wanted {
                let answers = xds::ask(global, &xds, Question { type_url: PAGE, names: &names }).await?;
                seen.look_for(wanted);
                let texts = answers.iter().flat_map(|answer| &answer.resources).map(|one| one.value.clone());
                for text in texts {
                    let page: Vec<Value> = serde_json::from_slice(&text).with_context(|| {
                        format!(
                            "istiod does not say which proxies have an object: {}",
                            String::from_utf8_lossy(&text).trim()
                        )
                    })?;
                    seen.take(&page, wanted, &args.proxy);
                }
                if args.verbose {
                    let left = seen.left();
                    let left = if left.is_empty() {
                        String::new()
                    } else {
                        format!("; waiting for {}", left.join(", "))
                    };
                    eprintln!("{} of {} sidecars{left}", seen.count().0, seen.count().1);
                }
                if seen.is_enough(args.threshold) {
                    let (count, all) = seen.count();
                    let what = if is_deletion { "absent from" } else { "present on" };
                    return Ok(format!("Resource {full} {what} {count} out of {all} sidecars"));
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// The kind that a word names: `virtualservice`, `VirtualServices`, with its group or not.
fn kind(word: &str) -> anyhow::Result<Kind> {
    let wanted = word.split('.').next().unwrap_or(word).to_lowercase();
    let known = || Kind::ALL.iter().copied().filter(|kind| kind.istio().is_some());
    let found = known().find(|kind| kind.as_str().to_lowercase() == wanted || kind.plural() == wanted);
    found.with_context(|| {
        let names: Vec<String> = known().map(|kind| kind.as_str().to_lowercase()).collect();
        format!("type {word} is not recognized; there are {}", names.join(", "))
    })
}

/// What the object says now; none while its generation is an older one.
async fn version(
    mesh: &Mesh,
    kind: Kind,
    object: &Proxy,
    generation: Option<i64>,
) -> anyhow::Result<Option<String>> {
    let found = mesh.object(kind, &object.namespace, &object.name).await?;
    let found = found.with_context(|| {
        format!(
            "there is no {kind} {:?} in the namespace {:?}; -n names another one",
            object.name, object.namespace
        )
    })?;
    if generation.is_some_and(|wanted| found["metadata"]["generation"].as_i64().unwrap_or(wanted) < wanted) {
        return Ok(None);
    }
    let read = config::yaml::read("the object", &found.to_string());
    let Some(read_object) = read.objects.first() else {
        let why: Vec<String> = read.problems.iter().map(ToString::to_string).collect();
        bail!("the object cannot be in force: {}", why.join("; "));
    };
    Ok(Some(digest::of(&read_object.spec)))
}

/// Which proxies have it. One that has had it once has it: what has changed since
/// then is something else.
#[derive(Debug, Default)]
struct Seen {
    wanted: String,
    have: BTreeSet<String>,
    /// In the last answers, each with whether it has it.
    now: BTreeMap<String, bool>,
}

impl Seen {
    fn look_for(&mut self, wanted: &str) {
        if self.wanted != wanted {
            wanted.clone_into(&mut self.wanted);
            self.have.clear();
        }
        self.now.clear();
    }

    /// Takes what an istiod says.
    fn take(&mut self, page: &[Value], wanted: &str, only: &str) {
        for row in page {
            let name = row["proxy"].as_str().unwrap_or_default();
            if !only.is_empty() && name != only {
                continue;
            }
            let versions = row.as_object().into_iter().flatten().filter(|(field, _)| field.ends_with(ACKED));
            let mut versions = versions.map(|(_, version)| version).peekable();
            // Who has asked for nothing is no proxy, but somebody who looks.
            if versions.peek().is_none() {
                continue;
            }
            let has_it = versions.all(|version| version == wanted) || self.have.contains(name);
            if has_it {
                self.have.insert(name.to_owned());
            }
            // A proxy may be with two istiods for a moment.
            let known = self.now.entry(name.to_owned()).or_default();
            *known |= has_it;
        }
    }

    fn count(&self) -> (usize, usize) {
        (self.now.values().filter(|has_it| **has_it).count(), self.now.len())
    }

    fn left(&self) -> Vec<String> {
        self.now.iter().filter(|(_, has_it)| !**has_it).map(|(name, _)| name.clone()).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "there are fewer proxies than 2^52")]
    fn is_enough(&self, threshold: f64) -> bool {
        let (count, all) = self.count();
        all > 0 && count as f64 >= threshold * all as f64
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_named_as_kubectl_names_them() {
        for word in
            ["virtualservice", "VirtualService", "virtualservices", "virtualservices.networking.istio.io"]
        {
            assert_eq!(kind(word).unwrap().as_str(), "VirtualService");
        }
        let error = kind("pod").unwrap_err().to_string();
        assert!(error.contains("type pod is not recognized") && error.contains("destinationrule"), "{error}");
    }

    #[test]
    fn a_proxy_has_it_when_all_that_it_asks_for_is_of_it() {
        let mut seen = Seen::default();
        seen.look_for("v2");
        let row = |name: &str, cluster: &str, route: &str| json!({"proxy": name, "cluster_acked": cluster, "route_acked": route});
        seen.take(&[row("a", "v2", "v2"), row("b", "v2", ""), json!({"proxy": "istioctl"})], "v2", "");
        assert_eq!((seen.count(), seen.left()), ((1, 2), vec!["b".to_owned()]));
        assert!(seen.is_enough(0.5) && !seen.is_enough(1.0));
        // Something else is under way at a, and another istiod has c.
        seen.look_for("v2");
        seen.take(&[row("a", "", ""), row("b", "v2", "v2")], "v2", "");
        seen.take(&[row("c", "v1", "v1")], "v2", "");
        assert_eq!(seen.count(), (2, 3));
        // It was changed meanwhile.
        seen.look_for("v3");
        seen.take(&[row("a", "v2", "v2")], "v3", "a");
        assert_eq!(seen.count(), (0, 1));
        assert!(!Seen::default().is_enough(0.0));
    }
}
