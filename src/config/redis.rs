//! `store.redis`: which servers hold the buckets, read strictly from one URL or from a list of them. Printed, it is the same
//! URLs without the password.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Serialize, Serializer};

use super::{
    Secret,
    secret::REDACTED,
    url::{parse_host, parse_port},
};

/// The port of a Redis whose URL names none.
const REDIS_PORT: u16 = 6379;

/// The port of a Sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26379;

/// What in a user name would be taken for something else in its URL.
const RESERVED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%').add(b',').add(b'/').add(b':').add(b'@');

/// Where the buckets are, and how to log in there.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// Whom to ask.
    pub servers: Servers,
    /// Whether every connection is made with TLS.
    pub tls: bool,
    /// The ACL user; `None` is the default user.
    pub user: Option<String>,
    /// Its password; `None` does not log in.
    pub password: Option<Secret>,
    /// The database, always 0 in a Cluster.
    pub database: u16,
}

/// Which servers are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// This one.
    One(Address),
    /// The one that Sentinels name.
    Sentinel {
        /// The Sentinels; at least one.
        sentinels: Vec<Address>,
        /// The name under which they watch it.
        master: String,
    },
    /// The primaries of a Cluster, each for the keys it holds.
    Cluster {
        /// Nodes that are asked for all others; at least one.
        seeds: Vec<Address>,
    },
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Name or address, lower case, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

// === impl Redis ===

impl Redis {
    /// Reads one URL, or the URLs of several Cluster nodes with a comma between them.
    pub fn parse(text: &str) -> Option<Self> {
        match urls(text).as_slice() {
            [one] => Self::parse_one(one),
            several => Self::cluster(several.iter().map(|url| Self::parse_node(url)).collect::<Option<_>>()?),
        }
    }

    /// Reads `redis://[user:password@]host[:port][/database]`, or `redis+sentinel://` with several hosts and a master; with
    /// TLS they begin with `rediss`.
    fn parse_one(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (tls, sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            _ => return None,
        };
        let (credentials, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = credentials.map_or(Some((None, None)), parse_credentials)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (servers, database) = if sentinel {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            let sentinels = hosts.split(',').map(|host| Address::parse(host, SENTINEL_PORT)).collect::<Option<_>>()?;
            (Servers::Sentinel { sentinels, master: parse_name(master)? }, database)
        } else {
            (Servers::One(Address::parse(hosts, REDIS_PORT)?), path)
        };
        let database = if database.is_empty() { 0 } else { database.parse().ok()? };
        Some(Self { servers, tls, user, password, database })
    }

    /// Reads the URL of one Cluster node, which has no database to choose.
    pub(super) fn parse_node(text: &str) -> Option<Self> {
        Self::parse_one(text).filter(|redis| matches!(redis.servers, Servers::One(_)) && redis.database == 0)
    }

    /// The Cluster of which `nodes` are some; they must be logged in to in the same way.
    pub(super) fn cluster(nodes: Vec<Self>) -> Option<Self> {
        let first = nodes.first()?.clone();
        let seed = |node: Self| match node {
            Self { servers: Servers::One(address), tls, user, password, .. } => {
                (tls == first.tls && user == first.user && password == first.password).then_some(address)
            }
            _ => None,
        };
        let seeds = nodes.into_iter().map(seed).collect::<Option<_>>()?;
        Some(Self { servers: Servers::Cluster { seeds }, ..first })
    }

    /// The URL that says all but the password, with these hosts and this path.
    fn url(&self, sentinel: &str, hosts: &str, path: &str) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let user = self.user.as_deref().unwrap_or_default();
        let login = match self.password {
            Some(_) => format!("{}:{REDACTED}@", utf8_percent_encode(user, RESERVED)),
            None => String::new(),
        };
        let database = if self.database == 0 { String::new() } else { format!("/{}", self.database) };
        format!("{scheme}{sentinel}://{login}{hosts}{path}{database}")
    }
}

impl Serialize for Redis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.servers {
            Servers::One(address) => serializer.serialize_str(&self.url("", &address.typed(REDIS_PORT), "")),
            Servers::Sentinel { sentinels, master } => {
                let hosts: Vec<_> = sentinels.iter().map(|address| address.typed(SENTINEL_PORT)).collect();
                serializer.serialize_str(&self.url("+sentinel", &hosts.join(","), &format!("/{master}")))
            }
            Servers::Cluster { seeds } => {
                serializer.collect_seq(seeds.iter().map(|address| self.url("", &address.typed(REDIS_PORT), "")))
            }
        }
    }
}

// === impl Address ===

