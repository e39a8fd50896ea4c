//! What a holder makes of a Biscuit: narrower, never wider.

use super::*;

/// What does not meet a holder's check is forbidden, even where the return is somebody else's: only what would be
/// allowed, were it the caller's own, is told as not theirs.
#[test]
fn a_holder_can_narrow_a_token() {
    use Operation::{RefundsDecide, ReturnsCreate, ReturnsList, ReturnsRead};
    let about = |id, owner| Request::about(ReturnsRead, ReturnId(id), Some(owner));
    let read_only = r#"check if access("read");"#;
    let return_5 = r#"check if resource("return", 5);"#;
    let courier = r#"check if operation("returns.read"), resource("return", 5);"#;
    let hour = format!(
        "check if time($t), $t < {};",
        date(get_current_timestamp() + 3600)
    );
    let over = "check if time($t), $t < 2020-01-01T00:00:00Z;";
    let both = format!("{return_5} {over}");
    for (role, narrowed, request, expected) in [
        ("customer", read_only, about(5, OWN), YES),
        ("customer", read_only, about(5, OTHERS), NOT_YOURS),
        ("customer", read_only, Request::of(ReturnsCreate), NO),
        ("admin", read_only, Request::of(ReturnsList), YES),
        ("admin", read_only, Request::of(RefundsDecide), NO),
        ("customer", return_5, about(5, OWN), YES),
        ("customer", return_5, about(5, OTHERS), NOT_YOURS),
        ("customer", return_5, about(6, OWN), NO),
        ("customer", return_5, about(6, OTHERS), NO),
        ("customer", return_5, Request::of(ReturnsCreate), NO),
        ("admin", return_5, about(5, OTHERS), YES),
        ("admin", return_5, about(6, OTHERS), NO),
        ("admin", return_5, Request::of(ReturnsList), NO),
        ("admin", courier, about(5, OTHERS), YES),
        ("admin", courier, about(6, OTHERS), NO),
        ("customer", &hour, about(5, OWN), YES),
        ("customer", &hour, about(5, OTHERS), NOT_YOURS),
        ("customer", over, about(5, OWN), NO),
        ("customer", over, about(5, OTHERS), NO),
        ("customer", &both, about(5, OWN), NO),
        ("customer", "reject if true;", about(5, OWN), NO),
        ("customer", "check if user(8);", about(5, OTHERS), NO),
    ] {
        let told = format!("{role} {narrowed} {request:?}");
        let whole = Root::new(1, 1).biscuit(&said(&[("role", &format!("{role:?}"))]));
        let open = append(&whole, narrowed);
        let sealed = open.seal().expect("seals");
        for token in [open, sealed].map(unread_as(role)) {
            assert_eq!(
                answer(policy().decide(&token, &request)),
                expected,
                "{told}"
            );
        }
    }
}

fn unread_as(role: &str) -> impl Fn(Biscuit) -> Verified {
    let role = role.parse().expect("a role");
    move |biscuit| Verified {
        claims: claims(role, 0, 0),
        ..unread(biscuit)
    }
}

