//! Secrets, which no program may write or return (P13). This process knows the secrets of every program it started and of
//! every client it created, and searches all their output for them: see [`assert_none_in`].

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

/// This many consecutive bytes of a secret are a leak. A shorter secret is ignored: `root` would be found everywhere.
const WINDOW: usize = 16;
/// A longer secret is a token, which is base64 already.
const ENCODED_MAX: usize = 128;
/// PKCS #8 ends with the 32 bytes of an Ed25519 key; the bytes before are the same in all such files.
const PRIVATE_KEY_BYTES: usize = 32;

/// Who can read a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Logs, metrics, responses to strangers.
    Anyone,
    /// The person whom the data is about, or a member of staff who asked for it.
    Owner,
}

/// Every window of every secret, in every encoding in which it can get into a log.
#[derive(Clone, Default)]
pub struct Secrets {
    windows: HashMap<[u8; WINDOW], Found>,
}

#[derive(Debug, Clone)]
struct Found {
    name: Arc<str>,
    /// Its owner may read it.
    personal: bool,
}

static KNOWN: LazyLock<RwLock<Secrets>> = LazyLock::new(RwLock::default);

/// From now on no output may contain one of these.
pub fn register(secrets: Secrets) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.windows.extend(secrets.windows);
}

/// Searches a text for every registered secret.
///
/// # Panics
/// The text contains one. The message has its name, never its value.
pub fn assert_none_in(what: &str, text: &str, audience: Audience) {
    let found = KNOWN
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .find(text, audience);
    if let Some(name) = found {
        panic!("P13: {what} contains {name}");
    }
}

/// The name of a registered secret in the text.
pub(crate) fn found_in(text: &str) -> Option<Arc<str>> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.find(text, Audience::Anyone)
}

impl Secrets {
    /// The secrets of a program with these variables: tokens, passwords of URLs, and the keys in its files.
    pub fn of(env: &HashMap<String, String>) -> Self {
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
            // A file that cannot be read or parsed contains no secret of ours.
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

    /// One secret that no output may contain.
    pub fn one(name: &str, secret: &str) -> Self {
        let mut secrets = Self::default();
        secrets.add(name, secret.as_bytes());
        secrets
    }

    /// Personal data, which its owner may read.
    pub fn personal(name: &str, text: &str) -> Self {
        let mut secrets = Self::one(name, text);
        for found in secrets.windows.values_mut() {
            found.personal = true;
        }
        secrets
    }

    /// The name of a secret that is in the text and that its audience may not read.
    pub fn find(&self, text: &str, audience: Audience) -> Option<Arc<str>> {
        let mut windows = text.as_bytes().windows(WINDOW);
        windows.find_map(|window| {
            let found = self.windows.get(window)?;
            let allowed = found.personal && audience == Audience::Owner;
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

/// The encodings that programs use, and the bytes as `Debug` prints them.
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

/// In base64 that began `before` bytes earlier and goes on, without the digits that depend on the neighbors.
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

/// As it is written in the URL.
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
