//! Where keys are in a Redis Cluster: hash slots, who holds them, and where a server sends us. No I/O.
//!
//! A Cluster keeps keys apart by 16,384 slots, and a script may name keys of one slot only. Here keys are kept in 32 groups,
//! each behind a hash tag of its own and in another 32nd of the slots: enough to spread over any Cluster of a size worth running,
//! and few enough that decisions about one group come together and share a call, and that a scale's record can be kept in each.

use std::ops::RangeInclusive;

use redis::{ServerError, Value};

use crate::{config::Address, limiter::key::Key};

/// Groups of keys.
pub(super) const GROUPS: usize = Key::GROUPS as usize;

/// The hash tag of each group: what stands between the braces. It is the first number, in hexadecimal, whose slot is in that
/// 32nd of all slots.
const TAGS: [&str; GROUPS] = [
    "10", "03", "21", "32", "0b", "1a", "3c", "2d", "11", "02", "20", "33", "0c", "1d", "3b", "2a", "12", "01", "23", "30",
    "0d", "1c", "3a", "2b", "13", "00", "22", "31", "0a", "1b", "3d", "2c",
];

const SLOTS: u16 = 16_384;

/// A server's answer that the keys are elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redirect {
    /// Who has them. The host is empty where the server does not know it.
    pub(super) address: Address,
    /// Whether only for this call (ASK), because they are on their way; otherwise from now on (MOVED).
    pub(super) asking: bool,
}

/// Which primary holds which slots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotMap(Vec<(RangeInclusive<u16>, Address)>);

/// Every group, and its hash tag.
pub(super) fn groups() -> impl Iterator<Item = (u8, &'static str)> {
    (0..).zip(TAGS)
}

/// The slot of all keys with this hash tag: CRC-16 (XMODEM) of it, modulo the number of slots.
fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    crc % SLOTS
}

// === impl Redirect ===

impl Redirect {
    /// Reads `MOVED 3999 host:port` and `ASK 3999 host:port`; `None` for any other error.
    pub(super) fn parse(error: &ServerError) -> Option<Self> {
        let asking = match error.code() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let (host, port) = error.details()?.split_once(' ')?.1.rsplit_once(':')?;
        Some(Self { address: Address { host: host.to_owned(), port: port.parse().ok()? }, asking })
    }
}

// === impl SlotMap ===

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS` by `asked`; `None` where it is none. A server that does not know a host means its
    /// own.
    pub(super) fn parse(reply: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let range = |range: &Value| {
            let Value::Array(fields) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = fields.as_slice() else { return None };
            let [host, Value::Int(port), ..] = primary.as_slice() else { return None };
            let host = text(host).filter(|host| !host.is_empty()).unwrap_or(&asked.host).to_owned();
            let slots = u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?;
            Some((slots, Address { host, port: u16::try_from(*port).ok()? }))
        };
        ranges.iter().map(range).collect::<Option<_>>().map(Self)
    }

    /// Who holds the keys of a group; `None` while nobody does.
    pub(super) fn holder(&self, group: u8) -> Option<&Address> {
        let slot = slot(TAGS.get(usize::from(group))?);
        self.0.iter().find(|(slots, _)| slots.contains(&slot)).map(|(_, address)| address)
    }
}

/// A text in an answer.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])])
    }

    fn range(first: i64, last: i64, nodes: &[Value]) -> Value {
        Value::Array([&[Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        for (tag, expected) in [("123456789", 0x31c3), ("foo", 12_182), ("bar", 5061), ("", 0)] {
            assert_eq!(slot(tag), expected, "{tag}");
        }
    }

    #[test]
    fn every_group_is_in_its_own_part_of_the_slots() {
        for (group, tag) in groups() {
            assert_eq!(usize::from(slot(tag)) * GROUPS / usize::from(SLOTS), usize::from(group), "{tag}");
        }
    }

    #[test]
    fn a_map_says_who_holds_a_group_and_anything_else_is_none() {
        let asked = address("asked", 1);
        let reply = Value::Array(vec![
            range(0, 8191, &[node(bulk("10.0.0.1"), 6379), node(bulk("10.0.0.2"), 6379)]),
            range(8192, 12_000, &[node(bulk(""), 6380)]),
            range(12_001, 16_000, &[node(Value::Nil, 6381)]),
        ]);
        let map = SlotMap::parse(&reply, &asked).unwrap();
        for (group, tag) in groups() {
            let expected = match slot(tag) {
                0..=8191 => Some(address("10.0.0.1", 6379)),
                8192..=12_000 => Some(address("asked", 6380)),
                12_001..=16_000 => Some(address("asked", 6381)),
                _ => None,
            };
            assert_eq!(map.holder(group), expected.as_ref(), "{group}");
        }
        for reply in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16_383, &[])]),
            Value::Array(vec![range(-1, 16_383, &[node(bulk("a"), 1)])]),
            Value::Array(vec![range(0, 65_536, &[node(bulk("a"), 1)])]),
            Value::Array(vec![range(0, 16_383, &[node(bulk("a"), -1)])]),
        ] {
            assert_eq!(SlotMap::parse(&reply, &asked), None, "{reply:?}");
        }
    }

    #[test]
    fn a_redirection_names_an_address() {
        let read = |text: &str| {
            let Ok(Value::ServerError(error)) = redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) else {
                panic!("{text} is no error")
            };
            Redirect::parse(&error)
        };
        assert_eq!(read("MOVED 3999 10.0.0.1:6381"), Some(Redirect { address: address("10.0.0.1", 6381), asking: false }));
        assert_eq!(read("ASK 3999 ::1:6381"), Some(Redirect { address: address("::1", 6381), asking: true }));
        assert_eq!(read("MOVED 3999 :6381"), Some(Redirect { address: address("", 6381), asking: false }));
        for text in ["TRYAGAIN 3999 a:1", "MOVED", "MOVED 3999", "MOVED 3999 a", "MOVED 3999 a:b"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
