//! JSON Web Tokens of requests, verified (RFC 7519 in the compact form of RFC 7515).
//!
//! A token counts for a provider if a key of its set signed it with an algorithm that fits the key, its `iss` is the
//! provider's, its `aud` has one of the provider's audiences, and its time has come and not passed. What it takes never
//! depends on the token: not the key (`jwk`, `jku`, `x5c` in a header are not looked at), not whether there is a
//! signature (`none`), not whether a public key is a shared secret (HS256).
//!
//! [`Verifiers`] has every provider of a sidecar and turns a request into what permissions are judged by. Nothing here
//! does I/O, waits, or reads a clock: the moment comes in, and so does the [`TokenCache`], one for each worker.
//!
//! Signatures are aws-lc-rs' work. A library for tokens would hide the clock, take the last of two equal names, and
//! verify by calling the same functions.

mod algorithm;
mod cache;
mod error;
mod json;
mod keys;
mod places;
mod verifier;
mod verifiers;

pub use algorithm::Algorithm;
pub use cache::TokenCache;
pub use error::{JwksError, JwtError, KeyError, SkippedKey};
pub use keys::{MOST_JWKS_BYTES, MOST_KEYS};
pub use places::{Found, Places, find_token};
pub use verifier::{Claims, MOST_TOKEN_BYTES, Verifier};
pub use verifiers::{Checked, Verifiers};
