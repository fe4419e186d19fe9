//! The tokens of a request that were verified.

use std::sync::Arc;

use serde_json::{Map, Value};
use smallvec::SmallVec;

/// The claims of the tokens that a request carries and that somebody has verified: one token for each provider. What is
/// here is taken for true; a token that was not verified is not here.
#[derive(Debug, Clone, Default)]
pub struct VerifiedTokens(SmallVec<[Verified; 1]>);

#[derive(Debug, Clone)]
struct Verified {
    provider: Box<str>,
    claims: Arc<Map<String, Value>>,
}

impl VerifiedTokens {
    /// No token.
    pub const fn none() -> Self {
        Self(SmallVec::new_const())
    }

    /// Adds the verified claims of a token of `provider`, in place of an earlier one.
    pub fn insert(&mut self, provider: &str, claims: Map<String, Value>) {
        self.insert_shared(provider, Arc::new(claims));
    }

    /// As [`Self::insert`], with claims that are remembered elsewhere too.
    pub fn insert_shared(&mut self, provider: &str, claims: Arc<Map<String, Value>>) {
        self.0.retain(|known| *known.provider != *provider);
        self.0.push(Verified { provider: provider.into(), claims });
    }

    /// The claims of the token of `provider`.
    pub fn of(&self, provider: &str) -> Option<&Map<String, Value>> {
        self.0.iter().find(|known| *known.provider == *provider).map(|known| &*known.claims)
    }
}
