//! What a service wants done with unusual paths.

use serde::{Deserialize, Serialize};

use crate::{DoubleSlash, EncodedSlash};

/// The path settings of a service. As shipped they refuse `%2F` and collapse `//`; they matter only where the governing
/// intention has permissions, since elsewhere no path is touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathSettings {
    /// `refuse` (as shipped) or `keep`, for services such as RabbitMQ (`/api/queues/%2F/`) and GitLab.
    #[serde(default)]
    pub encoded_slash: EncodedSlash,
    /// `collapse` (as shipped) or `keep`, for services with `//` in signed URLs.
    #[serde(default)]
    pub double_slash: DoubleSlash,
}
