//! All providers of a sidecar.

use std::time::SystemTime;

use http::HeaderMap;
use postern_intentions::VerifiedTokens;
use postern_names::PortName;
use postern_traffic::JwtProvider;
use smallvec::SmallVec;

use super::cache::TokenCache;
use super::error::{JwksError, JwtError};
use super::places::Places;
use super::verifier::{Claims, Verifier};

/// The providers that permissions can ask for, made ready once for each change of theirs.
#[derive(Debug, Default)]
pub struct Verifiers(Vec<Provider>);

#[derive(Debug)]
struct Provider {
    name: PortName,
    places: Places,
    forward: bool,
    /// Absent when its keys cannot be used.
    verifier: Option<Verifier>,
}

/// What the tokens of a request came to.
#[derive(Debug, Default)]
pub struct Checked<'v> {
    /// What permissions may rely on.
    pub verified: VerifiedTokens,
    /// Providers for whom the request has a token that is not taken, with the reason, for the log.
    pub refused: SmallVec<[(&'v PortName, JwtError); 1]>,
}

impl Verifiers {
    /// Makes providers ready, each with the text of its key set. One whose keys cannot be used stays, takes no token, and
    /// is named with the reason: what needs its tokens is denied.
    pub fn compile<'p>(providers: impl IntoIterator<Item = (&'p JwtProvider, &'p str)>) -> (Self, Vec<(PortName, JwksError)>) {
        let mut errors = Vec::new();
        let ready = |(provider, jwks): (&'p JwtProvider, &'p str)| {
            let verifier = Verifier::compile(provider, jwks).map_err(|error| errors.push((provider.name.clone(), error))).ok();
            Provider { name: provider.name.clone(), places: Places::of(provider), forward: provider.forward, verifier }
        };
        let providers = providers.into_iter().map(ready).collect();
        (Self(providers), errors)
    }

    /// Whether there is no provider: no request need be looked at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies the tokens of a request. A provider's token counts only if every token that the request carries in the
    /// provider's places is good, or a service could read one that nobody verified; the claims are those of the first.
    pub fn tokens(&self, headers: &HeaderMap, query: Option<&str>, now: SystemTime, cache: &mut TokenCache) -> Checked<'_> {
        let mut checked = Checked::default();
        for provider in &self.0 {
            match provider.check(headers, query, now, cache) {
                None => {}
                Some(Ok(claims)) => checked.verified.insert_shared(provider.name.as_str(), claims.as_map().clone()),
                Some(Err(error)) => checked.refused.push((&provider.name, error)),
            }
        }
        checked
    }

    /// Takes away the headers and cookies of providers whose tokens are not passed on to the service.
    pub fn remove_tokens(&self, headers: &mut HeaderMap) {
        for provider in self.0.iter().filter(|provider| !provider.forward) {
            provider.places.remove(headers);
        }
    }
}

impl Provider {
    fn check(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: SystemTime,
        cache: &mut TokenCache,
    ) -> Option<Result<Claims, JwtError>> {
        let mut first = None;
        for token in self.places.find(headers, query) {
            let Some(verifier) = &self.verifier else { return Some(Err(JwtError::UnknownKey)) };
            match verifier.verify_cached(token, now, cache) {
                Ok(claims) => first = first.or(Some(Ok(claims))),
                Err(error) => return Some(Err(error)),
            }
        }
        first
    }
}
