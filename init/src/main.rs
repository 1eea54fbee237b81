//! The program `istio-init`.

use std::process::ExitCode;

fn main() -> ExitCode {
    istio_init::command::run(std::env::args_os())
}
