//! Reading what operators send: queries, bodies, and the request that they want explained. Whatever is not known is an error
//! that names it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request,
    header::{HOST, HeaderName, HeaderValue},
};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    answer::{Code, Refusal},
    engine::{Amounts, BucketName, LimitName, Page},
};
use crate::{
    body::RequestBody,
    limiter::{amendments::LIFETIME_MAX, key::Key},
    peer::Peer,
};

/// The largest body, in bytes: a request to explain with all its fields.
const BODY_MAX: usize = 65_536;

/// The most entries of a page.
const PAGE_MAX: usize = 100;

/// The entries of a page where nothing is said.
const PAGE: usize = 50;

/// The most values of a bucket that are read.
const VALUES_MAX: usize = 16;

/// The parameters of a query, decoded.
pub struct Query(Vec<(String, String)>);

/// A request to explain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    method: Option<String>,
    path: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(default)]
    certificate: Option<String>,
}

/// One value, or several of one name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

/// A bucket to fill.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    limit: Option<String>,
    values: Vec<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// A client to be trusted for a while.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// What it is called.
    pub client: String,
    /// From where it is believed.
    #[serde(default)]
    pub networks: Vec<IpNet>,
    /// For how long.
    pub seconds: u64,
}

/// A limit that is to have other parameters for a while.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitChange {
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    limit: Option<String>,
    #[serde(default)]
    capacity: Option<u32>,
    #[serde(default)]
    refill_per_second: Option<f64>,
    #[serde(default)]
    quota: Option<u32>,
    /// For how long.
    pub seconds: u64,
}

/// A client that the configuration trusts, and that is to be held to limits for a while.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspension {
    /// What it is called.
    pub client: String,
    /// For how long.
    pub seconds: u64,
}

/// A body that is the JSON of `T`.
pub async fn body<T: DeserializeOwned>(body: RequestBody) -> Result<T, Refusal> {
    let whole = Limited::new(body, BODY_MAX).collect().await.map_err(|error| {
        let too_large = error.is::<http_body_util::LengthLimitError>();
        let code = if too_large { Code::BodyTooLarge } else { Code::BadRequest };
        Refusal::new(code, format!("the body could not be read: {error}"))
    })?;
    let bytes: Bytes = whole.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))
}

/// A segment of a path, decoded.
pub fn segment(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Refusal::new(Code::BadRequest, "a segment of the path is no UTF-8"))?;
    Ok(decoded.into_owned())
}

// === impl Query ===

impl Query {
    /// The parameters of `query`, which must be among `known`. Only `value` may stand there more than once.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut read: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| segment(&text.replace('+', " "));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_str()) {
                let message = format!("unknown parameter {name:?}; known: {}", known.join(", "));
                return Err(Refusal::new(Code::BadRequest, message));
            }
            if name != "value" && read.iter().any(|(there, _)| *there == name) || read.len() >= VALUES_MAX {
                return Err(Refusal::new(Code::BadRequest, format!("the parameter {name:?} stands there too often")));
            }
            read.push((name, value));
        }
        Ok(Self(read))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    /// The number of a parameter, within bounds; `default` where it is not there.
    pub fn count(&self) -> Result<usize, Refusal> {
        let Some(text) = self.get("count") else { return Ok(PAGE) };
        let count = text.parse().ok().filter(|count| (1..=PAGE_MAX).contains(count));
        count.ok_or_else(|| Refusal::new(Code::BadRequest, format!("count: expected a whole number from 1 to {PAGE_MAX}")))
    }

    /// The bucket it names.
    pub fn bucket(&self) -> BucketName {
        let text = |name| self.get(name).map(str::to_owned);
        let values = self.0.iter().filter(|(name, _)| name == "value").map(|(_, value)| value.clone()).collect();
        let kind = text("kind").unwrap_or_else(|| "name".to_owned());
        BucketName { route: text("route"), limit: text("limit"), values, kind }
    }

    /// The page it names.
    pub fn page(&self) -> Result<Page, Refusal> {
        let text = |name| self.get(name).map(str::to_owned);
        let key = |text: &str| Key::from_text(text).ok_or_else(|| Refusal::new(Code::BadRequest, "cursor: no page ends so"));
        let cursor = self.get("cursor").map(key).transpose()?;
        Ok(Page { route: text("route"), limit: text("limit"), cursor, count: self.count()? })
    }
}

// === impl Reset ===

impl Reset {
    /// The bucket it names.
    pub fn bucket(self) -> BucketName {
        let Self { route, limit, values, kind } = self;
        BucketName { route, limit, values, kind: kind.unwrap_or_else(|| "name".to_owned()) }
    }
}

// === impl LimitChange ===

impl LimitChange {
    /// The limit it names.
    pub fn name(&self) -> LimitName {
        LimitName { route: self.route.clone(), limit: self.limit.clone() }
    }

    /// How much there is to be of it.
    pub fn wanted(&self) -> Amounts {
        let Self { capacity, refill_per_second, quota, .. } = *self;
        Amounts { capacity, refill_per_second, quota }
    }
}

/// For how long a change holds.
pub fn lifetime(seconds: u64) -> Result<Duration, Refusal> {
    let most = LIFETIME_MAX.as_secs();
    let within = Some(seconds).filter(|seconds| (1..=most).contains(seconds));
    let expected = || Refusal::new(Code::BadRequest, format!("seconds: expected a whole number from 1 to {most}"));
    within.map(Duration::from_secs).ok_or_else(expected)
}

/// A client as identities have it, in lower case.
pub fn client_name(name: &str) -> Result<String, Refusal> {
    let name = name.trim().to_ascii_lowercase();
    let is_name = (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let expected = || Refusal::new(Code::BadRequest, "client: expected 1 to 128 printable ASCII characters");
    if is_name { Ok(name) } else { Err(expected()) }
}

// === impl Asked ===

impl Asked {
    /// The request, and who sends it.
    pub fn request(self) -> Result<(Peer, Request<RequestBody>), Refusal> {
        let wrong = |what: &str| Refusal::new(Code::BadRequest, format!("{what}: not what a request can have"));
        let method = Method::from_bytes(self.method.as_deref().unwrap_or("GET").as_bytes()).map_err(|_| wrong("method"))?;
        if !self.path.starts_with('/') {
            return Err(Refusal::new(Code::BadRequest, "path: expected one that begins with /"));
        }
        let mut request = Request::builder().method(method).uri(self.path).body(RequestBody::default());
        let request = request.as_mut().map_err(|_| wrong("path"))?;
        let host = self.host.unwrap_or_else(|| "localhost".to_owned());
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(host).map_err(|_| wrong("host"))?);
        for (name, values) in self.headers {
            let header = HeaderName::try_from(&name).map_err(|_| wrong(&name))?;
            let values = match values {
                Values::One(value) => vec![value],
                Values::Many(values) => values,
            };
            for value in values {
                headers.append(&header, HeaderValue::try_from(value).map_err(|_| wrong(&name))?);
            }
        }
        let address = SocketAddr::new(self.address.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0);
        let peer = Peer { address, secure: false, certificate: self.certificate.map(Into::into) };
        Ok((peer, std::mem::take(request)))
    }
}
