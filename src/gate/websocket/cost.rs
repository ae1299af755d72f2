//! What a message costs: looked up by the `action` and `eventType` in its JSON.
//!
//! Promised: of all the names in a message the dearest counts, wherever in the JSON they stand and however they are escaped;
//! a message that is longer than [`PEEK_BYTES`], or in fragments, costs as much as the dearest, so that nobody pads or splits
//! his way to a cheap one. Not promised: a look into binary and compressed messages, which cost 1.

use std::{borrow::Cow, collections::BTreeMap};

use crate::limiter::bucket::MICRO;

/// The longest message that is looked at.
pub(super) const PEEK_BYTES: usize = 4096;

/// Costs by name, in micro-tokens.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    by_name: BTreeMap<String, u64>,
    /// What a message costs that cannot be looked at whole.
    pub dearest: u64,
}

// === impl Costs ===

impl Costs {
    /// Costs in whole tokens.
    pub fn new(tokens: &BTreeMap<String, u32>) -> Self {
        let by_name: BTreeMap<_, _> = tokens.iter().map(|(name, cost)| (name.clone(), u64::from(*cost) * MICRO)).collect();
        let dearest = by_name.values().copied().max().unwrap_or(MICRO).max(MICRO);
        Self { by_name, dearest }
    }

    /// Whether all messages cost the same, so that none need be looked at.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The cost of a whole text message.
    pub fn of(&self, text: &[u8]) -> u64 {
        names(text).filter_map(|name| self.by_name.get(&*name)).copied().max().unwrap_or(MICRO)
    }
}

/// The values of every `action` and `eventType`, at any depth.
fn names(json: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = json;
    let mut awaits_value = false;
    std::iter::from_fn(move || {
        while let Some((string, after)) = next_string(rest) {
            let is_key = after.trim_ascii_start().first() == Some(&b':');
            // A value stands right behind its key: anything but space and the colon between them is another value.
            let between = rest.iter().take_while(|byte| **byte != b'"');
            let is_value = awaits_value && between.into_iter().all(|byte| *byte == b':' || byte.is_ascii_whitespace());
            rest = after;
            let text = serde_json::from_slice::<Text<'_>>(string).map(|text| text.0).unwrap_or_default();
            awaits_value = is_key && (text == "action" || text == "eventType");
            if is_value && !is_key {
                return Some(text);
            }
        }
        None
    })
}

/// A string of JSON, without a copy where nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The next string with its quotes, and what follows it; `None` where none is whole.
fn next_string(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = json.iter().position(|byte| *byte == b'"')?;
    let mut is_escaped = false;
    let end = json[start + 1..].iter().position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    })?;
    let (string, after) = json[start..].split_at(end + 2);
    Some((string, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn costs() -> Costs {
        Costs::new(&BTreeMap::from([("heartbeat".into(), 1), ("SendMessage".into(), 5), ("RecoverThread".into(), 9)]))
    }

    #[test]
    fn the_dearest_name_counts_wherever_it_stands() {
        let cases = [
            (r#"{"action":"heartbeat"}"#, 1),
            (r#"{"action":"x","payload":{"eventType":"SendMessage"}}"#, 5),
            (r#"{"eventType" : "RecoverThread","action":"SendMessage"}"#, 9),
            (r#"{"\u0061ction":"Send\u004dessage"}"#, 5),
            (r#"{"text":"\"action\":\"RecoverThread\"","action":"heartbeat"}"#, 1),
            (r#"{"action":{"eventType":"SendMessage"}}"#, 5),
            (r#"{"action":1,"x":"SendMessage"}"#, 1),
            (r#"{"other":"SendMessage"}"#, 1),
            (r#"["action","SendMessage"]"#, 1),
            ("SendMessage", 1),
            ("", 1),
        ];
        for (text, tokens) in cases {
            assert_eq!(costs().of(text.as_bytes()), tokens * MICRO, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_text_has_a_cost(text in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!((MICRO..=9 * MICRO).contains(&costs().of(&text)));
        }
    }
}
