//! The program: reads the command line, starts the runtime, and hands over to one command. It decides nothing itself.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
