//! Buckets by name: what a bucket is called where operators see it, and which bucket it is that they call so.
//!
//! Promised: what is found for names is the bucket of a request that carries them. A name is shown as the configuration
//! says; a hashed one is the bucket's key, which [`Named::key`] finds again for whoever knows the name.

use std::net::IpAddr;

use super::{
    call::{Call, folded},
    client::{self, Client},
    limit::RouteLimit,
    query,
    route::Route,
    tenant::Follows,
};
use crate::{
    config::{Dimension, ShowClients},
    limiter::key::{Key, KeyHasher},
};

/// Characters of a name that is cut.
const CUT_LENGTH: usize = 4;

/// What the values of a limit are that count; `route` is not among them, for it is no choice.
pub fn dimensions(limit: &RouteLimit) -> impl Iterator<Item = &Dimension> {
    limit.per.iter().filter(|dimension| **dimension != Dimension::Route)
}

/// What the bucket of a call is called.
pub fn shown(limit: &RouteLimit, call: &Call, key: Key, show: ShowClients) -> String {
    let value = |dimension| match dimension {
        // A credential is shown to nobody.
        &Dimension::Bearer => key.to_string(),
        _ => Some(value(dimension, call))
            .filter(|value| !value.is_empty())
            .or_else(|| limit.default.clone())
            .unwrap_or_default(),
    };
    let values = || dimensions(limit).map(value);
    match show {
        ShowClients::Hashed => key.to_string(),
        ShowClients::Plain => values().collect::<Vec<_>>().join(", "),
        ShowClients::Cut => values().map(|value| cut(&value)).collect::<Vec<_>>().join(", "),
    }
}

/// What operators call a bucket: a value for each of the [`dimensions`] of its limit, in their order.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// The values.
    pub values: &'a [String],
    /// What a client among them was named by: `name`, `cookie`, `bearer`, `certificate` or `address`.
    pub kind: &'a str,
    /// Leading bits of an IPv6 address that count.
    pub ipv6_prefix: u8,
    /// Makes keys of names.
    pub hasher: &'a KeyHasher,
}

impl Named<'_> {
    /// The bucket of a limit; `None` where the values do not fit it.
    pub fn key(&self, route: &Route, limit: &RouteLimit) -> Option<Key> {
        let mut values = self.values.iter();
        let key = self.key_of(route, limit, &limit.id, &limit.per, &mut values)?;
        values.next().is_none().then_some(key)
    }

    /// The tenant whose factor the limit follows: the first of what it counts by.
    pub fn tenant(&self, route: &Route, limit: &RouteLimit, follows: &Follows) -> Option<Key> {
        self.key_of(route, limit, &follows.id, &limit.per[..1], &mut self.values.iter())
    }

    fn key_of(
        &self,
        route: &Route,
        limit: &RouteLimit,
        id: &str,
        per: &[Dimension],
        values: &mut std::slice::Iter<'_, String>,
    ) -> Option<Key> {
        let mut key = self.hasher.start(id);
        for dimension in per {
            match dimension {
                Dimension::Route => _ = key.part(route.name.as_bytes()),
                Dimension::Client => Client::add_named(&mut key, values.next()?, self.kind, self.ipv6_prefix)?,
                Dimension::Address => {
                    let address: IpAddr = values.next()?.parse().ok()?;
                    client::add_network(&mut key, client::network(address.to_canonical(), self.ipv6_prefix));
                }
                // As the canonical form of a path has it.
                Dimension::Path(_) => _ = key.part(values.next()?.to_ascii_lowercase().as_bytes()),
                Dimension::Header(_) | Dimension::Query(_) => {
                    let value = Some(folded(values.next()?)).filter(|value| !value.is_empty());
                    key.part(value.or_else(|| limit.default.as_deref().map(folded))?.as_bytes());
                }
                // A credential is known by its hash.
                Dimension::Certificate | Dimension::Bearer => {
                    let value = values.next().filter(|value| !value.is_empty());
                    let value = value.map(|value| value.as_str().into());
                    key.part(value.or_else(|| limit.default.as_deref().map(folded))?.as_bytes());
                }
            }
        }
        Some(key.finish())
    }
}

fn value(dimension: &Dimension, call: &Call) -> String {
    let Call { request, client, peer, route, captures, .. } = call;
    match dimension {
        Dimension::Certificate => peer.certificate.as_deref().unwrap_or_default().to_owned(),
        Dimension::Bearer => String::new(),
        Dimension::Client => client.identity.text.to_string(),
        Dimension::Address => client.network.to_string(),
        Dimension::Route => route.name.to_string(),
        Dimension::Path(name) => {
            captures.iter().find(|(captured, _)| **captured == **name).map(|(_, value)| value.clone()).unwrap_or_default()
        }
        Dimension::Header(name) => {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        }
        Dimension::Query(name) => {
            let value = query::value(request.uri().query().unwrap_or_default(), name);
            value.ok().flatten().unwrap_or_default().into_owned()
        }
    }
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(CUT_LENGTH) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
