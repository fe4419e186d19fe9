//! An issuer of tokens, good and bad.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use postern_traffic::JwtProvider;
use serde_json::{Value, json};

/// The moment at which tokens are judged: 2026-01-01T00:30:00Z.
pub const NOW: u64 = 1_767_227_400;

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static P384: LazyLock<EcdsaKeyPair> = LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

/// Every algorithm that is taken.
pub const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

/// The numbers of a DER-encoded `RSAPublicKey` (RFC 8017 §A.1.1).
fn rsa_numbers() -> [Vec<u8>; 2] {
    let der = RSA.public_key().as_ref();
    let mut rest = &der[4..];
    std::array::from_fn(|_| {
        let (length, start) = match rest[1] {
            0x82 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
            short => (usize::from(short), 2),
        };
        let (number, after) = rest[start..].split_at(length);
        rest = after;
        number.strip_prefix(&[0]).unwrap_or(number).to_vec()
    })
}

/// The public key that verifies this algorithm, without `kid`, `alg` and `use`.
pub fn jwk(algorithm: &str) -> Value {
    let curve = |kind: &str, name: &str, point: &[u8]| {
        let (x, y) = point[1..].split_at(point.len() / 2);
        json!({"kty": kind, "crv": name, "x": base64(x), "y": base64(y)})
    };
    match algorithm {
        "ES256" => curve("EC", "P-256", P256.public_key().as_ref()),
        "ES384" => curve("EC", "P-384", P384.public_key().as_ref()),
        "EdDSA" => json!({"kty": "OKP", "crv": "Ed25519", "x": base64(ED25519.public_key())}),
        _ => {
            let [n, e] = rsa_numbers();
            json!({"kty": "RSA", "n": base64(n), "e": base64(e)})
        }
    }
}

/// A key with more members.
pub fn with(mut key: Value, members: Value) -> Value {
    key.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    key
}

/// A set of these keys.
pub fn jwks(keys: impl IntoIterator<Item = Value>) -> String {
    json!({"keys": keys.into_iter().collect::<Vec<_>>()}).to_string()
}

fn signature(algorithm: &str, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |encoding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; RSA.public_modulus_len()];
        RSA.sign(encoding, &random, message, &mut signature).unwrap();
        signature
    };
    match algorithm {
        "RS256" => rsa(&RSA_PKCS1_SHA256),
        "RS384" => rsa(&RSA_PKCS1_SHA384),
        "RS512" => rsa(&RSA_PKCS1_SHA512),
        "PS256" => rsa(&RSA_PSS_SHA256),
        "PS384" => rsa(&RSA_PSS_SHA384),
        "PS512" => rsa(&RSA_PSS_SHA512),
        "ES256" => P256.sign(&random, message).unwrap().as_ref().to_vec(),
        "ES384" => P384.sign(&random, message).unwrap().as_ref().to_vec(),
        "EdDSA" | "Ed25519" => ED25519.sign(message).as_ref().to_vec(),
        _ => Vec::new(),
    }
}

/// A token of these texts, signed with the key of an algorithm, whatever its header says.
pub fn signed(header: &str, claims: &str, algorithm: &str) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    format!("{message}.{}", base64(signature(algorithm, message.as_bytes())))
}

/// A token as an issuer makes it.
pub fn token(algorithm: &str, claims: &Value) -> String {
    signed(&json!({"alg": algorithm, "typ": "JWT"}).to_string(), &claims.to_string(), algorithm)
}

/// A token whose HMAC has the public RSA key as its secret, in this form.
pub fn confused(secret: &[u8]) -> String {
    let message = format!("{}.{}", base64(r#"{"alg":"HS256"}"#), base64(claims().to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", base64(tag))
}

/// The public RSA key in the forms that someone may take for a secret.
pub fn rsa_as_secrets() -> Vec<Vec<u8>> {
    let spki = RSA.public_key().as_der().unwrap().as_ref().to_vec();
    let body = data_encoding::BASE64.encode(&spki);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
    let [n, _] = rsa_numbers();
    vec![spki, pem.into_bytes(), base64(&n).into_bytes(), n, RSA.public_key().as_ref().to_vec()]
}

/// Claims that are good now.
pub fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "shop", "sub": "ann", "exp": NOW + 600, "nbf": NOW - 60, "iat": NOW - 60})
}

/// The provider whose tokens these are.
pub fn provider() -> JwtProvider {
    serde_json::from_value(json!({
        "name": "people", "issuer": "https://issuer.example", "audiences": ["shop", "store"], "jwks": {"inline": ""},
    }))
    .unwrap()
}