impl Address {
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, parse_port(port)?),
            _ => (text, default_port),
        };
        Some(Self { host: parse_host(host)?, port })
    }

    /// As it stands in a URL, where the port may be left out.
    fn typed(&self, default_port: u16) -> String {
        let text = self.to_string();
        let port = format!(":{default_port}");
        text.strip_suffix(&port).map_or(text.clone(), str::to_owned)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

// === parts ===

/// The URLs in a text. A comma that no scheme follows is part of a URL: Sentinels are listed in one.
fn urls(text: &str) -> Vec<&str> {
    let begins_url = |rest: &str| ["redis://", "rediss://"].iter().any(|scheme| rest.trim_start().starts_with(scheme));
    let mut urls = Vec::new();
    let mut begin = 0;
    for (comma, _) in text.match_indices(',').filter(|(comma, _)| begins_url(&text[comma + 1..])) {
        urls.push(text[begin..comma].trim());
        begin = comma + 1;
    }
    urls.push(text[begin..].trim());
    urls
}

/// `user:password` or `:password`, each percent-encoded where it has to be.
fn parse_credentials(text: &str) -> Option<(Option<String>, Option<Secret>)> {
    let decoded = |text| percent_decode_str(text).decode_utf8().ok();
    let (user, password) = text.split_once(':')?;
    let (user, password) = (decoded(user)?, decoded(password)?);
    (!password.is_empty()).then(|| {
        let user = (!user.is_empty()).then(|| user.into_owned());
        (user, Some(Secret::new(password)))
    })
}

/// The name of a master, as Sentinel allows them.
fn parse_name(text: &str) -> Option<String> {
    let well_formed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (!text.is_empty() && text.bytes().all(well_formed)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How it is printed.
    fn printed(redis: &Redis) -> serde_json::Value {
        serde_json::to_value(redis).unwrap()
    }

    #[test]
    fn urls_are_read_strictly() {
        for (typed, meant) in [
            ("redis://localhost", Some("redis://localhost")),
            ("redis://LOCALHOST:6379/0", Some("redis://localhost")),
            ("redis://localhost:6380/", Some("redis://localhost:6380")),
            ("redis://[::1]/15", Some("redis://[::1]/15")),
            ("redis://[::1]:1", Some("redis://[::1]:1")),
            ("redis://:secret@a", Some("redis://:[redacted]@a")),
            ("redis://user:secret@a/3", Some("redis://user:[redacted]@a/3")),
            ("redis://us%40er:s/e,c@r:e%74@a", Some("redis://us%40er:[redacted]@a")),
            ("redis://:redis.example,rediss.example@a", Some("redis://:[redacted]@a")),
            ("rediss://a", Some("rediss://a")),
            ("redis+sentinel://a,b:1,[::1]/main", Some("redis+sentinel://a,b:1,[::1]/main")),
            ("rediss+sentinel://:secret@a:26379/main/2", Some("rediss+sentinel://:[redacted]@a/main/2")),
            ("redis://", None),
            ("redis://a:0", None),
            ("redis://a:x", None),
            ("redis://a/x", None),
            ("redis://a/-1", None),
            ("redis://a/65536", None),
            ("redis://a?protocol=resp3", None),
            ("redis://a,b", None),
            ("redis://secret@a", None),
            ("redis://user:@a", None),
            ("redis://:%ff@a", None),
            ("redis+sentinel://a", None),
            ("redis+sentinel://a/", None),
            ("redis+sentinel:///main", None),
            ("redis+sentinel://a,/main", None),
            ("redis+sentinel://a/ma in", None),
            ("unix:///a", None),
            ("a:6379", None),
            ("", None),
        ] {
            assert_eq!(Redis::parse(typed).as_ref().map(printed), meant.map(Into::into), "{typed}");
        }
    }

    #[test]
    fn several_urls_are_nodes_of_one_cluster() {
        for (typed, meant) in [
            ("redis://a,redis://b:1", Some(&["redis://a", "redis://b:1"][..])),
            ("rediss://u:p@a, rediss://u:p@b", Some(&["rediss://u:[redacted]@a", "rediss://u:[redacted]@b"])),
            ("redis://a,rediss://b", None),
            ("redis://:p@a,redis://:q@b", None),
            ("redis://a/1,redis://b/1", None),
            ("redis://a,redis+sentinel://b/main", None),
            ("redis+sentinel://b/main,redis://a", None),
        ] {
            assert_eq!(Redis::parse(typed).as_ref().map(printed), meant.map(Into::into), "{typed}");
        }
    }

    #[test]
    fn what_is_percent_encoded_is_meant_decoded() {
        let redis = Redis::parse("redis://us%40er:s/e,c@r:e%74@a").unwrap();
        assert_eq!(redis.user.as_deref(), Some("us@er"));
        assert_eq!(redis.password.unwrap().expose(), "s/e,c@r:et");
    }
}
