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
    /// For each token that no provider takes, the provider that came nearest to it and what it misses, for the log.
    pub refused: SmallVec<[(&'v PortName, JwtError); 1]>,
}

/// What the providers, one after the other, say of the tokens of a request. Several may look in the same place, and each
/// takes only its own.
#[derive(Default)]
struct Said<'r, 'v> {
    taken: SmallVec<[&'r str; 2]>,
    refused: SmallVec<[(&'r str, &'v PortName, JwtError); 2]>,
}

impl<'r, 'v> Said<'r, 'v> {
    fn refuses(&mut self, provider: &'v PortName, token: &'r str, error: JwtError) {
        match self.refused.iter_mut().find(|(one, ..)| *one == token) {
            Some((_, _, before)) if *before >= error => {}
            Some(nearer) => *nearer = (token, provider, error),
            None => self.refused.push((token, provider, error)),
        }
    }

    /// Tokens that nobody takes.
    fn refused(self) -> impl Iterator<Item = (&'v PortName, JwtError)> {
        let Self { taken, refused } = self;
        let of_nobody = refused.into_iter().filter(move |(token, ..)| !taken.contains(token));
        of_nobody.map(|(_, provider, error)| (provider, error))
    }
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
        let mut said = Said::default();
        let mut verified = VerifiedTokens::default();
        for provider in &self.0 {
            if let Some(claims) = provider.check(&provider.places.find(headers, query), now, cache, &mut said) {
                verified.insert_shared(provider.name.as_str(), claims.as_map().clone());
            }
        }
        Checked { verified, refused: said.refused().collect() }
    }

    /// Takes away the headers and cookies of providers whose tokens are not passed on to the service.
    pub fn remove_tokens(&self, headers: &mut HeaderMap) {
        for provider in self.0.iter().filter(|provider| !provider.forward) {
            provider.places.remove(headers);
        }
    }
}

impl Provider {
    /// The claims of the first token, where all are good.
    fn check<'r, 'v>(
        &'v self,
        tokens: &[&'r str],
        now: SystemTime,
        cache: &mut TokenCache,
        said: &mut Said<'r, 'v>,
    ) -> Option<Claims> {
        let mut first = None;
        for token in tokens {
            let verified = self.verifier.as_ref().ok_or(JwtError::UnknownKey);
            match verified.and_then(|verifier| verifier.verify_cached(token, now, cache)) {
                Ok(claims) => {
                    said.taken.push(token);
                    first = first.or(Some(claims));
                }
                Err(error) => {
                    said.refuses(&self.name, token, error);
                    return None;
                }
            }
        }
        first
    }
}
