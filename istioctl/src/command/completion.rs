//! `completion`: what a shell needs to complete our command line.

use std::io::Write;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::args::Cli;
use crate::failure::Result;

/// Prints the script of a shell.
///
/// # Errors
/// When it cannot be printed.
pub fn run(shell: Shell, out: &mut impl Write) -> Result {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "istioctl", &mut text);
    Ok(out.write_all(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_has_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let mut text = Vec::new();
            run(shell, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("proxy-config"), "{shell}");
        }
    }
}
