//! Tokens by every algorithm, and every way not to be taken.

#[path = "jwt/example.rs"]
mod example;
#[path = "tokens/mod.rs"]
mod tokens;

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};
use postern_proxy::http::jwt::{JwksError, JwtError, KeyError, TokenCache, Verifier, Verifiers, find_token};
use postern_traffic::JwtProvider;
use postern_traffic::settings::TokenPlace;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use tokens::{ALGORITHMS, NOW, base64, claims, confused, jwk, jwks, now, provider, rsa_as_secrets, signed, token, with};

fn verifier(keys: impl IntoIterator<Item = Value>) -> Verifier {
    Verifier::compile(&provider(), &jwks(keys)).unwrap()
}

/// With the key of every algorithm.
fn every_key() -> Verifier {
    verifier(["RS256", "ES256", "ES384", "EdDSA"].map(jwk))
}

fn refusal(verifier: &Verifier, token: &str) -> Option<JwtError> {
    verifier.verify(token, now()).err()
}

/// Why a token by P-256 with these claims more, or others, is refused.
fn refusal_of(changes: Value) -> Option<JwtError> {
    refusal(&verifier([jwk("ES256")]), &token("ES256", &with(claims(), changes)))
}

fn without(name: &str) -> Option<JwtError> {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    refusal(&verifier([jwk("ES256")]), &token("ES256", &claims))
}

#[test]
fn a_token_of_every_algorithm_is_taken() {
    let verifier = every_key();
    for algorithm in ALGORITHMS {
        let verified = verifier.verify(&token(algorithm, &claims()), now()).unwrap();
        assert_eq!(Value::Object((**verified.as_map()).clone()), claims(), "{algorithm}");
    }
    assert_eq!(refusal(&verifier, &token("Ed25519", &claims())), None, "the name of RFC 9864");
}

#[test]
fn a_signature_by_another_algorithm_of_the_same_key_is_refused() {
    let verifier = every_key();
    for said in ALGORITHMS {
        for done in ALGORITHMS.iter().filter(|done| **done != said) {
            let token = signed(&json!({"alg": said}).to_string(), &claims().to_string(), done);
            assert_eq!(refusal(&verifier, &token), Some(JwtError::Signature), "{said} by {done}");
        }
    }
}

#[test]
fn none_is_refused_in_every_spelling() {
    let verifier = every_key();
    for name in ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "ES512", "es256", "RS1", "ECDH-ES", "EdDSA "] {
        let token = signed(&json!({"alg": name}).to_string(), &claims().to_string(), "none");
        assert_eq!(refusal(&verifier, &token), Some(JwtError::Algorithm), "{name}");
    }
    let headless = signed("{}", &claims().to_string(), "none");
    assert_eq!(refusal(&verifier, &headless), Some(JwtError::Malformed));
    let unsigned = signed(r#"{"alg":"RS256"}"#, &claims().to_string(), "none");
    assert_eq!(refusal(&verifier, &unsigned), Some(JwtError::Signature));
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let verifier = every_key();
    for secret in rsa_as_secrets() {
        assert_eq!(refusal(&verifier, &confused(&secret)), Some(JwtError::Algorithm));
    }
}

#[test]
fn a_key_verifies_only_what_its_alg_says() {
    let verifier = verifier([with(jwk("RS256"), json!({"alg": "RS256", "use": "sig", "key_ops": ["verify"]}))]);
    assert_eq!(refusal(&verifier, &token("RS256", &claims())), None);
    for algorithm in ALGORITHMS.iter().filter(|algorithm| **algorithm != "RS256") {
        assert_eq!(refusal(&verifier, &token(algorithm, &claims())), Some(JwtError::UnknownKey), "{algorithm}");
    }
}

#[test]
fn a_kid_chooses_the_key() {
    let header = |kid: &str| json!({"alg": "ES256", "kid": kid}).to_string();
    let by = |kid: &str| signed(&header(kid), &claims().to_string(), "ES256");
    let named = verifier([with(jwk("ES256"), json!({"kid": "a"}))]);
    assert_eq!(refusal(&named, &by("a")), None);
    assert_eq!(refusal(&named, &by("b")), Some(JwtError::UnknownKey));
    assert_eq!(refusal(&named, &token("ES256", &claims())), None, "a token without kid is tried with every key");
    assert_eq!(refusal(&verifier([jwk("ES256")]), &by("b")), None, "a key without kid is tried with every token");
    let mut x = jwk("RS256");
    x["kid"] = "a".into();
    assert_eq!(refusal(&verifier([x]), &by("a")), Some(JwtError::UnknownKey), "a kid does not make a key fit");
}

