use biscuit_auth::Biscuit;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use strum::IntoEnumIterator;

use super::super::Role;
use super::super::key_ring::Signer;
use super::super::test_tokens::{
    JwtIssuer, LEEWAY, Root, append, args, date, said, text, verifier,
};
use super::super::verifier::Claims;
use super::*;

mod narrowed;

const RETURN: ReturnId = ReturnId(5);
const OWN: CustomerId = CustomerId(7);
const OTHERS: CustomerId = CustomerId(8);

fn policy() -> Policy {
    Policy::new(&args("unused".into()))
}

/// The answer in one word.
fn answer<T>(decided: Result<T, Denied>) -> &'static str {
    decided.map_or_else(|denied| denied.code(), |_| "allowed")
}

/// A key that may vouch for these.
fn signer(roles: &[Role]) -> Signer {
    let roles = roles.iter().map(|role| Term::from(role.as_str())).collect();
    Signer {
        kid: "k".to_owned(),
        thumbprint: None,
        roles: one("key_roles", Term::Set(roles)),
    }
}

fn claims(role: Role, issued_at: u64, expires_at: u64) -> Claims {
    Claims {
        caller: Caller { user: 7, role },
        issued_at,
        expires_at,
        token_id: None,
        revocation_ids: Vec::new(),
    }
}

/// A Biscuit straight to the policy: what [`super::super::Verifier`] would refuse must not be allowed either.
fn unread(biscuit: Biscuit) -> Verified {
    Verified {
        claims: claims(Role::Customer, 0, 0),
        signer: signer(&[Role::Customer, Role::Admin, Role::Auditor]),
        biscuit: Some(biscuit),
        judged: Judged::default(),
    }
}

fn says(changed: &[(&str, &str)]) -> Verified {
    unread(Root::new(1, 1).biscuit(&said(changed)))
}

/// A JWT that was good when it was read.
fn read_jwt(role: Role, issued_at: u64, expires_at: u64) -> Verified {
    Verified {
        claims: claims(role, issued_at, expires_at),
        signer: signer(&[Role::Customer, Role::Admin, Role::Auditor]),
        biscuit: None,
        judged: Judged::default(),
    }
}

/// About no return, an own one, somebody else's, and one that does not exist.
fn requests(operation: Operation) -> [Request; 4] {
    [
        Request::of(operation),
        Request::about(operation, RETURN, Some(OWN)),
        Request::about(operation, RETURN, Some(OTHERS)),
        Request::about(operation, RETURN, None),
    ]
}

const YES: &str = "allowed";
const NO: &str = "forbidden";
const NOT_YOURS: &str = "not_yours";
const NOT_HONORED: &str = "not_honored";

/// Columns as in [`requests`].
const MATRIX: [(Role, Operation, [&str; 4]); 27] = {
    use Operation::{
        EventsList, EventsRead, OrdersList, RefundsDecide, ReturnsCancel, ReturnsCreate,
        ReturnsDecide, ReturnsList, ReturnsRead,
    };
    use Role::{Admin, Auditor, Customer};
    [
        (Customer, ReturnsCreate, [YES, YES, YES, YES]),
        (Customer, ReturnsRead, [NO, YES, NOT_YOURS, NOT_YOURS]),
        (Customer, ReturnsList, [NO, NO, NO, NO]),
        (Customer, ReturnsCancel, [NO, YES, NOT_YOURS, NOT_YOURS]),
        (Customer, ReturnsDecide, [NO, NO, NO, NO]),
        (Customer, RefundsDecide, [NO, NO, NO, NO]),
        (Customer, OrdersList, [YES, YES, YES, YES]),
        (Customer, EventsRead, [NO, NO, NO, NO]),
        (Customer, EventsList, [NO, NO, NO, NO]),
        (Admin, ReturnsCreate, [NO, NO, NO, NO]),
        (Admin, ReturnsRead, [NO, YES, YES, YES]),
        (Admin, ReturnsList, [YES, YES, YES, YES]),
        (Admin, ReturnsCancel, [NO, YES, YES, YES]),
        (Admin, ReturnsDecide, [NO, NO, YES, YES]),
        (Admin, RefundsDecide, [YES, NO, YES, YES]),
        (Admin, OrdersList, [NO, NO, NO, NO]),
        (Admin, EventsRead, [NO, YES, YES, YES]),
        (Admin, EventsList, [YES, YES, YES, YES]),
        (Auditor, ReturnsCreate, [NO, NO, NO, NO]),
        (Auditor, ReturnsRead, [NO, NO, NO, NO]),
        (Auditor, ReturnsList, [NO, NO, NO, NO]),
        (Auditor, ReturnsCancel, [NO, NO, NO, NO]),
        (Auditor, ReturnsDecide, [NO, NO, NO, NO]),
        (Auditor, RefundsDecide, [NO, NO, NO, NO]),
        (Auditor, OrdersList, [NO, NO, NO, NO]),
        (Auditor, EventsRead, [NO, YES, YES, YES]),
        (Auditor, EventsList, [YES, YES, YES, YES]),
    ]
};

