//! What operators are told, what they may change, and who may.

mod access;
mod amending;
mod description;
mod explain;
mod fleet;
mod foreseeing;
mod reading;

use std::net::SocketAddr;

use cxgate::config::{Config, Dimension, LimitKind, Rate, Secret, TokenBucket, Trusted};
use hyper::Method;
use serde_json::Value;

use crate::support::http::{Answer, send};

const CHAT: &str = "/api/v2/engage/webchat";
const TOKEN: (&str, &str) = ("authorization", "Bearer t0ken-of-operators");

/// A token, and a limit of `capacity` that gives one back in `seconds`.
fn slow(capacity: u32, seconds: f64) -> impl Fn(&mut Config) {
    move |config| {
        config.admin.token = Some(Secret::new("t0ken-of-operators"));
        let refill_per_second = Rate::per_second(1.0 / seconds).unwrap();
        config.routes[0].limits[0].limit.kind = LimitKind::TokenBucket(TokenBucket { capacity, refill_per_second });
    }
}

/// The same as the limit of a tenant's action.
fn actions(config: &mut Config) {
    slow(100, 0.6)(config);
    let route = &mut config.routes[0];
    route.paths = vec!["/invoke/{action_id}".to_owned()];
    route.limits[0].limit.per =
        vec![Dimension::Header("x-tenant-id".parse().unwrap()), Dimension::Path("action_id".to_owned())];
}

/// A client that the configuration trusts in 10.0.0.0/8 and on this machine.
fn trusted(client: &str) -> Trusted {
    let networks = ["10.0.0.0/8", "127.0.0.0/8"].map(|network| network.parse().unwrap()).into();
    Trusted { client: client.to_owned(), networks, certificate: None, secret: None }
}

/// Asks for a change, with the token.
async fn change(admin: SocketAddr, method: Method, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(admin, method, path, &[TOKEN], &body).await
}

/// What a client's request is explained by.
async fn explained(admin: SocketAddr, body: &Value) -> Value {
    let answer = send(admin, Method::POST, "/api/v1/explain", &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
