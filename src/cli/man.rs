//! `cxgate man`: one page for all commands.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, print};

pub(super) fn man() -> anyhow::Result<ExitCode> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    // Pages of their own are promised for the commands; there are none.
    let page = String::from_utf8(page)?.replace("cxgate\\-", "cxgate ").replace("(1)\n", "\n");
    print(&page)?;
    Ok(ExitCode::SUCCESS)
}
