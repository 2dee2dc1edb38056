//! From the command line to an exit code.

use std::process::ExitCode;

use waystation::cli::{self, Outcome};

/// Most of what we allocate is small and soon gone, which this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = guardian() {
        return code;
    }
    match cli::run(std::env::args_os()) {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::from(1),
        // The codes of sysexits.h for these two.
        Outcome::Usage => ExitCode::from(64),
        Outcome::Configuration => ExitCode::from(78),
    }
}

/// The process that ends the children of a gateway which was killed. It comes first of all,
/// before any thread is started and any argument looked at, since it must stay small.
fn guardian() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != "guardian" {
        return None;
    }
    Some(waystation::backend::guardian::run())
}
