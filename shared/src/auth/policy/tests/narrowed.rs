//! A holder can narrow a Biscuit, and never widen it.

use super::*;

/// A request that fails a holder's check is forbidden, also for another customer's return. The decision is `NotYours` only
/// if the request would be allowed for a return of the caller.
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
        let case = format!("{role} {narrowed} {request:?}");
        let whole = Root::new(1, 1).biscuit(&issuer_facts(&[("role", &format!("{role:?}"))]));
        let open = append(&whole, narrowed);
        let sealed = open.seal().expect("seals");
        for token in [open, sealed].map(unverified_as(role)) {
            assert_eq!(code(policy().decide(&token, &request)), expected, "{case}");
        }
    }
}

fn unverified_as(role: &str) -> impl Fn(Biscuit) -> Verified {
    let role = role.parse().expect("a role");
    move |biscuit| Verified {
        claims: claims(role, 0, 0),
        ..unverified(biscuit)
    }
}

#[test]
fn each_holder_can_narrow_a_token_and_none_can_widen_it() {
    let whole = Root::new(1, 1).biscuit(&issuer_facts(&[]));
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
        let token = unverified(token);
        assert_eq!(code(policy().decide(&token, &read(5))), fifth);
        assert_eq!(code(policy().decide(&token, &read(6))), sixth);
    }
}

/// `check_structure` refuses all of these; without it they would still have no effect.
#[test]
fn facts_and_rules_of_a_holder_have_no_effect() {
    let past = date(get_current_timestamp() - LEEWAY - 100);
    let root = Root::new(1, 1);
    let good = root.biscuit(&issuer_facts(&[]));
    let ended = root.biscuit(&issuer_facts(&[("expires_at", &past)]));
    let foreign = root.biscuit(&issuer_facts(&[("audience", r#""else""#)]));
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
            NOT_ACCEPTED,
        ),
        (
            &ended,
            "earliest(1970-01-01T00:00:00Z); time(1970-01-01T00:00:00Z);",
            list,
            NOT_ACCEPTED,
        ),
        (&foreign, r#"audience("returns");"#, list, NOT_ACCEPTED),
        (&foreign, r#"our_audience("else");"#, list, NOT_ACCEPTED),
    ] {
        let token = unverified(append(token, stated));
        assert_eq!(
            code(policy().decide(&token, &request)),
            expected,
            "{stated}"
        );
    }
}

/// Logs and responses contain it.
#[test]
fn p13_a_denial_repeats_nothing_that_a_holder_wrote() {
    let canary = "s3cret".repeat(300);
    let request = Request::of(Operation::ReturnsCreate);
    for (check, code) in [
        (format!(r#"check if resource("{canary}", 5);"#), NO),
        (
            format!(r#"check if "{canary}".length() / 0 == 1;"#),
            NOT_ACCEPTED,
        ),
        (format!(r#"check if "{canary}" === 1;"#), NOT_ACCEPTED),
    ] {
        let token = unverified(append(&Root::new(1, 1).biscuit(&issuer_facts(&[])), &check));
        let denied = policy().decide(&token, &request).expect_err("denied");
        assert_eq!(denied.code(), code, "{denied}");
        let shown = format!("{denied} {denied:?}");
        assert!(!shown.contains("s3cret") && shown.len() < 300, "{shown}");
    }
    let token = biscuit_with(&[("role", &format!("{canary:?}"))]);
    let denied = policy()
        .decide(&token, &request)
        .expect_err("an unknown role");
    assert!(
        !format!("{denied} {denied:?}").contains("s3cret"),
        "{denied}"
    );
}

/// Otherwise a holder's own check could reveal whether another customer's return exists, and, step by step, whose it is.
#[test]
fn p13_a_holders_check_does_not_distinguish_a_strangers_return_from_none() {
    let root = Root::new(1, 1);
    let verifier = verifier(&[root.jwk()]);
    let policy = Policy::new(&args("".into()));
    let whole = root.biscuit(&issuer_facts(&[]));
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
        let token = verifier.verify(&text(&token)).expect("good");
        let decisions = owners.map(|owner| {
            let request =
                Request::about(Operation::ReturnsRead, ReturnId(5), owner.map(CustomerId));
            policy.decide(&token, &request).map(|_| ())
        });
        assert!(decisions[0].is_err(), "{check}");
        assert!(
            decisions.iter().all(|one| *one == decisions[0]),
            "{check}: {decisions:?}"
        );
    }
}
