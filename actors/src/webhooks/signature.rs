//! Signatures as Standard Webhooks says: HMAC-SHA256 over `id.timestamp.body`, of the bytes as they are sent.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::secret::Secret;

/// The value of `webhook-signature`: one `v1,<base64>` for each secret, with a space between. `id` holds no dot, so that
/// nobody can move the borders between the three.
pub(crate) fn sign<'a>(id: &str, timestamp: i64, body: &[u8], secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let signed = |secret: &Secret| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.bytes()));
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    secrets.into_iter().map(signed).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::secret::Seal;

    /// The example of the specification (standard-webhooks, `spec/standard-webhooks.md`), with the secret of its libraries'
    /// tests.
    #[test]
    fn the_example_of_the_libraries_has_the_signature_that_they_expect() {
        let secret = known("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#, [&secret]);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_make_two_signatures_that_each_stand_alone() {
        let (new, old) = (known("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), known("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
        let both = sign("id", 1, b"{}", [&new, &old]);
        assert_eq!(both, format!("{} {}", sign("id", 1, b"{}", [&new]), sign("id", 1, b"{}", [&old])));
        for (id, timestamp, body) in [("ie", 1, b"{}"), ("id", 2, b"{}"), ("id", 1, b"{ ")] {
            assert_ne!(sign("id", 1, b"{}", [&new]), sign(id, timestamp, body, [&new]));
        }
    }

    fn known(encoded: &str) -> Secret {
        // Through the seal, as there is no other way to a secret that is not random.
        let (id, bytes) = (bowerbird_nats::WebhookId(uuid::Uuid::nil()), STANDARD.decode(encoded).unwrap());
        let raw = crate::seal::Seal::new(&[7; 32], "bowerbird webhooks v1").unwrap();
        let sealed = raw.close(&[id.0.as_bytes(), b"secret".as_slice()].concat(), &bytes).unwrap();
        Seal::new(&[7; 32]).unwrap().open_secret(id, &sealed).unwrap()
    }
}
