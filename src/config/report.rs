//! What reading finds: the mistakes, the keys there are, and where each was given.
//!
//! Promised: a mistake is reported once, at its key, and what lies below a key that is itself wrong is not reported again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use strsim::damerau_levenshtein;

/// One thing that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line:column` or `environment variable NAME`; empty where a default is at fault.
    pub place: String,
    /// The key with its tables, as in `routes[0].limits[1].cost`; empty where it is the text that is wrong.
    pub key: String,
    /// What was given; `None` where nothing was, and for secrets.
    pub value: Option<String>,
    /// What was expected instead.
    pub problem: String,
}

/// What reading has found out so far.
pub(super) struct Report<'e> {
    environment: &'e BTreeMap<String, String>,
    mistakes: Vec<Mistake>,
    /// Every key that was asked for, and where it was given.
    keys: BTreeMap<String, Option<String>>,
    /// Variables that a key or a secret took.
    used: BTreeSet<String>,
}

/// How a value that came from the environment says so.
const VARIABLE: &str = "environment variable ";
/// How a value that stood in such a value says so.
const JSON: &str = "JSON in environment variable ";
/// How every variable of ours starts.
const PREFIX: &str = "CXGATE_";
/// The variable that names the file.
pub(super) const FILE_VARIABLE: &str = "CXGATE_CONFIG";

// === impl Mistake ===

impl Mistake {
    /// Line and column, for what stands in a file.
    fn position(&self) -> Option<(usize, usize)> {
        let (rest, column) = self.place.rsplit_once(':')?;
        let (_, line) = rest.rsplit_once(':')?;
        Some((line.parse().ok()?, column.parse().ok()?))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(formatter, "{}: ", self.place)?;
        }
        match &self.value {
            Some(value) => write!(formatter, "{} = {value}: {}", self.key, self.problem),
            None if self.key.is_empty() => formatter.write_str(&self.problem),
            None => write!(formatter, "{}: {}", self.key, self.problem),
        }
    }
}

// === impl Report ===

impl<'e> Report<'e> {
    /// Nothing found yet.
    pub(super) fn new(environment: &'e BTreeMap<String, String>) -> Self {
        Self { environment, mistakes: Vec::new(), keys: BTreeMap::new(), used: BTreeSet::new() }
    }

    /// Notes that `key` exists, and where it was given if it was.
    pub(super) fn asked(&mut self, key: &str, place: Option<&str>) {
        self.keys.insert(key.to_owned(), place.map(str::to_owned));
        if let Some(name) = place.and_then(variable) {
            self.used.insert(name.to_owned());
        }
    }

    /// Every key that was asked for.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Whether a mistake was reported at `key` or below it.
    pub(super) fn is_wrong(&self, key: &str) -> bool {
        self.mistakes.iter().any(|mistake| is_at_or_below(&mistake.key, key))
    }

