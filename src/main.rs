//! The `cxgate` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cxgate::cli::main()
}
