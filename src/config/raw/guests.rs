//! `[routes.cors]` and `[routes.websocket]`: what browsers of guests need, and what their sockets may do.

use std::time::Duration;

use config::Value;

use super::{
    Reader,
    kind::{MAX_CAPACITY, boolean, duration, integer, rate, text},
    upstreams::WAIT,
};
use crate::config::{Cors, Origin, Rate, TokenBucket, WebSocket};

/// Browsers remember a preflight for a day at most.
const DAY: Duration = Duration::from_hours(24);

/// 100 messages in 5 seconds: what NICE's own SDK holds itself to.
const SDK_CAPACITY: u32 = 100;
const SDK_RATE: f64 = 20.0;

pub(super) fn cors(table: &mut Reader<'_, '_>) -> Cors {
    let origins = table.filled_list("origins", &String::new(), page_origin);
    let credentials = table.or("credentials", false, boolean);
    let any = origins.iter().any(|origin| origin == "*");
    if any && origins.len() > 1 {
        table.wrong("origins", "expected \"*\" alone, or origins without it");
    }
    if any && credentials {
        table.wrong("credentials", "expected false where origins is [\"*\"]: browsers refuse the two together");
    }
    let max_age = table.or("max_age", Duration::from_mins(10), duration(Duration::from_secs(1)..=DAY));
    Cors { origins, credentials, max_age }
}

pub(super) fn websocket(table: &mut Reader<'_, '_>) -> WebSocket {
    let messages = table.table("messages", |bucket| TokenBucket {
        capacity: bucket.or("capacity", SDK_CAPACITY, integer(1..=MAX_CAPACITY.into())),
        refill_per_second: bucket.or("refill_per_second", Rate::per_second(SDK_RATE).unwrap_or(Rate::MAX), rate),
    });
    WebSocket {
        sockets: table.or("sockets", 5, integer(1..=100_000)),
        messages,
        costs: table.table("costs", |costs| costs.every(integer(1..=messages.capacity.into()))),
        max_pause: table.or("max_pause", Duration::from_secs(30), duration(WAIT)),
        idle_timeout: table.or("idle_timeout", Duration::from_mins(5), duration(WAIT)),
        exact: table.or("exact", false, boolean),
    }
}

/// An origin in the one form in which browsers send it: lower case, no port that the scheme implies. Or all of them.
fn page_origin(value: &Value) -> Result<String, String> {
    let typed = text(value).filter(|typed| !typed.ends_with('/'));
    let meant =
        typed.and_then(|typed| if typed == "*" { Some("*".to_owned()) } else { Some(Origin::parse(typed)?.to_string()) });
    meant.ok_or_else(|| r#""https://HOST[:PORT]" with nothing behind, the same with http, or "*""#.to_owned())
}
