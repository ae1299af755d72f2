//! How a route's requests are delivered: whose credentials they carry, and how often they are tried.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use super::{Endpoint, Secret, value};

/// `[oauth.NAME]`: where the bearer tokens of routes come from (RFC 6749).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OAuth {
    /// Asked with POST; nothing secret goes into it.
    pub token_url: Endpoint,
    /// What is shown there.
    #[serde(flatten)]
    pub grant: Grant,
    /// How long a token lives whose answer does not say.
    #[serde(serialize_with = "value::duration")]
    pub default_lifetime: Duration,
    /// Longest wait for one answer.
    #[serde(serialize_with = "value::duration")]
    pub timeout: Duration,
    /// Longest wait of a request for a token, where there is none yet.
    #[serde(serialize_with = "value::duration")]
    pub token_timeout: Duration,
    /// PEM file of the certificate authorities to believe instead of the system's.
    #[serde(serialize_with = "value::optional")]
    pub ca: Option<PathBuf>,
}

/// What is shown at the token endpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "grant", rename_all = "snake_case")]
pub enum Grant {
    /// The client alone (RFC 6749, section 4.4).
    ClientCredentials(OAuthClient),
    /// An access key in the name of a client (RFC 6749, section 4.3).
    Password {
        /// In whose name.
        #[serde(flatten)]
        client: OAuthClient,
        /// The key.
        #[serde(flatten)]
        key: AccessKey,
    },
    /// An access key alone, as the JSON that CXone's own endpoint takes.
    AccessKey(AccessKey),
}

/// A client that is registered with the authorization server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OAuthClient {
    /// Its public name.
    pub client_id: String,
    /// Its password.
    pub client_secret: Secret,
    /// Where both stand in a request.
    pub client_authentication: ClientAuthentication,
    /// What the token is to be good for, parted by spaces; `None` leaves it to the server.
    #[serde(serialize_with = "value::optional")]
    pub scope: Option<String>,
}

/// Where a client's name and password stand in a request for a token (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthentication {
    /// In the form.
    Body,
    /// In `Authorization`.
    Basic,
}

/// An access key of CXone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccessKey {
    /// Its id.
    pub username: String,
    /// Its secret.
    pub password: Secret,
}

/// `routes.retry`: which requests are sent again, and when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retry {
    /// Tries in total, the first included (1 to 10).
    pub attempts: u32,
    /// The longest wait before the second try; it doubles with each further one.
    #[serde(serialize_with = "value::duration")]
    pub base: Duration,
    /// The longest wait that doubling leads to.
    #[serde(serialize_with = "value::duration")]
    pub max: Duration,
    /// Statuses that are tried again (400 to 599).
    pub on: Vec<u16>,
    /// No try begins later than this after the first.
    #[serde(serialize_with = "value::duration")]
    pub deadline: Duration,
    /// The largest body that is kept to be sent again, in bytes.
    pub replay_bytes: usize,
}
