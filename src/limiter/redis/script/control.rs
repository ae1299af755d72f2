//! What is said to Redis beside decisions, at the pace of the control plane: leases and pauses.

use std::time::Duration;

use redis::{Cmd, Value};

use super::{KeySpace, RECORD_LIFETIME};
use crate::{
    config::Factor,
    limiter::{
        Charge,
        lease::{Answer, Claim, Reading},
    },
};

impl KeySpace {
    /// Calls [`Script::Lease`](super::Script::Lease), whose digest is `digest`.
    pub fn lease(&self, digest: &str, claim: &Claim<'_>) -> Cmd {
        let mut key = Vec::new();
        // No bucket can be named so: base64 has no colon.
        self.write_key(&mut key, b"lease:");
        key.extend_from_slice(claim.signal.as_bytes());
        let found = claim.reading.map_or(0, |reading| reading.factor.millionths());
        let age = claim.reading.map_or(0, |reading| milliseconds(reading.age));
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(digest).arg(1).arg(&key[..]);
        command.arg(&claim.caller.to_le_bytes()).arg(milliseconds(claim.lifetime)).arg(found).arg(age).arg(RECORD_LIFETIME);
        command
    }

    /// Calls [`Script::Pause`](super::Script::Pause), whose digest is `digest`.
    pub fn pause(&self, digest: &str, charge: &Charge<'_>) -> Cmd {
        let mut key = Vec::new();
        self.write_key(&mut key, &charge.key.text());
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(digest).arg(1).arg(&key[..]).arg(charge.cost).arg(charge.limit.kind.most());
        command
    }
}

/// Reads the answer of [`Script::Lease`](super::Script::Lease); `None` where it is none.
pub fn answer(reply: &Value) -> Option<Answer> {
    let Value::Array(values) = reply else { return None };
    let [Value::Int(leads), Value::Int(factor), Value::Int(age)] = values[..] else { return None };
    let age = Duration::from_millis(u64::try_from(age).ok()?);
    let reading = match u32::try_from(factor).ok()? {
        0 => None,
        millionths => Some(Reading { factor: Factor::new(f64::from(millionths) / 1e6)?, age }),
    };
    Some(Answer { leads: leads == 1, reading })
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use Duration;

    use super::*;

    #[test]
    fn an_answer_is_read_and_anything_else_is_none() {
        let reading = |factor, age| Some(Reading { factor: Factor::new(factor).unwrap(), age: Duration::from_millis(age) });
        let table: [(&[i64], Option<Answer>); 6] = [
            (&[1, 200_000, 17], Some(Answer { leads: true, reading: reading(0.2, 17) })),
            (&[0, 1_500_000, 0], Some(Answer { leads: false, reading: reading(1.5, 0) })),
            (&[1, 0, 0], Some(Answer { leads: true, reading: None })),
            (&[1, -1, 0], None),
            (&[1, 1, -1], None),
            (&[1, 1], None),
        ];
        for (values, expected) in table {
            let reply = Value::Array(values.iter().copied().map(Value::Int).collect());
            assert_eq!(answer(&reply), expected, "{values:?}");
        }
        assert_eq!(answer(&Value::Nil), None);
    }
}
