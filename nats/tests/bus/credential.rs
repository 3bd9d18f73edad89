//! Which tokens are believed: one, and none of the many that look like it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::support::{
    token::{ACCOUNT, AUDIENCE, ISSUER, NOW, SESSION, SigningKey, claims},
    verifier,
};
use aws_lc_rs::{
    hmac,
    rsa::KeySize,
    signature::{RSA_PKCS1_SHA384, RSA_PSS_SHA256},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use bowerbird_nats::{Code, Verifier, account::Role, key::KeySet};
use serde_json::{Value, json};
use time::OffsetDateTime;

fn key() -> SigningKey {
    SigningKey::generate("key-1", KeySize::Rsa2048)
}

/// A verifier whose clock the test moves.
fn moving() -> (Verifier, Arc<AtomicI64>) {
    let seconds = Arc::new(AtomicI64::new(NOW));
    let clock = Arc::clone(&seconds);
    let now = move || OffsetDateTime::from_unix_timestamp(clock.load(Ordering::SeqCst)).unwrap();
    (Verifier::new(ISSUER.into(), AUDIENCE.into(), Arc::new(now)), seconds)
}

fn with(base: &Value, name: &str, value: Value) -> Value {
    let mut changed = base.clone();
    changed[name] = value;
    changed
}

fn without(base: &Value, name: &str) -> Value {
    let mut changed = base.clone();
    changed.as_object_mut().unwrap().remove(name).unwrap();
    changed
}

#[test]
fn a_good_token_says_who_asks() {
    let (key, verifier) = (key(), verifier());
    assert_eq!(verifier.verify(&key.good()).unwrap_err().code, Code::Unauthorized, "without keys nothing is valid");
    verifier.set_keys(&key.set());
    for _ in 0..2 {
        let caller = verifier.verify(&key.good()).unwrap();
        assert_eq!(caller.account_id.to_string(), ACCOUNT);
        assert_eq!(caller.session_id.to_string(), SESSION);
        assert_eq!((caller.role, caller.expires_at.unix_timestamp()), (Role::User, NOW + 290));
    }
    let admin = key.token(&key.header(), &with(&claims(), "role", json!("admin")));
    assert_eq!(verifier.verify(&admin).unwrap().role, Role::Admin);
    let spelled = key.token(&with(&key.header(), "typ", json!("application/AT+JWT")), &claims());
    assert!(verifier.verify(&spelled).is_ok(), "RFC 9068 knows both spellings of the type, in any case");
    let more = key.token(&key.header(), &with(&claims(), "unknown_claim", json!([1, 2])));
    assert!(verifier.verify(&more).is_ok(), "claims that are not understood are left alone");
}

#[test]
fn no_bad_token_is_believed() {
    let (key, stranger, verifier) = (key(), SigningKey::generate("key-1", KeySize::Rsa2048), verifier());
    verifier.set_keys(&key.set());
    let (header, good) = (key.header(), key.good());
    let [head, body, signature] = [0, 1, 2].map(|part| good.split('.').nth(part).unwrap().to_owned());
    let mut bad: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, token: String| bad.push((name.to_owned(), token));

    // What is no token at all.
    for (name, token) in [
        ("nothing", String::new()),
        ("a word", "token".into()),
        ("dots", "..".into()),
        ("many dots", "....".into()),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{good}.")),
        ("five parts, as encrypted ones have", format!("{good}.a.b")),
        ("no signature", format!("{head}.{body}.")),
        ("no header", format!(".{body}.{signature}")),
        ("no claims", format!("{head}..{signature}")),
        ("space before it", format!(" {good}")),
        ("a line break after it", format!("{good}\n")),
        ("the scheme before it", format!("Bearer {good}")),
        ("NUL in it", good.replacen('.', ".\0", 1)),
        ("umlauts", "ä.ö.ü".into()),
        ("JSON serialisation", json!({"protected": head, "payload": body, "signature": signature}).to_string()),
        ("padding", format!("{}.{body}.{signature}", URL_SAFE.encode(header.to_string()) + "=")),
        ("standard base64", format!("{}.{body}.{signature}", STANDARD.encode("???>>>"))),
        ("longer than 8 KiB", format!("{head}.{}.{signature}", "A".repeat(9000))),
        ("a header that is no JSON", format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode("nonsense"))),
        ("a header that is a list", format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode("[]"))),
        ("a header that nests deep", format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode("[".repeat(4000)))),
    ] {
        add(name, token);
    }

    // What was tampered with.
    let other = key.token(&header, &with(&claims(), "role", json!("admin")));
    let other_body = other.split('.').nth(1).unwrap();
    let mut flipped = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    flipped[0] ^= 1;
    add("other claims under the signature", format!("{head}.{other_body}.{signature}"));
    add("a flipped bit in the signature", format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode(&flipped)));
    add("a short signature", format!("{head}.{body}.{}", &signature[..signature.len() - 4]));
    add("a signature of zeros", format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode([0; 256])));
    add("another's signature", stranger.good());
    // 256 bytes leave four bits of the last character unused; only one spelling of them is right.
    let last = URL_SAFE_NO_PAD.decode(&signature).unwrap()[255] & 3;
    let respelled = ['B', 'R', 'h', 'x'][usize::from(last)];
    add("another spelling of the signature", format!("{head}.{body}.{}{respelled}", &signature[..signature.len() - 1]));

    // Other algorithms, and keys taken from the token.
    let none = with(&header, "alg", json!("none"));
    for alg in ["none", "None", "NONE", "nOnE", "rs256", "RS384", "RS512", "PS256", "HS256", "ES256", "EdDSA", ""] {
        add(&format!("alg {alg} over a good signature"), key.token(&with(&header, "alg", json!(alg)), &claims()));
    }
    let unsigned = format!("{}.{body}", URL_SAFE_NO_PAD.encode(none.to_string()));
    add("alg none without signature", format!("{unsigned}."));
    let confused = format!("{}.{body}", URL_SAFE_NO_PAD.encode(with(&header, "alg", json!("HS256")).to_string()));
    for secret in [key.public_der(), key.public.n.clone().into_bytes()] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), confused.as_bytes());
        add("the public key as an HMAC secret", format!("{confused}.{}", URL_SAFE_NO_PAD.encode(tag)));
    }
    let message = format!("{head}.{body}");
    for (name, scheme) in [
        ("SHA-384 under RS256", &RSA_PKCS1_SHA384 as &'static dyn aws_lc_rs::signature::RsaEncoding),
        ("PSS under RS256", &RSA_PSS_SHA256),
    ] {
        add(name, format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign_with(scheme, message.as_bytes()))));
    }
    let mut own_key = with(&stranger.header(), "jwk", serde_json::to_value(&stranger.public).unwrap());
    add("a key of its own", stranger.token(&own_key, &claims()));
    own_key["kid"] = json!("key-2");
    add("a key of its own under another kid", stranger.token(&own_key, &claims()));
    for link in ["jku", "x5u"] {
        add(link, stranger.token(&with(&stranger.header(), link, json!("https://evil.test/keys.json")), &claims()));
    }
    add("x5c", stranger.token(&with(&stranger.header(), "x5c", json!(["MIIB"])), &claims()));

    // Headers.
    for kid in [
        json!(""),
        json!("key-2"),
        json!("KEY-1"),
        json!("../key-1"),
        json!("key-1' OR '1'='1"),
        json!("key-1\0"),
        json!(1),
        json!(["key-1"]),
        Value::Null,
    ] {
        add(&format!("kid {kid}"), key.token(&with(&header, "kid", kid), &claims()));
    }
    for typ in [json!("JWT"), json!("at"), json!("id+jwt"), json!("at+jwt "), json!("dpop+jwt"), json!(1), Value::Null] {
        add(&format!("typ {typ}"), key.token(&with(&header, "typ", typ), &claims()));
    }
    for name in ["typ", "alg", "kid"] {
        add(&format!("no {name}"), key.token(&without(&header, name), &claims()));
    }
    add("crit", key.token(&with(&header, "crit", json!(["exp"])), &claims()));
    add("crit b64", key.token(&with(&with(&header, "b64", json!(false)), "crit", json!(["b64"])), &claims()));
    add("kid twice", key.token_of(r#"{"typ":"at+jwt","alg":"RS256","kid":"x","kid":"key-1"}"#, &claims().to_string()));

    // Claims.
    for name in ["iss", "aud", "sub", "client_id", "exp", "iat", "jti", "sid", "role"] {
        add(&format!("no {name}"), key.token(&header, &without(&claims(), name)));
        add(&format!("{name} null"), key.token(&header, &with(&claims(), name, Value::Null)));
        add(&format!("{name} an object"), key.token(&header, &with(&claims(), name, json!({}))));
    }
    for (name, value) in [
        ("iss", json!("https://evil.test")),
        ("iss", json!("https://issuer.test/")),
        ("iss", json!([ISSUER])),
        ("aud", json!("other")),
        ("aud", json!("")),
        ("aud", json!([])),
        ("aud", json!(["other", AUDIENCE])),
        ("sub", json!("root")),
        ("sub", json!("")),
        ("sub", json!(1)),
        ("client_id", json!("other")),
        ("exp", json!((NOW + 290).to_string())),
        ("exp", json!(f64::from(i32::MAX) + 0.5)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(NOW - 10)),
        ("iat", json!((NOW - 10).to_string())),
        ("iat", json!(NOW + 60)),
        ("iat", json!(i64::MIN)),
        ("nbf", json!(NOW + 60)),
        ("nbf", json!((NOW - 10).to_string())),
        ("nbf", Value::Null),
        ("jti", json!("1")),
        ("sid", json!("1")),
        ("role", json!("root")),
        ("role", json!("Admin")),
        ("role", json!(["admin"])),
    ] {
        add(&format!("{name} {value}"), key.token(&header, &with(&claims(), name, value)));
    }
    let twice = |name: &str, value: Value| {
        let claims = claims().to_string();
        format!("{{\"{name}\":{value},{}", &claims[1..])
    };
    add("sub twice", key.token_of(&header.to_string(), &twice("sub", json!(SESSION))));
    add("role twice", key.token_of(&header.to_string(), &twice("role", json!("admin"))));
    add("exp twice", key.token_of(&header.to_string(), &twice("exp", json!(NOW + 9_999_999))));
    add("claims that are a list", key.token_of(&header.to_string(), "[]"));
    add("claims that are a number", key.token_of(&header.to_string(), "1"));
    add("claims that are no JSON", key.token_of(&header.to_string(), "{"));

    assert!(bad.len() >= 40, "{}", bad.len());
    for (name, token) in &bad {
        match verifier.verify(token) {
            Err(problem) => assert_eq!(problem.code, Code::Unauthorized, "{name}"),
            Ok(_) => panic!("believed: {name}"),
        }
    }
    println!("{} bad tokens, none believed", bad.len());
    assert!(verifier.verify(&good).is_ok());
}

#[test]
fn an_expired_token_is_told_apart_also_when_it_is_remembered() {
    let (key, (verifier, clock)) = (key(), moving());
    verifier.set_keys(&key.set());
    let token = key.good();
    assert!(verifier.verify(&token).is_ok());
    clock.store(NOW + 294, Ordering::SeqCst);
    assert!(verifier.verify(&token).is_ok(), "clocks may be five seconds apart");
    clock.store(NOW + 295, Ordering::SeqCst);
    assert_eq!(verifier.verify(&token).unwrap_err().code, Code::TokenExpired);
    let fresh =
        Verifier::new(ISSUER.into(), AUDIENCE.into(), Arc::new(|| OffsetDateTime::from_unix_timestamp(NOW + 295).unwrap()));
    fresh.set_keys(&key.set());
    assert_eq!(fresh.verify(&token).unwrap_err().code, Code::TokenExpired);
}

#[test]
fn a_token_of_a_key_that_is_gone_stops_verifying_at_once() {
    let (first, second, verifier) = (key(), SigningKey::generate("key-2", KeySize::Rsa2048), verifier());
    verifier.set_keys(&KeySet { keys: vec![first.public.clone(), second.public.clone()] });
    let (old, new) = (first.good(), second.good());
    assert!(verifier.verify(&old).is_ok() && verifier.verify(&new).is_ok());
    verifier.set_keys(&second.set());
    assert_eq!(verifier.verify(&old).unwrap_err().code, Code::Unauthorized, "although it was remembered");
    assert!(verifier.verify(&new).is_ok());
    assert_eq!(verifier.key_set(), second.set());
    // Another key under the same kid is another key.
    let usurper = SigningKey::generate("key-2", KeySize::Rsa2048);
    verifier.set_keys(&usurper.set());
    assert_eq!(verifier.verify(&new).unwrap_err().code, Code::Unauthorized);
    assert!(verifier.verify(&usurper.good()).is_ok());
}

#[test]
fn keys_that_are_not_for_this_are_left_out() {
    let (key, verifier) = (key(), verifier());
    let change = |change: &dyn Fn(&mut bowerbird_nats::key::PublicKey)| {
        let mut public = key.public.clone();
        change(&mut public);
        KeySet { keys: vec![public] }
    };
    for set in [
        change(&|key| key.kty = "EC".into()),
        change(&|key| key.alg = "RS384".into()),
        change(&|key| key.usage = "enc".into()),
        change(&|key| key.kid = String::new()),
        change(&|key| key.n = "AQAB".into()),
        change(&|key| key.n = "not base64url!".into()),
        change(&|key| key.n = URL_SAFE_NO_PAD.encode([0xff; 4096])),
        change(&|key| key.e = "not base64url!".into()),
    ] {
        verifier.set_keys(&set);
        assert_eq!(verifier.key_set(), KeySet::default(), "{set:?}");
        assert!(verifier.verify(&key.good()).is_err());
    }
}

#[test]
fn a_key_of_3072_bits_verifies_as_well() {
    let (key, verifier) = (SigningKey::generate("big", KeySize::Rsa3072), verifier());
    verifier.set_keys(&key.set());
    assert!(verifier.verify(&key.good()).is_ok());
}

proptest::proptest! {
    #[test]
    fn whatever_is_sent_is_answered_and_never_believed(text in proptest::prelude::any::<String>(), parts in "[A-Za-z0-9_-]{0,80}(\\.[A-Za-z0-9_-]{0,80}){0,4}") {
        let verifier = verifier();
        proptest::prop_assert!(verifier.verify(&text).is_err());
        proptest::prop_assert!(verifier.verify(&parts).is_err());
    }
}
