//! Flags that are on or off, and may be on without being named.

use clap::{Arg, ArgAction};

/// For `#[arg]`, next to what clap has.
pub(super) trait Switch {
    /// Takes `--x`, `--x=true` and `--x=false`, where clap's flags are `--x` alone.
    fn switch(self) -> Self;
}

impl Switch for Arg {
    fn switch(self) -> Self {
        self.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Switch as _;

    #[derive(Parser)]
    struct Line {
        #[arg(long, default_value_t = true, switch())]
        on: bool,
        #[arg(long, default_value_t = false, switch())]
        off: bool,
        #[arg(long, switch())]
        maybe: Option<bool>,
        #[arg(default_value = "")]
        word: String,
    }

    #[test]
    fn a_switch_is_named_with_and_without_a_value() {
        let read = |words: &[&str]| {
            let line = Line::try_parse_from(std::iter::once("x").chain(words.iter().copied())).ok()?;
            Some((line.on, line.off, line.maybe, line.word))
        };
        let none = String::new;
        assert_eq!(read(&[]), Some((true, false, None, none())));
        assert_eq!(read(&["--on=false", "--off", "--maybe"]), Some((false, true, Some(true), none())));
        assert_eq!(read(&["--off=true", "--maybe=false", "--on"]), Some((true, true, Some(false), none())));
        // A word after it is no value.
        assert_eq!(read(&["--off", "false"]), Some((true, true, None, "false".into())));
        assert!(read(&["--on=maybe"]).is_none() && read(&["--on="]).is_none());
    }
}