#[test]
fn every_holder_in_a_row_can_narrow_a_token_and_none_can_widen_it() {
    let whole = Root::new(1, 1).biscuit(&said(&[]));
    let once = append(&whole, r#"check if resource("return", 5);"#);
    let twice = append(
        &once,
        r#"check if resource("return", 6) or resource("return", 5);"#,
    );
    let never = append(&twice, r#"check if resource("return", 6);"#);
    let read = |id| Request::about(Operation::ReturnsRead, ReturnId(id), Some(OWN));
    for (token, fifth, sixth) in [
        (whole, YES, YES),
        (once, YES, NO),
        (twice, YES, NO),
        (never, NO, NO),
    ] {
        let token = unread(token);
        assert_eq!(answer(policy().decide(&token, &read(5))), fifth);
        assert_eq!(answer(policy().decide(&token, &read(6))), sixth);
    }
}

/// `vet` lets none of these in; were it gone, they still would count for nothing.
#[test]
fn what_a_holder_states_is_not_seen() {
    let past = date(get_current_timestamp() - LEEWAY - 100);
    let root = Root::new(1, 1);
    let good = root.biscuit(&said(&[]));
    let ended = root.biscuit(&said(&[("expires_at", &past)]));
    let foreign = root.biscuit(&said(&[("audience", r#""else""#)]));
    let list = Request::of(Operation::ReturnsList);
    let others = Request::about(Operation::ReturnsRead, RETURN, Some(OTHERS));
    for (token, stated, request, expected) in [
        (&good, r#"role("admin");"#, list, NO),
        (&good, r#"role("admin") <- user($u);"#, list, NO),
        (
            &good,
            r#"role("admin") <- user($u) trusting previous;"#,
            list,
            NO,
        ),
        (&good, r#"operation("returns.create");"#, list, NO),
        (&good, "user(8);", others, NOT_YOURS),
        (&good, "owner(5, 7);", others, NOT_YOURS),
        (
            &good,
            "owner($r, $u) <- resource($k, $r), user($u);",
            others,
            NOT_YOURS,
        ),
        (
            &ended,
            "expires_at(2099-01-01T00:00:00Z);",
            list,
            NOT_HONORED,
        ),
        (
            &ended,
            "earliest(1970-01-01T00:00:00Z); time(1970-01-01T00:00:00Z);",
            list,
            NOT_HONORED,
        ),
        (&foreign, r#"audience("returns");"#, list, NOT_HONORED),
        (&foreign, r#"our_audience("else");"#, list, NOT_HONORED),
    ] {
        let token = unread(append(token, stated));
        assert_eq!(
            answer(policy().decide(&token, &request)),
            expected,
            "{stated}"
        );
    }
}

/// Logs and answers are made of it.
#[test]
fn p13_a_denial_repeats_nothing_that_a_holder_wrote() {
    let canary = "s3cret".repeat(300);
    let request = Request::of(Operation::ReturnsCreate);
    for (check, code) in [
        (format!(r#"check if resource("{canary}", 5);"#), NO),
        (
            format!(r#"check if "{canary}".length() / 0 == 1;"#),
            NOT_HONORED,
        ),
        (format!(r#"check if "{canary}" === 1;"#), NOT_HONORED),
    ] {
        let token = unread(append(&Root::new(1, 1).biscuit(&said(&[])), &check));
        let denied = policy().decide(&token, &request).expect_err("denied");
        assert_eq!(denied.code(), code, "{denied}");
        let told = format!("{denied} {denied:?}");
        assert!(!told.contains("s3cret") && told.len() < 300, "{told}");
    }
    let token = says(&[("role", &format!("{canary:?}"))]);
    let denied = policy()
        .decide(&token, &request)
        .expect_err("an unknown role");
    assert!(
        !format!("{denied} {denied:?}").contains("s3cret"),
        "{denied}"
    );
}

/// Or a holder's own check would tell whether a stranger's return exists, and by one question after the other whose it is.
#[test]
fn p13_a_holders_check_does_not_tell_a_strangers_return_from_none() {
    let root = Root::new(1, 1);
    let verifier = verifier(&[root.jwk()]);
    let policy = Policy::new(&args("".into()));
    let whole = root.biscuit(&said(&[]));
    let owners = [None, Some(1), Some(OTHERS.0), Some(9_999)];
    for check in [
        "check if owner($r, $u), 9223372036854775807 + ($u - 7) > 0;",
        "check if owner($r, $u), 9223372036854775807 + ($u - 5000) > 0;",
        "check if owner($r, $u), 1 / ($u - 9999) === 0;",
        "check if owner($r, $u), $u > 100;",
        "check if owner(5, 9999) or owner(5, 7);",
        "reject if owner($r, $u), $u > 100;",
        "check all owner($r, $u), $u === 7;",
    ] {
        let token = append(&whole, check);
        let token = verifier.verify(&text(&token)).expect("vetted");
        let told = owners.map(|owner| {
            let request =
                Request::about(Operation::ReturnsRead, ReturnId(5), owner.map(CustomerId));
            policy.decide(&token, &request).map(|_| ())
        });
        assert!(told[0].is_err(), "{check}");
        assert!(told.iter().all(|one| *one == told[0]), "{check}: {told:?}");
    }
}