#[test]
fn every_role_may_do_its_own_and_no_more_in_both_formats() {
    let (shop, root, policy) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1), policy());
    let verifier = verifier(&[shop.jwk(), root.jwk()]);
    for role in Role::iter() {
        let jwt = shop.token(&json!({"role": role}));
        let name = format!("{:?}", role.as_str());
        let biscuit = text(&root.biscuit(&said(&[("role", &name)])));
        for token in [jwt, biscuit] {
            let token = verifier.verify(&token).expect("good");
            for operation in Operation::iter() {
                let mut rows = MATRIX
                    .iter()
                    .filter(|row| (row.0, row.1) == (role, operation));
                let (_, _, expected) = rows.next().expect("each pair has a row");
                let decided = requests(operation).map(|request| policy.decide(&token, &request));
                if let Some(caller) = decided.iter().find_map(|decided| decided.as_ref().ok()) {
                    assert_eq!(**caller, Caller { user: 7, role });
                }
                let format = if token.biscuit.is_some() {
                    "Biscuit"
                } else {
                    "JWT"
                };
                assert_eq!(
                    &decided.map(answer),
                    expected,
                    "{role:?} {operation:?} {format}"
                );
            }
        }
    }
}

/// What is wrong with a token, the token, what it asks for, and what it would be allowed were nothing wrong.
fn dishonored() -> Vec<(&'static str, Verified, Operation)> {
    let now = get_current_timestamp();
    let (past, future) = (date(now - LEEWAY - 100), date(now + LEEWAY + 100));
    let create = |why, changed: &[(&str, &str)]| (why, says(changed), Operation::ReturnsCreate);
    let usual = said(&[]);
    let also = |why, line: String| {
        let biscuit = Root::new(1, 1).biscuit(&format!("{usual}{line}"));
        (why, unread(biscuit), Operation::ReturnsCreate)
    };
    let vouches = |token: Verified, roles: &[Role]| Verified {
        signer: signer(roles),
        ..token
    };
    let jwt = |begin, end| read_jwt(Role::Customer, begin, end);
    let admin = says(&[("role", r#""admin""#)]);
    vec![
        create("no user", &[("user", "")]),
        create("user 0", &[("user", "0")]),
        create("a user below 0", &[("user", "-7")]),
        also("two users", "user(8);".to_owned()),
        create("no role", &[("role", "")]),
        create("an unknown role", &[("role", r#""root""#)]),
        also("two roles", r#"role("admin");"#.to_owned()),
        (
            "a role its key may not vouch for",
            vouches(admin, &[Role::Customer]),
            Operation::ReturnsList,
        ),
        (
            "a key that may vouch for nobody",
            vouches(says(&[]), &[]),
            Operation::ReturnsCreate,
        ),
        create("no audience", &[("audience", "")]),
        create("another audience", &[("audience", r#""shop""#)]),
        create("another issuer", &[("issuer", r#""shop.example""#)]),
        create("an issuer that is no text", &[("issuer", "5")]),
        also("two issuers", r#"issuer("else");"#.to_owned()),
        create("has ended", &[("expires_at", &past)]),
        create("no end", &[("expires_at", "")]),
        also("two ends, one past", format!("expires_at({past});")),
        create("has not begun", &[("issued_at", &future)]),
        create("no beginning", &[("issued_at", "")]),
        also(
            "two beginnings, one to come",
            format!("issued_at({future});"),
        ),
        (
            "JWT: has ended",
            jwt(now - 600, now - LEEWAY - 100),
            Operation::ReturnsCreate,
        ),
        (
            "JWT: has not begun",
            jwt(now + LEEWAY + 100, now + 600),
            Operation::ReturnsCreate,
        ),
        (
            "JWT: a role its key may not vouch for",
            vouches(read_jwt(Role::Admin, now - 60, now + 60), &[Role::Customer]),
            Operation::ReturnsList,
        ),
    ]
}

#[test]
fn a_token_that_is_not_ours_is_not_honored_whatever_its_role_may() {
    let policy = policy();
    for (why, token, operation) in dishonored() {
        let denied = policy
            .decide(&token, &Request::of(operation))
            .expect_err(why);
        assert_eq!(denied.code(), NOT_HONORED, "{why}: {denied}");
        let own = Request::about(Operation::ReturnsRead, RETURN, Some(OWN));
        let others = Request::about(Operation::ReturnsRead, RETURN, Some(OTHERS));
        for request in [own, others] {
            assert_eq!(
                answer(policy.decide(&token, &request)),
                NOT_HONORED,
                "{why}"
            );
        }
    }
}

#[test]
fn what_is_not_honored_is_told_by_the_check_that_failed() {
    for (changed, told) in [
        (("audience", r#""shop""#), "check if audience($a)"),
        (("issuer", r#""else""#), "reject if issuer($i)"),
        (
            ("expires_at", "1970-01-01T00:00:00Z"),
            "check all expires_at($end)",
        ),
        (
            ("issued_at", "2999-01-01T00:00:00Z"),
            "check all issued_at($begin)",
        ),
    ] {
        let request = Request::of(Operation::ReturnsCreate);
        let denied = policy()
            .decide(&says(&[changed]), &request)
            .expect_err(told)
            .to_string();
        assert!(denied.contains(told), "{denied}");
    }
}

#[test]
fn a_biscuit_need_not_name_its_issuer() {
    let request = Request::of(Operation::ReturnsCreate);
    let decided = policy()
        .decide(&says(&[("issuer", "")]), &request)
        .map(|caller| caller.user);
    assert_eq!(decided, Ok(7));
}

/// Without any one of them, some answer to the tokens and requests above is another.
#[test]
fn every_statement_of_the_policy_decides_something() {
    let (now, create) = (
        get_current_timestamp(),
        Request::of(Operation::ReturnsCreate),
    );
    let answers = |policy: &Policy| -> Vec<&'static str> {
        let dishonored = dishonored()
            .into_iter()
            .map(|(_, token, operation)| answer(policy.decide(&token, &Request::of(operation))));
        let cells = MATRIX.iter().flat_map(|(role, operation, _)| {
            let token = read_jwt(*role, now - 60, now + 60);
            requests(*operation).map(|request| answer(policy.decide(&token, &request)))
        });
        let no_issuer = answer(policy.decide(&says(&[("issuer", "")]), &create));
        dishonored.chain(cells).chain([no_issuer]).collect()
    };
    let statements: Vec<&str> = POLICY
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .collect();
    assert!(
        statements.iter().all(|line| line.ends_with(';')),
        "one a line"
    );
    let whole = answers(&policy());
    for idle in &statements {
        // What no `allow if` allows is denied; the last line says so to people.
        if *idle == "deny if true;" {
            continue;
        }
        let rest: String = statements
            .iter()
            .filter(|other| *other != idle)
            .copied()
            .collect();
        let prepared = AuthorizerBuilder::new()
            .code(rest)
            .expect("good Datalog")
            .set_limits(LIMITS);
        let without = Policy {
            prepared,
            ..policy()
        };
        assert_ne!(answers(&without), whole, "{idle}");
    }
}

/// To the second, in both formats: clocks may differ by the leeway on either end, and by no more.
#[test]
fn a_token_is_in_time_from_its_beginning_to_its_end_and_a_leeway_around() {
    let (begin, end) = (1_000_000, 1_001_000);
    let biscuit = says(&[("issued_at", &date(begin)), ("expires_at", &date(end))]);
    let jwt = read_jwt(Role::Customer, begin, end);
    for (at, expected) in [
        (begin - LEEWAY - 1, NOT_HONORED),
        (begin - LEEWAY, YES),
        (begin, YES),
        (end - 1, YES),
        (end + LEEWAY - 1, YES),
        (end + LEEWAY, NOT_HONORED),
    ] {
        for token in [&biscuit, &jwt] {
            let asked = policy().ask(token, &Request::of(Operation::ReturnsCreate), at);
            assert_eq!(answer(asked), expected, "{at}");
        }
    }
}

#[test]
fn no_leeway_is_a_setting_too() {
    let strict = AuthArgs {
        auth_leeway_secs: 0,
        ..args("unused".into())
    };
    let (begin, end) = (1_000_000, 1_001_000);
    for (at, expected) in [
        (begin - 1, NOT_HONORED),
        (begin, YES),
        (end - 1, YES),
        (end, NOT_HONORED),
    ] {
        let token = read_jwt(Role::Customer, begin, end);
        let asked = Policy::new(&strict).ask(&token, &Request::of(Operation::ReturnsCreate), at);
        assert_eq!(answer(asked), expected, "{at}");
    }
}

/// An issuer that means "never" must not bring down who reads its tokens.
#[test]
fn a_time_that_no_clock_reaches_is_compared_like_any_other() {
    let create = Request::of(Operation::ReturnsCreate);
    let endless = read_jwt(Role::Customer, 0, u64::MAX);
    assert_eq!(answer(policy().decide(&endless, &create)), YES);
    let never = read_jwt(Role::Customer, u64::MAX, u64::MAX);
    assert_eq!(answer(policy().decide(&never, &create)), NOT_HONORED);
}

/// The answers of a second end with it: what is remembered never outlives the token.
#[test]
fn an_answer_is_remembered_for_its_second_and_no_longer() {
    let (begin, end) = (1_000_000, 1_001_000);
    let policy = policy();
    let biscuit = says(&[("issued_at", &date(begin)), ("expires_at", &date(end))]);
    let jwt = read_jwt(Role::Customer, begin, end);
    let own = Request::about(Operation::ReturnsRead, RETURN, Some(OWN));
    let others = Request::about(Operation::ReturnsRead, RETURN, Some(OTHERS));
    for token in [&biscuit, &jwt] {
        for (at, of_own) in [(end + LEEWAY - 1, YES), (end + LEEWAY, NOT_HONORED)] {
            for _ in 0..2 {
                assert_eq!(answer(policy.ask(token, &own, at)), of_own, "{at}");
            }
        }
        let at = begin;
        assert_eq!(answer(policy.ask(token, &own, at)), YES);
        assert_eq!(answer(policy.ask(token, &others, at)), NO);
    }
}

/// What a holder has narrowed to one return must not be remembered for another.
#[test]
fn a_remembered_answer_is_about_its_return() {
    let policy = policy();
    let whole = Root::new(1, 1).biscuit(&said(&[]));
    let narrowed = unread(append(&whole, r#"check if resource("return", 5);"#));
    let read = |id| Request::about(Operation::ReturnsRead, ReturnId(id), Some(OWN));
    for _ in 0..2 {
        assert_eq!(answer(policy.decide(&narrowed, &read(5))), YES);
        assert_eq!(answer(policy.decide(&narrowed, &read(6))), NO);
    }
}