#[test]
fn without_kid_every_fitting_key_is_tried() {
    // RFC 7515 §A.3's key, with another kid, before ours.
    let other = json!({
        "kty": "EC", "crv": "P-256", "kid": "other",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let both = verifier([other.clone(), with(jwk("ES256"), json!({"kid": "ours"}))]);
    assert_eq!(refusal(&both, &token("ES256", &claims())), None);
    assert_eq!(refusal(&verifier([other]), &token("ES256", &claims())), Some(JwtError::Signature));
}

#[test]
fn a_token_ends_at_exp_and_the_leeway() {
    let verifier = verifier([jwk("ES256")]);
    let token = token("ES256", &claims());
    let at = |seconds: u64| verifier.verify(&token, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).err();
    assert_eq!(at(NOW + 600 + 29), None);
    assert_eq!(at(NOW + 600 + 30), Some(JwtError::Expired));
    assert_eq!(at(NOW - 60 - 30), None);
    assert_eq!(at(NOW - 60 - 31), Some(JwtError::NotYetValid));
}

#[test]
fn claims_are_judged() {
    assert_eq!(refusal_of(json!({})), None);
    assert_eq!(refusal_of(json!({"exp": NOW - 31})), Some(JwtError::Expired));
    assert_eq!(refusal_of(json!({"exp": -1})), Some(JwtError::Expired));
    assert_eq!(refusal_of(json!({"exp": 1e300})), None);
    assert_eq!(refusal_of(json!({"exp": NOW as f64 + 0.5})), None);
    assert_eq!(without("exp"), Some(JwtError::NoExpiry));
    assert_eq!(refusal_of(json!({"nbf": NOW + 31})), Some(JwtError::NotYetValid));
    assert_eq!(without("nbf"), None);
    assert_eq!(refusal_of(json!({"iat": NOW + 329})), None);
    assert_eq!(refusal_of(json!({"iat": NOW + 331})), Some(JwtError::IssuedInFuture));
    assert_eq!(without("iat"), None);
    assert_eq!(refusal_of(json!({"iss": "https://issuer.example/"})), Some(JwtError::Issuer));
    assert_eq!(refusal_of(json!({"iss": "HTTPS://issuer.example"})), Some(JwtError::Issuer));
    assert_eq!(without("iss"), Some(JwtError::Issuer));
    assert_eq!(refusal_of(json!({"aud": "stores"})), Some(JwtError::Audience));
    assert_eq!(refusal_of(json!({"aud": ["x", "store"]})), None);
    assert_eq!(refusal_of(json!({"aud": []})), Some(JwtError::Audience));
    assert_eq!(without("aud"), Some(JwtError::Audience));
}

#[test]
fn claims_of_a_wrong_type_are_refused() {
    for claim in ["exp", "nbf", "iat"] {
        for value in [json!("1"), json!(null), json!([1]), json!({}), json!(true)] {
            assert_eq!(refusal_of(json!({claim: value})), Some(JwtError::ClaimType), "{claim}: {value}");
        }
    }
    for (claim, value) in
        [("iss", json!(1)), ("iss", json!(["https://issuer.example"])), ("aud", json!(1)), ("aud", json!(["shop", 1]))]
    {
        assert_eq!(refusal_of(json!({claim: value})), Some(JwtError::ClaimType), "{claim}: {value}");
    }
}

#[test]
fn a_provider_without_audiences_does_not_look_at_aud() {
    let mut open = provider();
    open.audiences.clear();
    let verifier = Verifier::compile(&open, &jwks([jwk("ES256")])).unwrap();
    let mut claims = claims();
    assert_eq!(refusal(&verifier, &token("ES256", &claims)), None);
    claims.as_object_mut().unwrap().remove("aud");
    assert_eq!(refusal(&verifier, &token("ES256", &claims)), None);
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let verifier = verifier([jwk("ES256")]);
    let good = claims().to_string();
    let twice = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
    for claims in [twice(r#""sub":"root""#), twice(r#""s\u0075b":"root""#), twice(r#""x":[{"a":1,"b":{"c":1,"c":2}}]"#)] {
        let token = signed(r#"{"alg":"ES256"}"#, &claims, "ES256");
        assert_eq!(refusal(&verifier, &token), Some(JwtError::DuplicateName), "{claims}");
    }
    let token = signed(r#"{"alg":"none","alg":"ES256"}"#, &good, "ES256");
    assert_eq!(refusal(&verifier, &token), Some(JwtError::DuplicateName));
}

#[test]
fn what_a_header_demands_is_not_guessed() {
    let verifier = verifier([jwk("ES256")]);
    for header in
        [r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, r#"{"alg":"ES256","crit":[]}"#, r#"{"alg":"none","crit":["x"]}"#]
    {
        let token = signed(header, &claims().to_string(), "ES256");
        assert_eq!(refusal(&verifier, &token), Some(JwtError::CriticalHeader), "{header}");
    }
}

#[test]
fn a_key_in_the_token_is_not_looked_at() {
    let header = json!({"alg": "ES256", "jwk": jwk("ES256"), "jku": "https://evil.example/jwks", "x5c": ["AA=="]}).to_string();
    let token = signed(&header, &claims().to_string(), "ES256");
    assert_eq!(refusal(&verifier([jwk("RS256")]), &token), Some(JwtError::UnknownKey));
}

#[test]
fn what_is_no_compact_token_is_refused() {
    let verifier = every_key();
    let good = token("ES256", &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let bad = [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "é.é.é",
        message,
        &format!("{good}."),
        &format!("{good}.x"),
        &format!("{good}="),
        &format!(" {good}"),
        &format!("{good}\n"),
        &format!("{message}.{signature}=="),
        &good.replace('.', ".."),
        &signed("[]", &claims().to_string(), "ES256"),
        &signed(r#"{"alg":["ES256"]}"#, "{}", "ES256"),
        &signed(r#"{"alg":"ES256","kid":1}"#, "{}", "ES256"),
        &signed(r#"{"alg":"ES256"}x"#, "{}", "ES256"),
        &signed(r#"{"alg":"ES256"}"#, "[]", "ES256"),
        &signed(r#"{"alg":"ES256"}"#, "\"x\"", "ES256"),
        &signed(r#"{"alg":"ES256"}"#, "{\"a\":1}{", "ES256"),
        &signed(r#"{"alg":"ES256"}"#, &"[".repeat(3000), "ES256"),
    ];
    for token in bad {
        assert_eq!(refusal(&verifier, token), Some(JwtError::Malformed), "{token:?}");
    }
}

#[test]
fn a_huge_token_is_refused_unread() {
    let verifier = verifier([jwk("ES256")]);
    let padded = |length: usize| token("ES256", &with(claims(), json!({"x": "x".repeat(length)})));
    let small = padded(5_000);
    assert!(small.len() <= 8 * 1024);
    assert_eq!(refusal(&verifier, &small), None);
    assert_eq!(refusal(&verifier, &padded(9_000)), Some(JwtError::TooLong));
    assert_eq!(refusal(&verifier, &".".repeat(8 * 1024 + 1)), Some(JwtError::TooLong));
}

/// RFC 7515 §A.2 and §A.3, whose claims end in 2011.
#[test]
fn the_examples_of_the_rfc_are_taken() {
    let rsa = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let p256 = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let examples = [
        format!(
            "eyJhbGciOiJSUzI1NiJ9.{payload}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        ),
        format!(
            "eyJhbGciOiJFUzI1NiJ9.{payload}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        ),
    ];
    let joe = JwtProvider { issuer: "joe".into(), audiences: Vec::new(), ..provider() };
    let verifier = Verifier::compile(&joe, &jwks([rsa, p256])).unwrap();
    for example in examples {
        let verified = verifier.verify(&example, SystemTime::UNIX_EPOCH + Duration::from_secs(1_300_819_000)).unwrap();
        assert_eq!(verified.as_map()["http://example.com/is_root"], true);
        assert_eq!(verifier.verify(&example, now()), Err(JwtError::Expired));
    }
}

#[test]
fn a_key_set_that_is_none_is_refused() {
    let refusal = |text: &str| Verifier::compile(&provider(), text).unwrap_err();
    assert_eq!(refusal(""), JwksError::Absent);
    for text in [" ", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]}x"#] {
        assert!(matches!(refusal(text), JwksError::Malformed { .. }), "{text}");
    }
    assert_eq!(refusal(&jwks(vec![jwk("ES256"); 65])), JwksError::TooManyKeys { keys: 65 });
    assert_eq!(refusal(&" ".repeat(64 * 1024 + 1)), JwksError::TooLong);
    let empty = Verifier::compile(&provider(), r#"{"keys":[]}"#).unwrap();
    assert_eq!(empty.verify(&token("ES256", &claims()), now()), Err(JwtError::UnknownKey), "no key, no token");
}

#[test]
fn keys_that_cannot_verify_are_left_out_and_named() {
    let p256 = || jwk("ES256");
    let short = json!({"kty": "RSA", "e": "AQAB", "n": base64([0xff; 128])});
    let long = json!({"kty": "RSA", "e": "AQAB", "n": base64([0xff; 1025])});
    let mut off_curve = p256();
    off_curve["y"] = off_curve["x"].clone();
    let mut cut = p256();
    cut["x"] = base64([1; 31]).into();
    let cases = [
        (json!("text"), KeyError::Member),
        (json!({"n": "AQAB"}), KeyError::Member),
        (json!({"kty": "RSA", "e": "AQAB"}), KeyError::Member),
        (with(p256(), json!({"use": "enc"})), KeyError::Purpose),
        (with(p256(), json!({"key_ops": ["sign"]})), KeyError::Purpose),
        (with(p256(), json!({"key_ops": "verify"})), KeyError::Member),
        (with(p256(), json!({"alg": "RS256"})), KeyError::Algorithm),
        (with(p256(), json!({"alg": "ES384"})), KeyError::Algorithm),
        (with(jwk("RS256"), json!({"alg": "HS256"})), KeyError::Algorithm),
        (with(jwk("RS256"), json!({"alg": "none"})), KeyError::Algorithm),
        (json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), KeyError::Algorithm),
        (json!({"kty": "oct", "k": "c2VjcmV0"}), KeyError::Kind),
        (with(p256(), json!({"crv": "P-521"})), KeyError::Kind),
        (with(p256(), json!({"crv": "secp256k1"})), KeyError::Kind),
        (with(p256(), json!({"d": "AQAB"})), KeyError::Private),
        (short, KeyError::Size),
        (long, KeyError::Size),
        (off_curve, KeyError::Value),
        (cut, KeyError::Value),
        (with(p256(), json!({"x": "!"})), KeyError::Value),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": base64([1; 33])}), KeyError::Value),
    ];
    for (key, why) in cases {
        let alone = Verifier::compile(&provider(), &jwks([key.clone()])).unwrap_err();
        assert!(matches!(&alone, JwksError::NoUsableKey { first } if first.why == why), "{key}: {alone}");
        let beside = verifier([key, jwk("EdDSA")]);
        assert_eq!(beside.skipped_keys().len(), 1);
        assert_eq!(refusal(&beside, &token("EdDSA", &claims())), None);
    }
}

#[test]
fn a_modulus_with_zeros_before_it_is_the_same_key() {
    let mut padded = jwk("RS256");
    let n = data_encoding::BASE64URL_NOPAD.decode(padded["n"].as_str().unwrap().as_bytes()).unwrap();
    padded["n"] = base64([vec![0], n].concat()).into();
    assert_eq!(refusal(&verifier([padded]), &token("RS256", &claims())), None);
}

#[test]
fn what_was_verified_is_remembered_and_still_ends() {
    let verifier = verifier([jwk("ES256")]);
    let (good, bad) = (token("ES256", &claims()), token("EdDSA", &claims()));
    let mut cache = TokenCache::default();
    let first = verifier.verify_cached(&good, now(), &mut cache).unwrap();
    let again = verifier.verify_cached(&good, now(), &mut cache).unwrap();
    assert!(std::sync::Arc::ptr_eq(first.as_map(), again.as_map()), "the second time nothing is parsed");
    assert_eq!(verifier.verify_cached(&good, now() + Duration::from_secs(630), &mut cache), Err(JwtError::Expired));
    assert_eq!(verifier.verify_cached(&good, now() - Duration::from_secs(91), &mut cache), Err(JwtError::NotYetValid));
    assert_eq!(verifier.verify_cached(&bad, now(), &mut cache), Err(JwtError::UnknownKey));
    assert_eq!(cache.len(), 1, "what is bad is not remembered");
}

#[test]
fn a_changed_provider_remembers_nothing() {
    let mut cache = TokenCache::default();
    let good = token("ES256", &claims());
    verifier([jwk("ES256")]).verify_cached(&good, now(), &mut cache).unwrap();
    assert_eq!(verifier([jwk("EdDSA")]).verify_cached(&good, now(), &mut cache), Err(JwtError::UnknownKey));
}

#[test]
fn the_cache_is_bounded_in_tokens_and_bytes() {
    let verifier = verifier([jwk("EdDSA")]);
    let mut cache = TokenCache::default();
    let numbered = |number: usize, size: usize| token("EdDSA", &with(claims(), json!({"n": number, "x": "x".repeat(size)})));
    let favourite = numbered(0, 0);
    let remembered = verifier.verify_cached(&favourite, now(), &mut cache).unwrap();
    for number in 1..2_000 {
        verifier.verify_cached(&numbered(number, 0), now(), &mut cache).unwrap();
        assert!(cache.len() <= 1_024);
        if number % 100 == 0 {
            let again = verifier.verify_cached(&favourite, now(), &mut cache).unwrap();
            assert!(std::sync::Arc::ptr_eq(remembered.as_map(), again.as_map()), "what is used stays");
        }
    }
    for number in 0..300 {
        verifier.verify_cached(&numbered(number, 5_000), now(), &mut cache).unwrap();
    }
    assert!(cache.len() <= 160, "1 MiB of tokens of some 7 KiB: {}", cache.len());
}

fn headers<'h>(pairs: impl IntoIterator<Item = (&'static str, &'h str)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn header(name: &str, prefix: &str) -> TokenPlace {
    TokenPlace::Header { name: name.into(), prefix: prefix.into() }
}

#[test]
fn a_token_is_found_where_the_provider_says() {
    let find = |from: &[TokenPlace], pairs: &[(&'static str, &str)], query: Option<&str>| -> Vec<String> {
        let provider = JwtProvider { from: from.to_vec(), ..provider() };
        find_token(&provider, &headers(pairs.iter().copied()), query).iter().map(|found| (*found).to_owned()).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(find(&[], &[("authorization", "Bearer a")], None), ["a"]);
    assert_eq!(find(&[], &[("authorization", "bEARER  a ")], None), ["a"], "a scheme has no case");
    assert_eq!(find(&[], &[("authorization", "Basic a")], None), none);
    assert_eq!(find(&[], &[("authorization", "Bearer a"), ("authorization", "Bearer b")], None), ["a", "b"]);
    assert_eq!(find(&[header("x-token", "")], &[("x-token", "a"), ("authorization", "Bearer b")], None), ["a"]);
    let cookie = TokenPlace::Cookie("t".into());
    assert_eq!(
        find(std::slice::from_ref(&cookie), &[("cookie", "s=1; t=a;tt=b; t = \"c\""), ("cookie", "t=d")], None),
        ["a", "c", "d"]
    );
    let query = TokenPlace::Query("t".into());
    assert_eq!(find(std::slice::from_ref(&query), &[], Some("x=1&t=a&tt=b&%74=c&t")), ["a", "c"]);
    assert_eq!(
        find(
            &[query.clone(), cookie, header("authorization", "Bearer ")],
            &[("cookie", "t=b"), ("authorization", "Bearer c")],
            Some("t=a")
        ),
        ["a", "b", "c"]
    );
    assert_eq!(find(&[query], &[], None), none);
    assert_eq!(find(&[TokenPlace::Query("a b".into())], &[], Some("a+b=c&a%20b=d&a%2=e&a%zzb=f")), ["c", "d"]);
    assert_eq!(find(&[header("no header", "")], &[], None), none);
}

#[test]
fn a_request_has_the_claims_of_its_tokens() {
    let other = JwtProvider { name: "machines".parse().unwrap(), issuer: "other".into(), ..provider() };
    let (verifiers, errors) = Verifiers::compile([(&provider(), jwks([jwk("ES256")]).as_str()), (&other, &jwks([jwk("EdDSA")]))]);
    assert!(errors.is_empty());
    let good = token("ES256", &claims());
    let headers = headers([("authorization", format!("Bearer {good}").as_str())]);
    let mut cache = TokenCache::default();
    let checked = verifiers.tokens(&headers, None, now(), &mut cache);
    assert_eq!(checked.verified.of("people").unwrap()["sub"], "ann");
    assert!(checked.verified.of("machines").is_none());
    assert!(checked.refused.is_empty(), "it is the token of one of them: {:?}", checked.refused);
    let checked = verifiers.tokens(&HeaderMap::new(), None, now(), &mut cache);
    assert!(checked.verified.of("people").is_none() && checked.refused.is_empty(), "no token is no error");
}

#[test]
fn a_token_that_no_provider_takes_is_refused_once_by_the_one_that_came_nearest() {
    let other = JwtProvider { name: "machines".parse().unwrap(), issuer: "other".into(), ..provider() };
    let keys = [jwks([jwk("ES256")]), jwks([jwk("EdDSA")])];
    let (ours, others) = ((&provider(), keys[0].as_str()), (&other, keys[1].as_str()));
    let expired = with(claims(), json!({"exp": NOW - 600}));
    for order in [[ours, others], [others, ours]] {
        let (verifiers, _) = Verifiers::compile(order);
        let refused = |tokens: &[String]| {
            let bearers: Vec<String> = tokens.iter().map(|token| format!("Bearer {token}")).collect();
            let headers = headers(bearers.iter().map(|bearer| ("authorization", bearer.as_str())));
            let checked = verifiers.tokens(&headers, None, now(), &mut TokenCache::default());
            checked.refused.iter().map(|(name, error)| (name.as_str().to_owned(), *error)).collect::<Vec<_>>()
        };
        let one = |name: &str, error: JwtError| vec![(name.to_owned(), error)];
        assert_eq!(refused(&[token("ES256", &expired)]), one("people", JwtError::Expired));
        assert_eq!(refused(&[token("EdDSA", &claims())]), one("machines", JwtError::Issuer));
        assert_eq!(refused(&["x.y.z".into()]).len(), 1);
        let both = refused(&[token("ES256", &claims()), token("ES256", &expired)]);
        assert_eq!(both, one("people", JwtError::Expired), "the good one is nobody's fault");
    }
}

#[test]
fn one_bad_token_among_good_ones_spoils_them() {
    let provider = JwtProvider { from: vec![header("authorization", "Bearer "), TokenPlace::Cookie("t".into())], ..provider() };
    let (verifiers, _) = Verifiers::compile([(&provider, jwks([jwk("ES256")]).as_str())]);
    let (good, forged) = (token("ES256", &claims()), token("EdDSA", &with(claims(), json!({"sub": "root"}))));
    let bearer = format!("Bearer {good}");
    let mut cache = TokenCache::default();
    let mut check = |cookie: &str| {
        let headers = headers([("authorization", bearer.as_str()), ("cookie", cookie)]);
        verifiers.tokens(&headers, None, now(), &mut cache).verified.of("people").is_some()
    };
    assert!(check("s=1"));
    assert!(check(&format!("t={good}")));
    assert!(!check(&format!("t={forged}")));
    assert!(!check(&format!("t={good}; t={forged}")));
    assert!(!check("t="));
    assert!(!check("t=\u{e9}"));
}

#[test]
fn a_provider_without_keys_takes_no_token() {
    let (verifiers, errors) = Verifiers::compile([(&provider(), "not a key set")]);
    assert_eq!(errors.len(), 1);
    let headers = headers([("authorization", format!("Bearer {}", token("ES256", &claims())).as_str())]);
    let checked = verifiers.tokens(&headers, None, now(), &mut TokenCache::default());
    assert!(checked.verified.of("people").is_none());
    assert_eq!(checked.refused.as_slice(), [(&provider().name, JwtError::UnknownKey)]);
}

#[test]
fn tokens_that_are_not_forwarded_are_taken_away_alone() {
    let hidden = JwtProvider {
        from: vec![header("authorization", "Bearer "), TokenPlace::Cookie("t".into())],
        forward: false,
        ..provider()
    };
    let shown = JwtProvider { from: vec![header("x-token", "")], ..provider() };
    let (verifiers, _) = Verifiers::compile([(&hidden, ""), (&shown, "")]);
    let mut sent = headers([
        ("authorization", "Basic a"),
        ("authorization", "Bearer b"),
        ("cookie", "s=1; t=2; u=3"),
        ("cookie", "t=4"),
        ("x-token", "c"),
    ]);
    verifiers.remove_tokens(&mut sent);
    assert_eq!(sent.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), ["Basic a"]);
    assert_eq!(sent.get_all(COOKIE).iter().collect::<Vec<_>>(), ["s=1; u=3"]);
    assert_eq!(sent["x-token"], "c");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_token_changed_in_one_place_is_refused(at in any::<Index>(), to in "[A-Za-z0-9_.=-]") {
        let good = token("EdDSA", &claims());
        let mut changed = good.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = to.as_bytes()[0];
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != good);
        prop_assert!(verifier([jwk("EdDSA")]).verify(&changed, now()).is_err());
    }

    #[test]
    fn nothing_that_is_no_token_is_taken(text in "\\PC{0,200}") {
        prop_assert!(verifier([jwk("EdDSA")]).verify(&text, now()).is_err());
    }
}
