//! The examples in the help of each command, so that tests can run them.

use clap::CommandFactory as _;

use super::Cli;

/// A line of a help text that can be typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The command whose help it stands in, as `x authz check`.
    pub command: String,
    /// The line as it is shown.
    pub line: String,
    /// Its words, without those of the shell: `istioctl` comes first.
    pub words: Vec<String>,
}

/// All examples of all commands.
#[must_use]
pub fn all() -> Vec<Example> {
    fn walk(command: &clap::Command, path: &str, found: &mut Vec<Example>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines() {
            let line = ["Examples:", "Example:"]
                .iter()
                .fold(line.trim(), |line, head| line.strip_prefix(head).map_or(line, str::trim));
            if line.starts_with("istioctl ") {
                found.push(Example { command: path.to_owned(), line: line.to_owned(), words: words(line) });
            }
        }
        for one in command.get_subcommands() {
            let own = format!("{path} {}", one.get_name());
            walk(one, own.trim(), found);
        }
    }
    let mut found = Vec::new();
    walk(&Cli::command(), "", &mut found);
    found
}

/// The words of a line up to the first that only the shell sees.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('|' | '>' | '<', None) => return words,
            (' ', None) => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;

    use super::*;

    #[test]
    fn every_example_is_a_command_line_of_its_command() {
        let mut seen = BTreeSet::new();
        for example in all() {
            if let Err(error) = Cli::try_parse_from(&example.words) {
                panic!("{}: {}: {error}", example.command, example.line);
            }
            seen.insert(example.line);
        }
        assert!(seen.len() > 30, "{seen:?}");
    }

    #[test]
    fn every_command_has_an_example_of_itself() {
        fn walk(command: &clap::Command, path: &str, all: &[Example]) {
            for one in command.get_subcommands() {
                let own = format!("{path} {}", one.get_name()).trim().to_owned();
                let has_one = all.iter().any(|example| example.command == own);
                assert!(has_one, "{own} has no example");
                walk(one, &own, all);
            }
        }
        walk(&Cli::command(), "", &all());
    }

    #[test]
    fn what_the_shell_sees_is_left_out() {
        let wanted = ["istioctl", "a", "b c", "", "d'e"];
        assert_eq!(words("istioctl a 'b c' \"\" \"d'e\" > file | other"), wanted);
    }
}
