//! `cxgate completions SHELL`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, print};

/// Which script to print.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell to print it for.
    shell: Shell,
}

pub(super) fn completions(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "cxgate", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
