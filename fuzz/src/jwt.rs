//! A token, and the key set of its provider.

use std::time::SystemTime;

use postern_proxy::http::jwt::{TokenCache, Verifier};
use postern_traffic::JwtProvider;
use postern_traffic::settings::JwksSource;

use super::NOW;

/// The issuer of the tokens of the corpus.
pub const ISSUER: &str = "https://issuer.example";
/// Their audience.
pub const AUDIENCE: &str = "shop";

/// A token, a line feed, a key set.
pub fn jwt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((token, jwks)) = text.split_once('\n') else { return };
    let provider = JwtProvider {
        name: "people".parse().expect("a label"),
        issuer: ISSUER.into(),
        audiences: vec![AUDIENCE.into()],
        jwks: JwksSource::Inline(String::new()),
        from: Vec::new(),
        forward: true,
        leeway: postern_traffic::Period::seconds(30),
    };
    let now = SystemTime::UNIX_EPOCH + NOW;
    let verifier = match Verifier::compile(&provider, jwks) {
        Ok(verifier) => verifier,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut cache = TokenCache::default();
    let first = verifier.verify_cached(token, now, &mut cache);
    assert_eq!(first, verifier.verify(token, now));
    assert_eq!(first, verifier.verify_cached(token, now, &mut cache), "what is remembered is what was found");
    if let Ok(claims) = first {
        assert_eq!(claims.as_map()["iss"], ISSUER);
    }
}
