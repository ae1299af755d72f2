//! What `lua/charge.lua` answers to a decision: one string, little-endian, in the order of the charges.

use redis::Value;

use crate::{
    config::Factor,
    limiter::{Charge, Kind, Standing, Terms, Verdict, bucket::OWED_MAX},
};

/// When it was charged.
const AT: usize = 7;

/// What a limit holds, below zero what it owes.
const TOKENS: usize = 6;

const FACTOR: usize = 4;

/// How long a window has to be waited for.
const WAIT: usize = 7;

/// How many bytes answer a decision on `charges`.
pub(super) fn length(charges: &[Charge<'_>]) -> usize {
    let wait = |charge: &Charge<'_>| if let Kind::Window(_) = charge.limit.kind { WAIT } else { 0 };
    AT + charges.iter().map(|charge| TOKENS + FACTOR + wait(charge)).sum::<usize>()
}

/// Reads an answer; `None` where it is none.
pub fn verdict(reply: &Value, charges: &[Charge<'_>]) -> Option<Verdict> {
    let Value::BulkString(bytes) = reply else { return None };
    let mut rest = &bytes[..];
    let at = take::<AT>(&mut rest)?;
    let admitted = at > 0;
    let mut standing = |charge: &Charge<'_>| {
        let tokens = take_signed::<TOKENS>(&mut rest)?;
        let factor = Factor::new(f64::from(u32::try_from(take::<FACTOR>(&mut rest)?).ok()?) / 1e6)?;
        let wait = if let Kind::Window(_) = charge.limit.kind { take::<WAIT>(&mut rest)? } else { 0 };
        let (tokens, owed) = if tokens < 0 { (0, tokens.unsigned_abs()) } else { (tokens.unsigned_abs(), 0) };
        let standing = Standing { tokens, owed, factor, wait };
        let taken = admitted && charge.terms == Terms::Take;
        let standing = if taken { charge.limit.charged(standing, charge.cost) } else { standing };
        (standing.owed <= OWED_MAX).then_some(standing)
    };
    let standings = charges.iter().map(&mut standing).collect::<Option<_>>()?;
    rest.is_empty().then_some(Verdict { admitted, at, standings })
}

/// Reads from an answer whether anything was done; `None` where it is none.
pub fn admitted(reply: &Value) -> Option<bool> {
    let Value::BulkString(bytes) = reply else { return None };
    Some(take::<AT>(&mut &bytes[..])? > 0)
}

/// The number that the first bytes are.
fn take<const LENGTH: usize>(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<LENGTH>()?;
    *bytes = rest;
    Some(number.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The same, in two's complement.
fn take_signed<const LENGTH: usize>(bytes: &mut &[u8]) -> Option<i64> {
    let unused = u64::BITS - 8 * u32::try_from(LENGTH).ok()?;
    Some((take::<LENGTH>(bytes)? << unused).cast_signed() >> unused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::{Limit, bucket::Bucket, key::KeyHasher};

    const LIMIT: Limit = Limit { kind: Kind::Bucket(Bucket { capacity: 10, rate: 1 }), scale: None, slowest: Factor::ONE };

    fn bytes(at: u64, tokens: i64, factor: u32) -> Vec<u8> {
        [&at.to_le_bytes()[..AT], &tokens.to_le_bytes()[..TOKENS], &factor.to_le_bytes()].concat()
    }

    #[test]
    fn an_answer_is_read_and_anything_else_is_none() {
        let limit = LIMIT;
        let charges = [Charge {
            limit: &limit,
            key: KeyHasher::new(None, "test").start("limit").finish(),
            cost: 3,
            terms: Terms::Take,
        }];
        let table = [
            (bytes(9, 10, 500_000), Some((9, 7, 0, 0.5))),
            (bytes(0, 2, 1_000_000), Some((0, 2, 0, 1.0))),
            (bytes(1, 2, 1_000_000), Some((1, 0, 1, 1.0))),
            (bytes(0, -1, 1_000_000), Some((0, 0, 1, 1.0))),
            (bytes((1 << 56) - 1, 10, 1_000_000), Some(((1 << 56) - 1, 7, 0, 1.0))),
            (bytes(0, -(1 << 47), 1_000_000), None),
            (bytes(0, 2, 0), None),
            (bytes(0, 2, u32::MAX), None),
            (bytes(0, 2, 1_000_000)[..16].to_vec(), None),
            ([bytes(0, 2, 1_000_000), vec![0]].concat(), None),
            (Vec::new(), None),
        ];
        for (reply, expected) in table {
            let reply = Value::BulkString(reply);
            let expected = expected.map(|(at, tokens, owed, factor)| {
                let standing = Standing { tokens, owed, factor: Factor::new(factor).unwrap(), wait: 0 };
                Verdict { admitted: at > 0, at, standings: [standing].into_iter().collect() }
            });
            assert_eq!(verdict(&reply, &charges), expected, "{reply:?}");
        }
        assert_eq!(verdict(&Value::Nil, &charges), None);
        assert_eq!(length(&charges), bytes(0, 0, 0).len());
    }
}
