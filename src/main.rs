//! The program: reads the command line, starts the runtime, and hands over to one command. It decides nothing itself.

mod cli;

use std::process::ExitCode;

/// It gives memory back that a crowd of sessions has freed; the system's own keeps most of it for as long as anything lies in between.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
