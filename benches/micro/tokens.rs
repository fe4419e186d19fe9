//! What it costs to verify a JSON Web Token, and to know it again.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use criterion::Criterion;
use data_encoding::BASE64URL_NOPAD;
use postern_proxy::http::jwt::{TokenCache, Verifier};
use serde_json::json;

pub fn bench(criterion: &mut Criterion) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_227_400);
    let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = key.public_key().as_ref();
    let jwks =
        json!({"keys": [{"kty": "EC", "crv": "P-256", "x": base64(&point[1..33]), "y": base64(&point[33..])}]}).to_string();
    let provider = json!({"name": "people", "issuer": "https://issuer.example", "audiences": ["shop"], "jwks": {"inline": ""}});
    let provider = serde_json::from_value(provider).expect("a provider");
    let claims = json!({
        "iss": "https://issuer.example", "aud": "shop", "sub": "ann", "exp": 1_767_228_000, "iat": 1_767_227_000,
        "email": "ann@example.com", "realm_access": {"roles": ["staff", "buyer"]},
    });
    let message = format!("{}.{}", base64(br#"{"alg":"ES256"}"#), base64(claims.to_string().as_bytes()));
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
    let token = format!("{message}.{}", base64(signature.as_ref()));

    let verifier = Verifier::compile(&provider, &jwks).expect("a verifier");
    let mut cache = TokenCache::default();
    let mut group = criterion.benchmark_group("tokens");
    group.bench_function("verify ES256", |bencher| {
        bencher.iter(|| verifier.verify(black_box(&token), now).expect("a good token"))
    });
    group.bench_function("know again", |bencher| {
        bencher.iter(|| verifier.verify_cached(black_box(&token), now, &mut cache).expect("a good token"));
    });
    group.finish();
}
