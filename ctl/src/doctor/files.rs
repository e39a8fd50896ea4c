//! The key pair of `token mint`.

use super::{Check, Report};
use crate::keys::{KeyArgs, KeyState, key_id};

pub(super) fn examine(args: &KeyArgs, report: &mut Report) {
    report.add(judge(args));
}

fn judge(args: &KeyArgs) -> Check {
    let name = "token keys";
    match args.state() {
        KeyState::Ready(key) => Check::ok(name, format!("kid {}", key_id(&key.verifying_key()))),
        KeyState::Absent => Check::warn(
            name,
            format!("no {}", args.jwt_private_key_file.display()),
            "the first `returnsctl token mint` makes the pair; the api needs the public half to start",
        ),
        KeyState::PublicMissing(_) => Check::warn(
            name,
            format!("no {}", args.jwt_public_key_file.display()),
            "the next `returnsctl token mint` writes it; the api needs it to start",
        ),
        KeyState::Unusable(error) => Check::of_error(name, &error),
    }
}
