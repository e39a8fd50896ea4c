//! `returns-api`: see [`api::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::runtime::program::main(api::run)
}