    /// Whether `key` has a value that is not its default.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Option::is_some)
    }

    /// The value of a variable that a secret names.
    pub(super) fn variable(&mut self, name: &str) -> Option<&'e str> {
        self.used.insert(name.to_owned());
        self.environment.get(name).map(String::as_str)
    }

    /// Reports `key`, at the place where it or the nearest table around it was given.
    pub(super) fn wrong(&mut self, key: &str, value: Option<String>, problem: impl Into<String>) {
        if self.mistakes.iter().any(|mistake| is_at_or_below(key, &mistake.key)) {
            return;
        }
        let mut around = Some(key);
        let mut place = std::iter::from_fn(|| {
            let here = around?;
            around = here.rfind(['.', '[']).map(|end| &here[..end]);
            Some(here)
        });
        let place = place.find_map(|key| self.keys.get(key)?.clone()).unwrap_or_default();
        self.wrong_at(&place, key, value, problem);
    }

    /// Reports `key` at a place of its own.
    pub(super) fn wrong_at(&mut self, place: &str, key: &str, value: Option<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake { place: place.to_owned(), key: key.to_owned(), value, problem: problem.into() });
    }

    /// Reports `key`, which its table does not have; unless a variable gave it, because [`finish`](Self::finish) names that.
    pub(super) fn unknown(&mut self, place: Option<&str>, key: &str, nearest: Option<&str>) {
        let Some(place) = place.filter(|place| !place.starts_with(VARIABLE)) else { return };
        if let Some(name) = variable(place) {
            self.used.insert(name.to_owned());
        }
        self.wrong_at(place, key, None, format!("unknown key{}", did_you_mean(nearest)));
    }

    /// Every mistake, in the order of the file, then of the variables.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        for name in self.environment.keys().filter(|name| name.starts_with(PREFIX)) {
            if name != FILE_VARIABLE && !self.used.contains(name) {
                let problem = format!("unknown variable{}", self.did_you_mean_variable(name));
                self.mistakes.push(Mistake { place: place_of_variable(name), key: String::new(), value: None, problem });
            }
        }
        // What was made of a line that is no TOML says nothing about what was meant.
        let garbled: BTreeSet<usize> =
            self.mistakes.iter().filter(|mistake| mistake.key.is_empty()).filter_map(line).collect();
        self.mistakes.retain(|mistake| mistake.key.is_empty() || line(mistake).is_none_or(|line| !garbled.contains(&line)));
        self.mistakes.sort_by_cached_key(|mistake| {
            (mistake.position().unwrap_or((usize::MAX, 0)), mistake.place.clone(), mistake.key.clone())
        });
        self.mistakes
    }

    /// Compares what stands behind the prefix that all have.
    fn did_you_mean_variable(&self, name: &str) -> String {
        let known: Vec<String> =
            self.keys.keys().filter_map(|key| variable_for(key)).chain([FILE_VARIABLE.to_owned()]).collect();
        let name = name.to_ascii_uppercase();
        let nearest = nearest(&name[PREFIX.len()..], known.iter().map(|known| &known[PREFIX.len()..]));
        did_you_mean(nearest.map(|nearest| format!("{PREFIX}{nearest}")).as_deref())
    }
}

fn line(mistake: &Mistake) -> Option<usize> {
    mistake.position().map(|(line, _)| line)
}

fn is_at_or_below(key: &str, other: &str) -> bool {
    !other.is_empty() && key.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

// === places and names ===

/// The place of what variable `name` holds.
pub(super) fn place_of_variable(name: &str) -> String {
    format!("{VARIABLE}{name}")
}

/// The place of what stands in the JSON that variable `name` holds.
pub(super) fn place_in_variable(name: &str) -> String {
    format!("{JSON}{name}")
}

/// The variable that `place` names, where its whole text is meant.
pub(super) fn variable_at(place: Option<&str>) -> Option<&str> {
    place?.strip_prefix(VARIABLE)
}

fn variable(place: &str) -> Option<&str> {
    place.strip_prefix(VARIABLE).or_else(|| place.strip_prefix(JSON))
}

/// The variable that sets `key`; none does for what stands in a list, or for a name that is not in lower case.
fn variable_for(key: &str) -> Option<String> {
    let reachable = !key.contains(['[', '"']) && !key.bytes().any(|byte| byte.is_ascii_uppercase());
    reachable.then(|| format!("CXGATE__{}", key.replace('.', "__").to_ascii_uppercase()))
}

/// The candidate that `word` is most likely a misspelling of: at most a third of it may differ.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer ones are no misspelling, and comparing takes memory by their length.
    const LONGEST: usize = 100;
    let candidates = candidates.into_iter().filter(|_| word.len() <= LONGEST);
    let distances = candidates.map(|candidate| (damerau_levenshtein(word, candidate), candidate));
    let (distance, candidate) = distances.min()?;
    (distance * 3 <= word.len().max(candidate.len())).then_some(candidate)
}

/// How a suggestion is worded.
pub(super) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(", did you mean {nearest:?}?")).unwrap_or_default()
}
