//! The name of a bucket: 88 bits of a keyed hash over its limit and what the limit counts by, and 8 bits of one over the
//! first of the values it counts by alone.
//!
//! Promised: a fixed length whatever a client sends, no client text in any store, and no two different lists of parts with
//! the same hashed bytes, because each part carries its length. Two clients in one bucket are as likely as a collision of
//! 88 random bits: one in 10¹⁴ among a million clients. Buckets whose first value is the same are of the same
//! [group](Key::group), whatever their limits: a store that is spread over several servers can keep them together.
//! Not promised without a secret: that nobody can compute which key a client has. The key of the hash is then derived from
//! the key prefix, so that replicas agree.

use std::{
    fmt::{self, Write as _},
    hash::{Hash, Hasher},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::config::Secret;

/// Bytes in a key.
const LENGTH: usize = 12;

/// Characters in a key's text form.
pub const TEXT_LENGTH: usize = LENGTH / 3 * 4;

/// Which bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub [u8; LENGTH]);

/// Takes a [`Key`], which is a hash already, for its own hash.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstWord(u64);

/// Makes keys. Replicas that share a store need the same secret, or none and the same prefix.
#[derive(Clone)]
pub struct KeyHasher(SipHasher24);

/// A key in the making.
#[must_use]
#[derive(Clone)]
pub struct KeyParts {
    whole: SipHasher24,
    /// Hashes the first value, until it has come.
    first: Option<SipHasher24>,
    group: u8,
}

// === impl Key ===

impl Key {
    /// The bucket by which a store is tried out. That a client has the same is as likely as any collision.
    pub(super) const PROBE: Self = Self([0; LENGTH]);

    /// Groups of buckets that a store may keep apart.
    pub const GROUPS: u8 = 32;

    /// URL-safe base64 (RFC 4648 section 5): three bytes to four characters, nothing to pad.
    pub fn text(self) -> [u8; TEXT_LENGTH] {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = [0; TEXT_LENGTH];
        for (three, four) in self.0.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            for (position, character) in (0..4).rev().zip(four) {
                *character = ALPHABET[(bits >> (6 * position)) as usize % 64];
            }
        }
        text
    }

    /// The key that has this text; `None` where none has.
    pub fn from_text(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE.decode(text).ok()?.try_into().ok()?))
    }

    /// One of [`GROUPS`](Self::GROUPS).
    pub fn group(self) -> u8 {
        let [.., group] = self.0;
        group % Self::GROUPS
    }

    /// 32 bits that its hash does not use.
    pub(super) fn spread(self) -> u32 {
        self.0.last_chunk().map_or(0, |last| u32::from_le_bytes(*last))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().iter().try_for_each(|character| formatter.write_char(char::from(*character)))
    }
}

/// A key is a hash already: its first bytes are as good as any.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first)));
    }
}

impl Hasher for FirstWord {
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl KeyHasher ===

impl KeyHasher {
    /// A hasher under `secret`, or under a key anyone can derive from `key_prefix`.
    pub fn new(secret: Option<&Secret>, key_prefix: &str) -> Self {
        let mut derive = SipHasher24::new();
        match secret {
            Some(secret) => derive.write(secret.expose().as_bytes()),
            None => derive.write(key_prefix.as_bytes()),
        }
        Self(SipHasher24::new_with_key(&derive.finish128().as_bytes()))
    }

    /// Begins the key of a bucket of the limit that `limit` identifies.
    pub fn start(&self, limit: &str) -> KeyParts {
        let mut begun = KeyParts { whole: self.0, first: None, group: 0 };
        begun.part(limit.as_bytes());
        KeyParts { first: Some(self.0), ..begun }
    }
}

// === impl KeyParts ===

impl KeyParts {
    /// Adds one of the values the limit counts by.
    pub fn part(&mut self, part: &[u8]) -> &mut Self {
        if let Some(mut first) = self.first.take() {
            first.write(part);
            [.., self.group] = first.finish128().as_bytes();
        }
        self.whole.write_u64(part.len() as u64);
        self.whole.write(part);
        self
    }

    /// The key of all parts.
    pub fn finish(&self) -> Key {
        let [mut key @ .., _, _, _, _] = self.whole.finish128().as_bytes();
        let [.., last] = &mut key;
        *last = self.group;
        Key(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(hasher: &KeyHasher, parts: &[Vec<u8>]) -> Key {
        let mut key = hasher.start("limit");
        for part in parts {
            key.part(part);
        }
        key.finish()
    }

    #[test]
    fn the_text_is_url_safe_base64() {
        let text = |bytes| String::from_utf8(Key(bytes).text().to_vec()).unwrap();
        assert_eq!(text(*b"any carnal p"), "YW55IGNhcm5hbCBw");
        assert_eq!(text([255; 12]), "________________");
        assert_eq!(text([0xfb; 12]), "-_v7-_v7-_v7-_v7");
        assert_eq!(Key::from_text("-_v7-_v7-_v7-_v7"), Some(Key([0xfb; 12])));
        assert_eq!(["", "-_v7-_v7-_v7", "-_v7-_v7-_v7-_v?"].map(Key::from_text), [None; 3]);
    }

    #[test]
    fn replicas_agree_and_strangers_do_not() {
        let (one, other) = (Secret::new("one"), Secret::new("other"));
        let of = |secret, prefix| KeyHasher::new(secret, prefix).start("limit").part(b"alice").finish();
        assert_eq!(of(Some(&one), "a"), of(Some(&one), "b"));
        assert_eq!(of(None, "a"), of(None, "a"));
        assert_ne!(of(Some(&one), "a"), of(Some(&other), "a"));
        assert_ne!(of(None, "a"), of(None, "b"));
    }

    #[test]
    fn the_limit_is_part_of_the_key() {
        let hasher = KeyHasher::new(None, "cxgate");
        assert_ne!(hasher.start("a").part(b"b").finish(), hasher.start("ab").finish());
        assert_ne!(hasher.start("a").part(b"c").finish(), hasher.start("b").part(b"c").finish());
    }

    #[test]
    fn buckets_of_one_first_value_are_of_one_group_and_others_are_spread() {
        let hasher = KeyHasher::new(None, "cxgate");
        let group = |limit: &str, first: &[u8]| hasher.start(limit).part(first).part(b"more").finish().group();
        assert_eq!(group("a", b"alice"), group("b", b"alice"));
        assert_eq!(group("a", b"alice"), hasher.start("a").part(b"alice").finish().group());
        let groups = |count: u32| (0..count).map(|client| group("a", &client.to_le_bytes()));
        assert_eq!(groups(10_000).collect::<std::collections::BTreeSet<_>>().len(), usize::from(Key::GROUPS));
    }

    proptest! {
        #[test]
        fn parts_cannot_be_moved_across_their_boundaries(
            text in prop::collection::vec(any::<u8>(), 0..24),
            cuts in prop::collection::vec((0..=24_usize, 0..=24_usize), 2),
        ) {
            let hasher = KeyHasher::new(None, "cxgate");
            let split = |&(first, second): &(usize, usize)| {
                let (low, high) = (first.min(second).min(text.len()), first.max(second).min(text.len()));
                vec![text[..low].to_vec(), text[low..high].to_vec(), text[high..].to_vec()]
            };
            let (one, other) = (split(&cuts[0]), split(&cuts[1]));
            prop_assert_eq!(key(&hasher, &one) == key(&hasher, &other), one == other);
        }
    }
}
