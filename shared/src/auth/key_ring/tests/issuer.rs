//! Keys of an issuer of its own, whose users have numbers of their own.

use super::*;
use crate::auth::{Role, Verifier};
use crate::domain::ids::{CustomerId, ReturnId};

/// Customers have numbers of the shop, the staff has numbers of `staff`.
fn two_issuers() -> (JwtIssuer, JwtIssuer, Verifier) {
    let (shop, staff) = (JwtIssuer::eddsa("shop", 1), JwtIssuer::eddsa("staff", 2));
    let verifier = verifier(&[
        shop.jwk(),
        with(staff.jwk(), &json!({"issuer": "https://staff.example"})),
    ]);
    (shop, staff, verifier)
}

fn of_staff(role: &str) -> Value {
    json!({"iss": "https://staff.example", "role": role})
}

#[test]
fn a_token_must_name_the_issuer_of_its_key() {
    let (shop, staff, verifier) = two_issuers();
    for (token, expected) in [
        (shop.token(&json!({"role": "admin"})), "accepted"),
        (shop.token(&of_staff("admin")), "not_for_us"),
        (staff.token(&of_staff("admin")), "accepted"),
        (staff.token(&json!({"role": "admin"})), "not_for_us"),
    ] {
        let verified = verifier.verify(&token);
        let outcome = verified.map_or_else(|refused| refused.code(), |_| "accepted");
        assert_eq!(outcome, expected);
    }
}

#[test]
fn a_biscuit_may_name_only_the_issuer_of_its_key() {
    let root = Root::new(1, 1);
    let verifier = verifier(&[with(root.jwk(), &json!({"issuer": "staff"}))]);
    let policy = Policy::new(&test_tokens::args("unused".into()));
    for (issuer, expected) in [("\"staff\"", true), ("", true), ("\"shop\"", false)] {
        let facts = issuer_facts(&[("issuer", issuer), ("role", "\"admin\"")]);
        let token = verifier.verify(&text(&root.biscuit(&facts))).expect("good");
        assert_eq!(policy.accepts(&token).is_ok(), expected, "{issuer}");
        assert_eq!(token.caller().actor().id, "7@staff");
    }
}

/// A customer and an admin of another issuer with the same number are two persons, with limits of their own.
#[test]
fn users_of_two_issuers_with_one_number_are_two_persons() {
    let (shop, staff, verifier) = two_issuers();
    let verify = |token: String| verifier.verify(&token).expect("good");
    let customer = verify(shop.token(&json!({"role": "customer"})));
    let own_staff = verify(shop.token(&json!({"role": "admin"})));
    let admin = verify(staff.token(&of_staff("admin")));
    assert_eq!(customer.caller().user, admin.caller().user);
    assert_eq!(customer.holder(), own_staff.holder());
    assert_ne!(customer.holder(), admin.holder());

    let policy = Policy::new(&test_tokens::args("unused".into()));
    let owner = Some(CustomerId(customer.caller().user));
    let decide = Request::about(Operation::ReturnsDecide, ReturnId(5), owner);
    assert_eq!(policy.decide(&own_staff, &decide), Err(Denied::Forbidden));
    assert!(policy.decide(&admin, &decide).is_ok());
}

/// Only one issuer numbers customers, or user 42 of another one would see the orders of customer 42.
#[test]
fn another_issuer_vouches_for_no_customer() {
    let (_, staff, verifier) = two_issuers();
    let token = verifier.verify(&staff.token(&of_staff("customer")));
    let policy = Policy::new(&test_tokens::args("unused".into()));
    let decided = policy.accepts(&token.expect("a good signature"));
    assert!(matches!(decided, Err(Denied::Token(_))), "{decided:?}");
    let customers = json!({"issuer": "staff", "roles": ["admin", "customer"]});
    assert_eq!(
        problem(&[with(staff.jwk(), &customers)]),
        "key 1: a key with an issuer of its own cannot vouch for customers"
    );
    let roles = json!({"issuer": "staff", "roles": [Role::Auditor]});
    assert!(load(&[with(staff.jwk(), &roles)]).is_ok());
}

#[test]
fn an_issuer_has_a_name_that_fits_into_the_audit_trail() {
    let shop = JwtIssuer::eddsa("ed", 1);
    let with_issuer = |issuer: Value| with(shop.jwk(), &json!({"issuer": issuer}));
    assert!(load(&[with_issuer(json!("x".repeat(44)))]).is_ok());
    for bad in [
        json!(""),
        json!("x".repeat(45)),
        json!("a b"),
        json!("\u{e4}"),
        json!(7),
    ] {
        assert_eq!(
            problem(&[with_issuer(bad)]),
            "key 1: issuer is not a text of 1 to 44 visible ASCII characters"
        );
    }
    // The issuer of the settings is not another one.
    let ours = problem(&[with_issuer(json!("shop"))]);
    assert!(
        ours.starts_with("key ed: its issuer is AUTH_ISSUER"),
        "{ours}"
    );
}
