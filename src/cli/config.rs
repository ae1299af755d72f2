//! `cxgate config`: the effective configuration, as a file that would give it.

use std::process::ExitCode;

use super::print;
use crate::config::Config;

pub(super) fn config(config: &Config) -> anyhow::Result<ExitCode> {
    print(&config.to_toml()?)?;
    Ok(ExitCode::SUCCESS)
}
