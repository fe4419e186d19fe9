//! How a call was judged, as it is counted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was let through.
    Allow,
    /// It was let through because of audit mode; enforced, it would be denied.
    Audit,
    /// It was refused.
    Deny,
    /// It was not judged: no instance was reached, or it could not be read.
    Failed,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Allow, Self::Audit, Self::Deny, Self::Failed];

    /// The word, as in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Deny => "deny",
            Self::Failed => "failed",
        }
    }

    /// Whether the call went through.
    pub fn went_through(self) -> bool {
        matches!(self, Self::Allow | Self::Audit)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no [`Verdict`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a verdict; use allow, audit, deny or failed")]
pub struct UnknownVerdict(String);

impl FromStr for Verdict {
    type Err = UnknownVerdict;

    fn from_str(text: &str) -> Result<Self, UnknownVerdict> {
        let known = Self::ALL.into_iter().find(|verdict| verdict.as_str() == text);
        known.ok_or_else(|| UnknownVerdict(text.chars().take(40).collect()))
    }
}
