//! `refund-consumer`; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::runtime::program::main(refund_consumer::run)
}
