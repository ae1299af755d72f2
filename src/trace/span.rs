//! A span: what happened, when, and below what, in terms of nobody's wire.

use std::borrow::Cow;

use super::{SpanId, TraceId};

/// One thing that was done.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// The span it was done for; `None` where the trace begins.
    pub parent: Option<SpanId>,
    /// Whether that is another process's.
    pub is_parent_remote: bool,
    /// What was done: one of few names.
    pub name: Cow<'static, str>,
    /// On which side.
    pub kind: Kind,
    /// When it began, in nanoseconds of Unix time.
    pub begun: u64,
    /// When it ended, the same.
    pub ended: u64,
    /// What is known of it.
    pub attributes: Attributes,
    /// Whether it failed.
    pub is_failed: bool,
}

/// Names and values.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<(&'static str, Value)>);

/// What an attribute says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number.
    Decimal(f64),
}

/// On which side of a call a span was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// On none.
    #[default]
    Internal,
    /// On that of the called.
    Server,
    /// On that of the caller.
    Client,
}

// === impl Attributes ===

impl Attributes {
    /// Adds what there is to say.
    pub fn add<V: Into<Value>>(&mut self, name: &'static str, value: Option<V>) {
        self.0.extend(value.map(|value| (name, value.into())));
    }

    /// Each, in the order in which they were added.
    pub fn as_slice(&self) -> &[(&'static str, Value)] {
        &self.0
    }
}

// === impl Value ===

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Decimal(number)
    }
}
