//! Which server is the master: what Sentinels say.
//!
//! Promised: the answer of the Sentinel that knows of the latest election, whatever the others still believe; all are asked
//! at once, so that one that hangs costs a moment and no more. Not promised: that the server has heard of its election; it
//! is asked itself.

use std::time::Duration;

use redis::Value;
use tokio::{task::JoinSet, time::timeout};

use super::{dial::Dialer, end::End, session::Session, slots::text};
use crate::config::Address;

/// The longest that one Sentinel is waited for.
const ASK_TIMEOUT: Duration = Duration::from_millis(200);

/// The Sentinels that watch a master.
pub(super) struct Sentinels {
    dialer: Dialer,
    addresses: Vec<Address>,
    master: String,
}

/// What a Sentinel says: who the master is, and since which election. The later one is greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    epoch: u64,
    master: Address,
}

// === impl Sentinels ===

impl Sentinels {
    pub(super) fn new(dialer: Dialer, addresses: Vec<Address>, master: String) -> Self {
        Self { dialer, addresses, master }
    }

    /// The name under which they watch the master.
    pub(super) fn name(&self) -> &str {
        &self.master
    }

    /// Where the master is.
    pub(super) async fn master(&self) -> Result<Address, End> {
        let mut asked = JoinSet::new();
        for address in &self.addresses {
            let (dialer, address, master) = (self.dialer.clone(), address.clone(), self.master.clone());
            asked.spawn(async move {
                timeout(ASK_TIMEOUT, ask(&dialer, &address, &master)).await.unwrap_or_else(|late| Err(End::connect(late)))
            });
        }
        let mut latest = None;
        let mut failure = End::connect("no Sentinel is known");
        while let Some(answer) = asked.join_next().await {
            match answer.unwrap_or_else(|panicked| Err(End::connect(panicked))) {
                Ok(word) => latest = latest.max(Some(word)),
                Err(end) => failure = end,
            }
        }
        latest.map(|word| word.master).ok_or_else(|| End::Connect(format!("no Sentinel names a master: {failure}")))
    }
}

async fn ask(dialer: &Dialer, address: &Address, master: &str) -> Result<Word, End> {
    let (mut connection, _driver) = dialer.dial(address).await?;
    let mut both = redis::pipe();
    both.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    both.cmd("SENTINEL").arg("MASTER").arg(master);
    let answers = connection.send_packed_commands(&both, 0, 2).await.map_err(End::connect)?;
    match answers.as_slice() {
        [place, state] => read(place, state).ok_or_else(|| End::connect("it does not know the master")),
        _ => Err(End::connect("it did not answer both questions")),
    }
}

/// Reads where the master is and since which election. The state alone would not do: during an election it still names the
/// old master.
fn read(place: &Value, state: &Value) -> Option<Word> {
    let (Value::Array(place), Value::Array(state)) = (place, state) else { return None };
    let [host, port] = place.as_slice() else { return None };
    let epoch = state.chunks_exact(2).find(|field| text(&field[0]) == Some("config-epoch"))?;
    let master = Address { host: text(host)?.to_owned(), port: text(port)?.parse().ok()? };
    Some(Word { epoch: text(&epoch[1])?.parse().ok()?, master })
}

/// Whether a server takes itself for a master.
pub(super) async fn check_role(session: &Session) -> Result<(), End> {
    match session.query(&redis::cmd("ROLE")).await? {
        Value::Array(fields) if fields.first().and_then(text) == Some("master") => Ok(()),
        _ => Err(End::Unable("it is not a master".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| Value::BulkString((*text).into())).collect())
    }

    #[test]
    fn a_word_is_read_and_the_latest_counts() {
        let state = |epoch| array(&["name", "main", "ip", "10.0.0.9", "config-epoch", epoch, "quorum", "2"]);
        let read = |place: &[&str], epoch| read(&array(place), &state(epoch));
        let (old, new) = (read(&["10.0.0.2", "6379"], "9").unwrap(), read(&["10.0.0.1", "6379"], "10").unwrap());
        assert_eq!(new.master, Address { host: "10.0.0.1".to_owned(), port: 6379 });
        assert_eq!([Some(old), None, Some(new)].into_iter().max().flatten().unwrap().epoch, 10);
        assert_eq!(read(&["10.0.0.1"], "1"), None);
        assert_eq!(read(&["10.0.0.1", "x"], "1"), None);
        assert_eq!(read(&["10.0.0.1", "6379"], "x"), None);
        assert_eq!(super::read(&Value::Nil, &state("1")), None);
        assert_eq!(super::read(&array(&["10.0.0.1", "6379"]), &array(&["name", "main"])), None);
    }
}
