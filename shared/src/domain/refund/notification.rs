//! A provider's notification that something has happened to a refund: its body, and the signature that proves who sent it.
//!
//! It is a hint: it only makes the refund due for a look-up. The form of the signature is the one that providers use
//! already (<https://docs.stripe.com/webhooks#verify-manually>): HMAC-SHA256 over the time, a dot and the body.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The name of the header with the signature.
pub const SIGNATURE_HEADER: &str = "gateway-signature";
/// The shortest secret, in bytes: as long as the hash, so that guessing it is no easier than forging the hash.
pub const SECRET_MIN_BYTES: usize = 32;
/// An older signature may be a copy. Notifications are sent again by providers with a new time.
const TOLERANCE_SECS: u64 = 300;

/// The body of a notification. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Notification {
    /// The provider account: `GATEWAY_NAME` of the refund consumer.
    #[cfg_attr(feature = "openapi", schema(max_length = 32, example = "acme-live"))]
    pub gateway: String,
    /// The refund's `reference`, as the provider got it.
    #[cfg_attr(
        feature = "openapi",
        schema(
            max_length = 64,
            example = "refund-019ab000-0000-7000-8000-000000000001-1"
        )
    )]
    pub reference: String,
}

/// Why a signature does not prove anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    #[error("Gateway-Signature must be t=SECONDS,v1=HEX")]
    Malformed,
    #[error("Gateway-Signature is more than {TOLERANCE_SECS} s from this server's time")]
    OutOfTime,
    #[error("Gateway-Signature does not fit the body")]
    Wrong,
}

/// The value of the header for a body that is sent at `unix_secs`.
pub fn sign(secret: &SecretString, unix_secs: u64, body: &[u8]) -> String {
    let signature = mac(secret, unix_secs, body).finalize().into_bytes();
    format!("t={unix_secs},v1={}", hex::encode(signature))
}

/// A provider that changes its secret sends two. Each costs the HMAC of the whole body.
const MOST_SIGNATURES: usize = 2;

/// Checks a signature, in constant time. Of several `v1` one must fit: a provider that changes its secret sends two.
///
/// # Errors
/// See [`BadSignature`].
pub fn verify(
    secret: &SecretString,
    header: &str,
    now_secs: u64,
    body: &[u8],
) -> Result<(), BadSignature> {
    let named = |name: &'static str| {
        let fields = header.split(',').filter_map(|field| field.split_once('='));
        fields.filter_map(move |(found, value)| (found.trim() == name).then_some(value.trim()))
    };
    let sent_at = named("t").next().and_then(|secs| secs.parse().ok());
    let sent_at: u64 = sent_at.ok_or(BadSignature::Malformed)?;
    let mut signatures = named("v1")
        .take(MOST_SIGNATURES)
        .map(hex::decode)
        .peekable();
    if signatures.peek().is_none() {
        return Err(BadSignature::Malformed);
    }
    if now_secs.abs_diff(sent_at) > TOLERANCE_SECS {
        return Err(BadSignature::OutOfTime);
    }
    let fits = |signature: &Vec<u8>| mac(secret, sent_at, body).verify_slice(signature).is_ok();
    if signatures
        .filter_map(Result::ok)
        .any(|signature| fits(&signature))
    {
        Ok(())
    } else {
        Err(BadSignature::Wrong)
    }
}

fn mac(secret: &SecretString, unix_secs: u64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(format!("{unix_secs}.").as_bytes());
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_441_253;
    const BODY: &[u8] = br#"{"gateway":"acme","reference":"refund-1"}"#;

    fn secret() -> SecretString {
        SecretString::from("a secret of at least thirty-two bytes")
    }

    /// Computed with `openssl dgst -sha256 -hmac`.
    #[test]
    fn the_signature_is_an_hmac_of_time_and_body() {
        let signature =
            "t=1795441253,v1=a309360e644e371c335c1a5366e354124a5197e89d172961b5ab223e2b8ddfe4";
        assert_eq!(sign(&secret(), NOW, BODY), signature);
    }

    #[test]
    fn only_a_fresh_signature_of_this_body_with_this_secret_is_accepted() {
        let header = sign(&secret(), NOW, BODY);
        for now in [NOW, NOW - 300, NOW + 300] {
            assert_eq!(verify(&secret(), &header, now, BODY), Ok(()));
        }
        for now in [NOW - 301, NOW + 301] {
            let late = verify(&secret(), &header, now, BODY);
            assert_eq!(late, Err(BadSignature::OutOfTime));
        }
        let wrong = Err(BadSignature::Wrong);
        assert_eq!(verify(&secret(), &header, NOW, b"{}"), wrong);
        let other = SecretString::from("another secret of thirty-two bytes");
        assert_eq!(verify(&other, &header, NOW, BODY), wrong);
        let moved = header.replace("t=1795441253", "t=1795441254");
        assert_eq!(verify(&secret(), &moved, NOW, BODY), wrong);
        assert_eq!(
            verify(&secret(), &header[..header.len() - 2], NOW, BODY),
            wrong
        );
    }

    #[test]
    fn one_of_several_signatures_is_enough_and_half_a_header_is_none() {
        let header = sign(&secret(), NOW, BODY);
        let (_, good) = header.split_once(',').expect("two parts");
        let two = format!("t={NOW},v1=00,{good}");
        assert_eq!(verify(&secret(), &two, NOW, BODY), Ok(()));
        let malformed = Err(BadSignature::Malformed);
        for header in ["", "t=1", "v1=00", "t=x,v1=00", "t=-1,v1=00", "bearer x"] {
            assert_eq!(verify(&secret(), header, NOW, BODY), malformed, "{header}");
        }
    }
}
