//! `istio-init status`: what is installed, by whom, and whether it is what the
//! flags ask for.

use std::fmt::Write as _;

use clap::Parser;
use serde_json::json;

use crate::args::Args;
use crate::config::Config;
use crate::family::Family;
use crate::live::{self, Live};
use crate::work::Work;

/// Tell what is installed, by which back end, and whether it is what the flags ask for.
#[derive(Clone, Debug, Parser)]
#[command(name = "istio-init status", args_override_self = true, after_help = AFTER_HELP)]
pub struct Status {
    #[command(flatten)]
    pub(crate) flags: Args,
}

const AFTER_HELP: &str = "\
Prints text, or with `-o json` one JSON object. Exit status: 0 what is installed is what the flags and \
the environment ask for, or none were given; 1 it is not.

Example: istio-init status -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -x '' -b '*' -d 15090,15021,15020";

/// What is installed and, when flags were given, what is not as they ask.
#[derive(Debug)]
pub struct Report {
    live: Live,
    /// What a run with the flags would change, part by part.
    pending: Option<Vec<(String, String)>>,
}

impl Report {
    /// Reads what is installed, and compares if there is something to compare
    /// it with.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(config: Option<&Config>) -> anyhow::Result<Self> {
        let pending = config.map(|config| Work::prepare(config)?.pending()).transpose()?;
        Ok(Self { live: live::read()?, pending })
    }

    /// Whether something differs from what the flags ask for.
    pub fn has_drifted(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.is_empty())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let ours: Vec<_> = self.live.found.iter().filter(|found| found.ours != [0, 0]).collect();
        if ours.is_empty() {
            text += "Installed: nothing\n";
        }
        for found in ours {
            let [v4, v6] = found.ours;
            // Writing to a string does not fail.
            let _ = writeln!(text, "Installed: by {}, {v4} IPv4 rules, {v6} IPv6 rules", found.by.name());
        }
        for route in &self.live.routes {
            let family = family(route.family);
            let state = if route.is_complete { "to lo" } else { "without a route to lo" };
            let _ = writeln!(
                text,
                "Route: {family} packets of mark {:#x} by table {}, {state}",
                route.route.mark, route.route.table
            );
        }
        if self.live.has_passthrough {
            text += "Address: ::6 on lo\n";
        }
        for unknown in &self.live.unknown {
            let _ = writeln!(text, "Not known: {unknown}");
        }
        match &self.pending {
            None => text += "Wanted: not known; give the flags of the init container to compare\n",
            Some(pending) if pending.is_empty() => text += "Wanted: the same, nothing would change\n",
            Some(pending) => {
                text += "Wanted: something else; a run with these flags would change\n";
                for (what, change) in pending {
                    let _ = writeln!(text, "# {what}\n{}", change.trim_end());
                }
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let installed =
            self.live.found.iter().filter(|found| found.ours != [0, 0]).map(
                |found| json!({ "by": found.by, "ipv4Rules": found.ours[0], "ipv6Rules": found.ours[1] }),
            );
        let routes = self.live.routes.iter().map(|route| {
            json!({
                "family": family(route.family), "mark": route.route.mark, "table": route.route.table,
                "complete": route.is_complete,
            })
        });
        let changes = self.pending.as_ref().map(|pending| {
            let changes = pending.iter().map(|(what, change)| json!({ "by": what, "change": change }));
            changes.collect::<Vec<_>>()
        });
        json!({
            "installed": installed.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            "passthroughAddress": self.live.has_passthrough,
            "unknown": self.live.unknown,
            "drifted": self.pending.as_ref().map(|pending| !pending.is_empty()),
            "changes": changes,
        })
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
