//! The validity times of a token, and how long a decision is cached.

use super::*;

/// To the second, in both formats.
#[test]
fn a_token_is_valid_from_issue_to_expiry_with_a_leeway_on_both_sides() {
    let (begin, end) = (1_000_000, 1_001_000);
    let biscuit = biscuit_with(&[("issued_at", &date(begin)), ("expires_at", &date(end))]);
    let jwt = verified_jwt(Role::Customer, begin, end);
    for (at, expected) in [
        (begin - LEEWAY - 1, NOT_ACCEPTED),
        (begin - LEEWAY, YES),
        (begin, YES),
        (end - 1, YES),
        (end + LEEWAY - 1, YES),
        (end + LEEWAY, NOT_ACCEPTED),
    ] {
        for token in [&biscuit, &jwt] {
            let decided = policy().allows(token, &Request::of(Operation::ReturnsCreate), at);
            assert_eq!(code(decided), expected, "{at}");
        }
        let is_current = policy().is_current_at(&jwt, at);
        assert_eq!(is_current, expected == YES, "the same rule: {at}");
    }
}

#[test]
fn the_leeway_may_be_zero() {
    let strict = AuthArgs {
        auth_leeway_secs: 0,
        ..args("unused".into())
    };
    let (begin, end) = (1_000_000, 1_001_000);
    for (at, expected) in [
        (begin - 1, NOT_ACCEPTED),
        (begin, YES),
        (end - 1, YES),
        (end, NOT_ACCEPTED),
    ] {
        let token = verified_jwt(Role::Customer, begin, end);
        let decided =
            Policy::new(&strict).allows(&token, &Request::of(Operation::ReturnsCreate), at);
        assert_eq!(code(decided), expected, "{at}");
    }
}

/// A token that never expires must not make the program panic.
#[test]
fn a_time_that_no_clock_reaches_is_compared_as_any_other() {
    let create = Request::of(Operation::ReturnsCreate);
    let endless = verified_jwt(Role::Customer, 0, u64::MAX);
    assert_eq!(code(policy().decide(&endless, &create)), YES);
    let never = verified_jwt(Role::Customer, u64::MAX, u64::MAX);
    assert_eq!(code(policy().decide(&never, &create)), NOT_ACCEPTED);
}

/// A cached decision never outlives the token.
#[test]
fn a_decision_is_cached_for_the_current_second_only() {
    let (begin, end) = (1_000_000, 1_001_000);
    let policy = policy();
    let biscuit = biscuit_with(&[("issued_at", &date(begin)), ("expires_at", &date(end))]);
    let jwt = verified_jwt(Role::Customer, begin, end);
    let own = Request::about(Operation::ReturnsRead, RETURN, Some(OWN));
    let others = Request::about(Operation::ReturnsRead, RETURN, Some(OTHERS));
    for token in [&biscuit, &jwt] {
        for (at, of_own) in [(end + LEEWAY - 1, YES), (end + LEEWAY, NOT_ACCEPTED)] {
            for _ in 0..2 {
                assert_eq!(code(policy.allows(token, &own, at)), of_own, "{at}");
            }
        }
        let at = begin;
        assert_eq!(code(policy.allows(token, &own, at)), YES);
        assert_eq!(code(policy.allows(token, &others, at)), NO);
    }
}

/// A token may be narrowed to one return.
#[test]
fn a_cached_decision_applies_to_its_own_return_only() {
    let policy = policy();
    let whole = Root::new(1, 1).biscuit(&issuer_facts(&[]));
    let narrowed = unverified(append(&whole, r#"check if resource("return", 5);"#));
    let read = |id| Request::about(Operation::ReturnsRead, ReturnId(id), Some(OWN));
    for _ in 0..2 {
        assert_eq!(code(policy.decide(&narrowed, &read(5))), YES);
        assert_eq!(code(policy.decide(&narrowed, &read(6))), NO);
    }
}
