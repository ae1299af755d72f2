//! `cxgate check`: whether the configuration is valid, with the certificates it names, and what it comes to. Its mistakes are printed by whoever loads it.

use std::{fmt::Write, process::ExitCode};

use super::{INVALID_CONFIG, print, print_error};
use crate::{
    app,
    config::{Config, Loaded, Route},
};

pub(super) fn check(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    let mistakes = app::check(&loaded.config);
    if !mistakes.is_empty() {
        for mistake in &mistakes {
            print_error(&mistake.to_string());
        }
        return Ok(ExitCode::from(INVALID_CONFIG));
    }
    let mut text = format!("{}: ok\n", loaded.origin);
    summarise(&loaded.config, &mut text)?;
    for warning in &loaded.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn summarise(config: &Config, text: &mut String) -> std::fmt::Result {
    let place = if config.store.redis.is_some() { "Redis" } else { "this process" };
    writeln!(text, "buckets in {place}, {} route(s), {} whitelisted", config.routes.len(), config.whitelist.len())?;
    config.routes.iter().try_for_each(|route| summarise_route(route, text))
}

fn summarise_route(route: &Route, text: &mut String) -> std::fmt::Result {
    writeln!(text, "route {} to {}: {}", route.name, route.upstream, route.paths.join(", "))?;
    for applied in &route.limits {
        let limit = &applied.limit;
        let per: Vec<String> = limit.per.iter().map(ToString::to_string).collect();
        writeln!(text, "  limit {} per {}: {}", limit.name, per.join(" and "), limit.kind.summary())?;
    }
    Ok(())
}
