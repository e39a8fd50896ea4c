//! The keys of tokens.

use shared::auth::KeyUse;

use super::report::{Check, Report};
use crate::keys::{KeyArgs, format_of, read_private};

pub(super) fn examine(args: &KeyArgs, report: &mut Report) {
    report.add(key_set(args));
    for key_use in [KeyUse::Jwt, KeyUse::Biscuit] {
        report.add(private_key(args, key_use));
    }
}

/// The key set that the api verifies tokens with.
fn key_set(args: &KeyArgs) -> Check {
    let (name, path) = ("token keys", args.auth_keys_file.display());
    if !args.auth_keys_file.exists() {
        return Check::warn(
            name,
            format!("no {path}"),
            "the first `returnsctl token mint --user 42 --role customer` makes it, with a key in it; the api needs it to start",
        );
    }
    match args.ring() {
        Ok(ring) => Check::ok(
            name,
            format!(
                "{path}: {} for JWTs, {} for Biscuits",
                ring.count(KeyUse::Jwt),
                ring.count(KeyUse::Biscuit)
            ),
        ),
        Err(error) => Check::of_error(name, &error),
    }
}

/// The key that this machine signs tokens with, if it mints any.
fn private_key(args: &KeyArgs, key_use: KeyUse) -> Check {
    let name = match key_use {
        KeyUse::Jwt => "jwt key",
        KeyUse::Biscuit => "biscuit key",
    };
    let path = args.private_key_file(key_use);
    let checked = read_private(path, key_use).and_then(|signer| match signer {
        None => Ok(Check::ok(name, format!("no {}: tokens come from elsewhere", path.display()))),
        Some(signer) if args.holds(&signer)? => Ok(Check::ok(name, format!("kid {}", signer.kid()))),
        Some(signer) => Ok(Check::warn(
            name,
            format!("kid {} is not in {}", signer.kid(), args.auth_keys_file.display()),
            format!(
                "what it signs is refused; make a new key with `returnsctl token keygen --format {format} \
                 --private-key-file FILE`, or name the api's key set",
                format = format_of(key_use)
            ),
        )),
    });
    checked.unwrap_or_else(|error| Check::of_error(name, &error))
}
