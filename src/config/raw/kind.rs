//! What a value may be. Each function makes a reader of one value: it returns what is meant, or what was expected. A value
//! that is missing (nil) is never accepted, so every reader can be asked what it expects.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use config::{Value, ValueKind};
use ipnet::IpNet;

use crate::config::{
    Endpoint, Factor, Origin, Rate,
    report::{did_you_mean, nearest, variable_at},
    url::without_password,
    value::duration_text,
};

/// The most tokens a bucket can hold, or a window admit.
pub(super) const MAX_CAPACITY: u32 = 1_000_000;

/// The text of a value that is one.
pub(super) fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

/// The text of a value that is one because the environment holds nothing else.
fn untyped(value: &Value) -> Option<&str> {
    variable_at(value.origin()).and(text(value))
}

/// A value as an error message may show it: passwords in URLs hidden, what may hold secrets left out, long texts cut.
pub(super) fn shown(value: &Value) -> Option<String> {
    /// Enough to recognise a value by.
    const LONGEST: usize = 80;
    match &value.kind {
        ValueKind::String(text) if text.starts_with(['{', '[']) => None,
        ValueKind::String(text) => {
            let text = without_password(text);
            let cut = if text.chars().count() > LONGEST { "…" } else { "" };
            Some(format!("{:?}", text.chars().take(LONGEST).chain(cut.chars()).collect::<String>()))
        }
        ValueKind::I64(integer) => Some(integer.to_string()),
        ValueKind::Float(decimal) => Some(format!("{decimal:?}")),
        ValueKind::Boolean(boolean) => Some(boolean.to_string()),
        ValueKind::Array(_) => Some("[…]".to_owned()),
        ValueKind::Table(_) => Some("{…}".to_owned()),
        _ => None,
    }
}

// === texts ===

/// Any text.
pub(super) fn any_text(value: &Value) -> Result<String, String> {
    text(value).map(str::to_owned).ok_or_else(|| "a text".to_owned())
}

/// A text that `parse` understands.
pub(super) fn parsed<T>(expected: &str, parse: impl Fn(&str) -> Option<T>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| text(value).and_then(&parse).ok_or_else(|| expected.to_owned())
}

/// A file, by its path.
pub(super) fn path(value: &Value) -> Result<PathBuf, String> {
    parsed("the path of a file", |path| (!path.is_empty()).then(|| PathBuf::from(path)))(value)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let chosen = choices.iter().find(|(word, _)| text(value) == Some(word));
        chosen.map(|(_, meaning)| *meaning).ok_or_else(|| alternatives(choices.iter().map(|(word, _)| *word)))
    }
}

/// The name of one of `tables`, which are called `[what.NAME]`.
pub(super) fn reference<T>(what: &str, tables: &BTreeMap<String, T>) -> impl Fn(&Value) -> Result<String, String> {
    move |value| {
        let name = text(value).unwrap_or_default();
        let known = || tables.keys().map(String::as_str);
        match tables.get_key_value(name) {
            Some((name, _)) => Ok(name.clone()),
            None if tables.is_empty() => Err(format!("the name of a [{what}.NAME] table, but there is none")),
            None => Err(format!("the name of a [{what}.NAME] table{}", did_you_mean(nearest(name, known())))),
        }
    }
}

/// A name: it goes into metrics, logs, headers and store keys.
pub(super) fn name(value: &Value) -> Result<String, String> {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    parsed("a name of 1 to 64 letters, digits, -, _ or .", |text| is_name(text).then(|| text.to_owned()))(value)
}

// === numbers ===

/// A whole number.
pub(super) fn integer<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let integer = match value.kind {
            ValueKind::I64(integer) => u64::try_from(integer).ok(),
            _ => untyped(value).and_then(|text| text.parse().ok()),
        };
        let integer = integer.filter(|integer| range.contains(integer)).and_then(|integer| integer.try_into().ok());
        integer.ok_or_else(|| format!("a whole number {}", bounds(&range)))
    }
}

/// Yes or no.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match (&value.kind, untyped(value)) {
        (ValueKind::Boolean(boolean), _) => Ok(*boolean),
        (_, Some("true")) => Ok(true),
        (_, Some("false")) => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// A number, whole or not; never NaN or infinite.
#[expect(clippy::cast_precision_loss, reason = "every bound is far below 2⁵³")]
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = match value.kind {
        ValueKind::I64(integer) => Some(integer as f64),
        ValueKind::Float(number) => Some(number),
        _ => untyped(value).and_then(|text| text.parse().ok()),
    };
    number.filter(|number| number.is_finite())
}

/// A factor.
pub(super) fn factor(range: RangeInclusive<f64>) -> impl Fn(&Value) -> Result<Factor, String> {
    move |value| {
        let number = number(value).filter(|number| range.contains(number));
        number.and_then(Factor::new).ok_or_else(|| format!("a number {}", bounds(&range)))
    }
}

/// A part of a whole.
pub(super) fn share(value: &Value) -> Result<f64, String> {
    let range = 0.0..=1.0;
    number(value).filter(|number| range.contains(number)).ok_or_else(|| format!("a number {}", bounds(&range)))
}

/// A refill rate, in tokens a second.
pub(super) fn rate(value: &Value) -> Result<Rate, String> {
    let range = 0.000_001..=1_000_000.0;
    let number = number(value).filter(|number| range.contains(number));
    number.and_then(Rate::per_second).ok_or_else(|| format!("a number {}", bounds(&range)))
}

/// A duration, typed as a whole number and a unit.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let duration = text(value).and_then(parse_duration).filter(|duration| range.contains(duration));
        let range = duration_text(*range.start())..=duration_text(*range.end());
        duration.ok_or_else(|| format!(r#"a duration such as "500ms", "10s", "2m" or "1h", {}"#, bounds(&range)))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit())?);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

// === addresses ===

/// An address and a port.
pub(super) fn socket_address(value: &Value) -> Result<SocketAddr, String> {
    parsed(r#"an address and a port such as "127.0.0.1:8080""#, |text| text.parse().ok())(value)
}

/// A network, or a single address.
pub(super) fn network(value: &Value) -> Result<IpNet, String> {
    let typed = text(value).unwrap_or_default();
    let network = typed.parse().ok().or_else(|| typed.parse::<IpAddr>().ok().map(IpNet::from));
    match network {
        Some(network) if network.trunc() == network => Ok(network),
        Some(network) => Err(format!("a network with no bits set behind its prefix, as in \"{}\"", network.trunc())),
        None => Err(r#"a network such as "10.0.0.0/8" or an address"#.to_owned()),
    }
}

/// A server.
pub(super) fn origin(value: &Value) -> Result<Origin, String> {
    parsed("http://HOST[:PORT] or https://HOST[:PORT] with nothing behind", Origin::parse)(value)
}

/// A URL to ask.
pub(super) fn endpoint(value: &Value) -> Result<Endpoint, String> {
    parsed("a URL http://HOST[:PORT][/PATH][?QUERY] or the same with https", Endpoint::parse)(value)
}

// === wording ===

fn bounds<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("from {} to {}", range.start(), range.end())
}

fn alternatives<'a>(words: impl ExactSizeIterator<Item = &'a str>) -> String {
    let last = words.len().saturating_sub(1);
    let separator = |index| match index {
        0 => "",
        index if index == last => " or ",
        _ => ", ",
    };
    words.enumerate().fold(String::new(), |text, (index, word)| format!("{text}{}{word:?}", separator(index)))
}
