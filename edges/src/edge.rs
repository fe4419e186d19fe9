//! What is counted apart.

use std::sync::Arc;

use postern_intentions::Protocol;
use postern_names::{PortName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::{Method, Shape, Verdict};

/// The longest `because` that is kept; a longer one is cut.
pub const MOST_BECAUSE_BYTES: usize = 200;

/// Who called whom, how, and how it was judged: everything that is equal for the calls that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// The calling service, from its certificate.
    pub source: ServiceName,
    /// The called service.
    pub destination: ServiceName,
    /// The called port.
    pub port: PortName,
    /// What the destination speaks.
    pub protocol: Protocol,
    /// How it was judged.
    pub verdict: Verdict,
    /// What decided, as in the log: `intention web -> api (allow)`.
    pub because: Arc<str>,
    /// Of an HTTP request; absent for a connection.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpPart>,
}

/// What is told apart of HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpPart {
    /// The method.
    pub method: Method,
    /// The path.
    pub shape: Shape,
}

impl Edge {
    /// Whether it stands for requests of any method and path: what there was no room to tell apart.
    pub fn is_rest(&self) -> bool {
        self.http.as_ref().is_some_and(|http| http.method == Method::Other && http.shape == Shape::rest())
    }
}
