//! `docs/agent.md` says what the program says: its tables are made from the
//! command line and the table of variables. `BLESS=1` writes them anew.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use istio_agent::config::args::Args;
use istio_agent::config::env::{GROUPS, help::PREFIXES};

const BEGIN: &str = "<!-- generated: BLESS=1 cargo test -p istio-agent --test reference -->\n";
const END: &str = "<!-- end of generated -->\n";

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

fn flags(command: &clap::Command) -> String {
    let mut text = String::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let name = match (arg.get_long(), arg.get_short()) {
            (Some(long), Some(short)) => format!("`--{long}`, `-{short}`"),
            (Some(long), None) => format!("`--{long}`"),
            (None, Some(short)) => format!("`-{short}`"),
            (None, None) => format!("`{}`", arg.get_id().as_str().to_uppercase()),
        };
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        let default = defaults.join(",");
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "| {name} | {default} | {} |", cell(&help)).unwrap();
    }
    text
}

fn generated() -> String {
    let command = Args::command();
    let mut text = String::from("\n## Commands\n\n| command | |\n|---|---|\n");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "| `{}` | {} |", sub.get_name(), cell(&about)).unwrap();
    }
    writeln!(
        text,
        "\nFlags of all commands; unknown ones are ignored:\n\n| flag | default | |\n|---|---|---|\n{}",
        flags(&command).trim_end()
    )
    .unwrap();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let rows = flags(sub);
        if !rows.is_empty() {
            writeln!(
                text,
                "\n### `{}`\n\n| flag | default | |\n|---|---|---|\n{}",
                sub.get_name(),
                rows.trim_end()
            )
            .unwrap();
        }
    }
    text.push_str(
        "\n## Environment\n\n`proxyMetadata` of the ProxyConfig sets them too; the environment wins.\n",
    );
    for group in GROUPS {
        writeln!(text, "\n### {}\n\n| variable | default | |\n|---|---|---|", group.title).unwrap();
        for variable in group.variables {
            let default =
                if variable.default.is_empty() { String::new() } else { format!("`{}`", variable.default) };
            writeln!(text, "| `{}` | {default} | {} |", variable.name, cell(variable.doc)).unwrap();
        }
    }
    text.push_str("\n### Families of variables\n\n| variable | |\n|---|---|\n");
    for (prefix, doc) in PREFIXES {
        writeln!(text, "| `{prefix}*` | {} |", cell(doc)).unwrap();
    }
    text.push('\n');
    text
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test's environment")]
fn the_page_says_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a generated part");
    let (old, after) = rest.split_once(END).expect("the generated part has an end");
    let new = generated();
    if std::env::var("BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}{new}{END}{after}")).unwrap();
    } else {
        assert!(
            old == new,
            "docs/agent.md is out of date: run BLESS=1 cargo test -p istio-agent --test reference"
        );
    }
}

#[test]
fn nothing_in_the_table_is_not_supported_yet() {
    let unready: Vec<&str> = GROUPS
        .iter()
        .flat_map(|group| group.variables)
        .filter(|variable| variable.doc.to_lowercase().contains("not supported yet"))
        .map(|variable| variable.name)
        .collect();
    assert!(unready.is_empty(), "{unready:?}");
}
