//! Whose tokens permissions can ask for (RFC 7519, RFC 7517).

use postern_names::PortName;
use serde::{Deserialize, Serialize};

use crate::Period;

/// An issuer of JSON Web Tokens. A permission names it in `jwt: [{provider: NAME}]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtProvider {
    /// Its name, a label.
    pub name: PortName,
    /// What `iss` must be, exactly.
    pub issuer: String,
    /// One of them must be in `aud`; empty: `aud` is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Where its keys come from.
    pub jwks: JwksSource,
    /// Where a token is looked for, in this order; empty: `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<TokenPlace>,
    /// Whether the header or cookie with the token is passed on to the service.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub forward: bool,
    /// How far clocks may differ where `exp` and `nbf` are judged.
    #[serde(default = "leeway", skip_serializing_if = "is_leeway")]
    pub leeway: Period,
}

/// Where the public keys of a provider come from (RFC 7517 §5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JwksSource {
    /// They are here, as JSON.
    Inline(String),
    /// In a file on the control plane's host, read again when it changes.
    File(String),
    /// At an https URL (http on loopback only), fetched by the control plane.
    Url {
        /// The URL.
        url: String,
        /// How often it is fetched.
        #[serde(default = "refresh")]
        refresh: Period,
    },
}

/// Where a token is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TokenPlace {
    /// In this header, after this prefix.
    Header {
        /// Name, lower case.
        name: String,
        /// What stands before the token, such as `Bearer `.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        prefix: String,
    },
    /// In this cookie.
    Cookie(String),
    /// In this parameter of the query.
    Query(String),
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn leeway() -> Period {
    Period::seconds(30)
}

fn is_leeway(value: &Period) -> bool {
    *value == leeway()
}

fn refresh() -> Period {
    Period::seconds(300)
}
