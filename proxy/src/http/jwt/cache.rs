//! Tokens whose signature was verified before.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::verifier::Claims;

/// Most tokens in each of the two generations.
const MOST_TOKENS: usize = 512;
/// Most bytes of tokens in each of the two generations. Their claims take a few times as much.
const MOST_BYTES: usize = 512 * 1024;

/// Remembers what verified tokens say, at most 1,024 of them and 1 MiB of tokens. Each worker has its own, so nothing is
/// shared and nothing locked. Only tokens that were good are in it: it cannot be filled without a provider's signature.
///
/// It has two generations. What is asked for moves into the young one; when that is full, the old one is forgotten and
/// the young one grows old. A key change makes a new verifier, which finds nothing of the one before.
#[derive(Debug, Default)]
pub struct TokenCache {
    young: Generation,
    old: Generation,
}

/// A token of a verifier, as SHA-256: the cache holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenKey {
    verifier: u64,
    digest: [u8; SHA256_OUTPUT_LEN],
}

#[derive(Debug, Default)]
struct Generation {
    tokens: HashMap<TokenKey, (usize, Claims)>,
    bytes: usize,
}

impl TokenCache {
    /// The name of a token here.
    pub(super) fn key(verifier: u64, token: &str) -> TokenKey {
        let mut key = TokenKey { verifier, digest: [0; SHA256_OUTPUT_LEN] };
        key.digest.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        key
    }

    pub(super) fn get(&mut self, key: &TokenKey) -> Option<Claims> {
        if let Some((_, claims)) = self.young.tokens.get(key) {
            return Some(claims.clone());
        }
        let (length, claims) = self.old.tokens.remove(key)?;
        self.old.bytes -= length;
        self.insert(key.clone(), length, claims.clone());
        Some(claims)
    }

    pub(super) fn insert(&mut self, key: TokenKey, length: usize, claims: Claims) {
        if self.young.tokens.len() >= MOST_TOKENS || self.young.bytes + length > MOST_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += length;
        if let Some((replaced, _)) = self.young.tokens.insert(key, (length, claims)) {
            self.young.bytes -= replaced;
        }
    }

    /// How many tokens it remembers.
    pub fn len(&self) -> usize {
        self.young.tokens.len() + self.old.tokens.len()
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
