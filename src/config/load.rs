//! Reading, from the file and the environment to a [`Config`].

use std::{
    collections::BTreeMap,
    fmt, iter,
    path::{Path, PathBuf},
};

use config::Value;

use super::{
    Config, Mistake, check, environment, opentelemetry, raw,
    report::{FILE_VARIABLE, Report},
    source::{overlay, read_file, toml},
};

/// Where the configuration comes from. It cannot be printed, because the environment may hold secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that was asked for; it must be there.
    pub file: Option<PathBuf>,
    /// The environment; `CXGATE_CONFIG` in it names the file where none was asked for.
    pub environment: BTreeMap<String, String>,
}

/// A configuration that was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What in it can be meant, but hardly is.
    pub warnings: Vec<String>,
    /// Where it was read, for messages: a file, or `built-in defaults`.
    pub origin: String,
}

/// Every mistake in a configuration, in the order of the file, then of the variables. Displayed one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

/// Read where no file was asked for, if it is there.
const DEFAULT_FILE: &str = "config/cxgate.toml";

/// Far above any real file; it keeps a mistaken path such as `/dev/zero` from filling the memory.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The tables that are there before any file is read. Defaults of single keys stand where the keys are read, in `raw`.
const BUILT_IN: &str = r#"
    [upstreams.cxone]
    url = "https://api.cxone.com"

    [load.backend]

    [[routes]]
    name = "guest-webchat"
    paths = ["/api/v2/engage/webchat", "/api/v2/conversations/webchat"]
    upstream = "cxone"
      [[routes.limits]]
      name = "per-client"
      per = ["client"]
      token_bucket = { capacity = 10, refill_per_second = 2 }
      scale_by = ["backend"]
"#;

/// Reads the configuration: built-in tables, under OpenTelemetry's variables, under the file, under the predecessor's variables,
/// under `CXGATE__` variables.
/// Tables merge; anything else is replaced.
///
/// # Errors
///
/// Everything that is wrong with any of them, at once.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let Sources { environment, .. } = sources;
    let mut report = Report::new(environment);
    let file = sources.file();
    let mut tree = built_in(&mut report);
    overlay(&mut tree, opentelemetry::variables(environment));
    if let Some(file) = &file {
        overlay(&mut tree, from_file(file, &mut report));
    }
    overlay(&mut tree, environment::predecessor(environment, &mut report));
    overlay(&mut tree, environment::own(environment));
    let config = raw::read(tree, &mut report);
    check::check(&config, &mut report);
    let mistakes = report.finish();
    if !mistakes.is_empty() {
        return Err(ConfigError { mistakes });
    }
    let origin = file.map_or_else(|| "built-in defaults".to_owned(), |file| file.display().to_string());
    Ok(Loaded { warnings: check::warnings(&config), config, origin })
}

fn built_in(report: &mut Report<'_>) -> Value {
    toml("built-in defaults", BUILT_IN, report)
}

fn from_file(path: &Path, report: &mut Report<'_>) -> Value {
    let name = path.display().to_string();
    match read_file(path, MAX_FILE_BYTES) {
        Ok(text) => toml(&name, &text, report),
        Err(problem) => {
            report.wrong_at(&name, "", None, problem);
            toml(&name, "", report)
        }
    }
}

// === impl Sources ===

impl Sources {
    /// `file`, and the environment of this process.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self { file, environment: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect() }
    }

    /// The file to read, if any.
    fn file(&self) -> Option<PathBuf> {
        let named = self.environment.get(FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
        self.file.clone().or(named).or_else(default)
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        let environment = BTreeMap::new();
        let mut report = Report::new(&environment);
        raw::read(built_in(&mut report), &mut report)
    }
}

// === impl ConfigError ===

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separators = iter::once("").chain(iter::repeat("\n"));
        self.mistakes.iter().zip(separators).try_for_each(|(mistake, separator)| write!(formatter, "{separator}{mistake}"))
    }
}

impl std::error::Error for ConfigError {}
