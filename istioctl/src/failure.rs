//! Why a command ends without success, and with which exit code.

use std::process::ExitCode;

use crate::render::plain::plain;

/// The end of a command that did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What is told on standard error; nothing, if all has been said.
    pub error: Option<anyhow::Error>,
}

/// What commands answer with.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Exit code of all other errors.
const ANY: u8 = 1;
/// Exit code of a command line that cannot be read.
pub const USAGE: u8 = 64;

impl Failure {
    /// An exit code alone: the answer has told what is wrong.
    #[must_use]
    pub const fn silent(code: u8) -> Self {
        Self { code, error: None }
    }

    /// Says it, and gives the exit code.
    #[must_use]
    pub fn report(self) -> ExitCode {
        if let Some(error) = self.error {
            eprintln!("Error: {}", plain(&format!("{error:#}")));
        }
        ExitCode::from(self.code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: ANY, error: Some(error.into()) }
    }
}
