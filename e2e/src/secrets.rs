//! What no program may write or answer (P13). This process knows the secrets of every program that it has started and
//! of every client that it has made, and searches all that it reads of any of them: see [`assert_none_in`].

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use base64::Engine;
use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD as BASE64_URL,
};
use reqwest::Url;
use serde_json::Value;

use crate::program::Env;

/// So many bytes of a secret in a row are a leak, whatever was cut off before and after them. What is shorter than this
/// is no secret here: `root` would be found everywhere.
const WINDOW: usize = 16;
/// What is longer is a token, which is base64 already.
const ENCODED_MAX: usize = 128;
/// PKCS #8 ends with the 32 bytes of an Ed25519 key; what comes before is the same in all such files.
const PRIVATE_KEY_BYTES: usize = 32;

/// To whom something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Logs, metrics, strangers.
    Anyone,
    /// Whom the personal data is about, or a member of staff who has asked for it.
    Owner,
}

/// Every window of every secret, in every form in which one gets into a log.
#[derive(Clone, Default)]
pub struct Secrets {
    windows: HashMap<[u8; WINDOW], Found>,
}

#[derive(Debug, Clone)]
struct Found {
    name: Arc<str>,
    /// Its owner may be told.
    personal: bool,
}

static KNOWN: LazyLock<RwLock<Secrets>> = LazyLock::new(RwLock::default);

/// From now on nothing may hold one of these.
pub fn know(secrets: Secrets) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.windows.extend(secrets.windows);
}

/// Searches what somebody has written for every secret that is known.
///
/// # Panics
/// It holds one. The message has its name and never what it is.
pub fn assert_none_in(what: &str, text: &str, reader: Reader) {
    let found = KNOWN
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .find(text, reader);
    if let Some(name) = found {
        panic!("P13: {what} holds {name}");
    }
}

/// The name of a known secret in the text.
pub(crate) fn found_in(text: &str) -> Option<Arc<str>> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.find(text, Reader::Anyone)
}

impl Secrets {
    /// Those of a program with these variables: tokens, passwords of URLs, and what is in its key files.
    pub fn of(env: &Env) -> Self {
        let mut secrets = Self::default();
        for (name, value) in env {
            if ["_TOKEN", "_PASSWORD", "_SECRET"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                secrets.add(name, value.as_bytes());
            }
            if let Some(password) = password(value) {
                let name = format!("the password of {name}");
                secrets.add(&name, password.as_bytes());
                secrets.add(&name, &percent_decoded(&password));
            }
            // Files that cannot be read, or not as what they should be, hold no secret of ours.
            if name.ends_with("_PRIVATE_KEY_FILE") {
                let key = private_key(value);
                secrets.add(name, &key.unwrap_or_default());
            }
            if name == "AUTH_KEYS_FILE" {
                for secret in shared_secrets(value) {
                    secrets.add("a secret of AUTH_KEYS_FILE", &secret);
                }
            }
        }
        secrets
    }

    /// One that nobody may see.
    pub fn one(name: &str, secret: &str) -> Self {
        let mut secrets = Self::default();
        secrets.add(name, secret.as_bytes());
        secrets
    }

    /// Personal data, which its owner may see.
    pub fn personal(name: &str, text: &str) -> Self {
        let mut secrets = Self::one(name, text);
        for found in secrets.windows.values_mut() {
            found.personal = true;
        }
        secrets
    }

    /// The name of one that is in the text and that its reader may not see.
    pub fn find(&self, text: &str, reader: Reader) -> Option<Arc<str>> {
        let mut windows = text.as_bytes().windows(WINDOW);
        windows.find_map(|window| {
            let found = self.windows.get(window)?;
            let allowed = found.personal && reader == Reader::Owner;
            (!allowed).then(|| Arc::clone(&found.name))
        })
    }

    fn add(&mut self, name: &str, secret: &[u8]) {
        let name: Arc<str> = name.into();
        if secret.len() < WINDOW {
            return;
        }
        self.add_windows(&name, secret);
        if secret.len() <= ENCODED_MAX {
            for form in encoded(secret) {
                self.add_windows(&name, form.as_bytes());
            }
        }
    }

    fn add_windows(&mut self, name: &Arc<str>, form: &[u8]) {
        for window in form.windows(WINDOW) {
            let window = window.try_into().expect("as long as it should be");
            let found = Found {
                name: Arc::clone(name),
                personal: false,
            };
            self.windows.insert(window, found);
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// As programs encode things, and as `Debug` shows bytes.
fn encoded(secret: &[u8]) -> Vec<String> {
    let join = |digits: fn(&u8) -> String, between: &str| {
        let all: Vec<String> = secret.iter().map(digits).collect();
        all.join(between)
    };
    let mut forms = vec![
        join(|byte| format!("{byte:02x}"), ""),
        join(|byte| format!("{byte:02X}"), ""),
        join(u8::to_string, ", "),
        secret.iter().map(|byte| percent_encoded(*byte)).collect(),
    ];
    for before in 0..3 {
        forms.extend(base64_after(before, secret));
    }
    forms
}

/// In base64 that began so many bytes earlier and goes on: without the digits that depend on what is around.
fn base64_after(before: usize, secret: &[u8]) -> [String; 2] {
    const DIGIT_BITS: usize = 6;
    let bytes = [&[0; 2][..before], secret].concat();
    let (begin, end) = (
        (before * 8).div_ceil(DIGIT_BITS),
        bytes.len() * 8 / DIGIT_BITS,
    );
    [BASE64_STANDARD_NO_PAD, BASE64_URL].map(|base64| base64.encode(&bytes)[begin..end].to_owned())
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        // A `Url` has no other percent signs.
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        bytes.extend(u8::from_str_radix(digits, 16));
        bytes.extend(rest.as_bytes());
    }
    bytes
}

/// As written.
fn password(url: &str) -> Option<String> {
    Url::parse(url).ok()?.password().map(str::to_owned)
}

fn private_key(path: &str) -> Option<Vec<u8>> {
    let pem = fs::read_to_string(path).ok()?;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).ok()?;
    Some(der.last_chunk::<PRIVATE_KEY_BYTES>()?.to_vec())
}

fn shared_secrets(path: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let set: Value = serde_json::from_str(&text).unwrap_or_default();
    let keys = set["keys"].as_array().cloned().unwrap_or_default();
    keys.iter()
        .filter_map(|key| BASE64_URL.decode(key["k"].as_str()?).ok())
        .collect()
}

#[cfg(test)]
mod tests;
