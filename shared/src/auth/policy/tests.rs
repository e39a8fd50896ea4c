use biscuit_auth::Biscuit;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use strum::IntoEnumIterator;

use super::super::Role;
use super::super::decision_cache::DecisionCache;
use super::super::key_ring::Signer;
use super::super::test_tokens::{
    JwtIssuer, LEEWAY, Root, append, args, date, issuer_facts, text, verifier,
};
use super::super::token::Claims;
use super::*;

mod narrowed;
mod times;

const RETURN: ReturnId = ReturnId(5);
const OWN: CustomerId = CustomerId(7);
const OTHERS: CustomerId = CustomerId(8);

fn policy() -> Policy {
    Policy::new(&args("unused".into()))
}

/// The decision in one word.
fn code<T>(decided: Result<T, Denied>) -> &'static str {
    decided.map_or_else(|denied| denied.code(), |_| "allowed")
}

/// A key that may sign for these roles.
fn signer(roles: &[Role]) -> Signer {
    let roles = roles.iter().map(|role| Term::from(role.as_str())).collect();
    Signer {
        kid: "k".to_owned(),
        thumbprint: None,
        roles: one("key_roles", Term::Set(roles)),
        issuer: None,
    }
}

fn claims(role: Role, issued_at: u64, expires_at: u64) -> Claims {
    Claims {
        caller: Caller {
            user: 7,
            role,
            issuer: None,
        },
        issued_at,
        expires_at,
        token_id: None,
        revocation_ids: Vec::new(),
    }
}

/// A Biscuit that skips the [`super::super::Verifier`]: the policy must not allow what the verifier would refuse.
fn unverified(biscuit: Biscuit) -> Verified {
    Verified {
        claims: claims(Role::Customer, 0, 0),
        signer: signer(&[Role::Customer, Role::Admin, Role::Auditor]),
        biscuit: Some(biscuit),
        decisions: DecisionCache::default(),
    }
}

fn biscuit_with(changed: &[(&str, &str)]) -> Verified {
    unverified(Root::new(1, 1).biscuit(&issuer_facts(changed)))
}

/// A JWT that was good when it was verified.
fn verified_jwt(role: Role, issued_at: u64, expires_at: u64) -> Verified {
    Verified {
        claims: claims(role, issued_at, expires_at),
        signer: signer(&[Role::Customer, Role::Admin, Role::Auditor]),
        biscuit: None,
        decisions: DecisionCache::default(),
    }
}

/// About no return, one of the caller, one of another customer, one that does not exist, and one of another customer that
/// the caller filed.
fn requests(operation: Operation) -> [Request; 5] {
    [
        Request::of(operation),
        Request::about(operation, RETURN, Some(OWN)),
        Request::about(operation, RETURN, Some(OTHERS)),
        Request::about(operation, RETURN, None),
        Request::about(operation, RETURN, Some(OTHERS)).filed_by(Some(OWN.0)),
    ]
}

const YES: &str = "allowed";
const NO: &str = "forbidden";
const NOT_YOURS: &str = "not_yours";
const NOT_ACCEPTED: &str = "not_honored";

/// Columns as in [`requests`].
const MATRIX: [(Role, Operation, [&str; 5]); 36] = {
    use Operation::{
        EventsList, EventsRead, OperatorActionsList, OrdersList, RefundsDecide, ReturnsCancel,
        ReturnsCreate, ReturnsCreateFor, ReturnsDecide, ReturnsList, ReturnsListOwn, ReturnsRead,
    };
    use Role::{Admin, Auditor, Customer};
    const EACH: [&str; 5] = [YES; 5];
    const NONE: [&str; 5] = [NO; 5];
    [
        (Customer, ReturnsCreate, EACH),
        (Customer, ReturnsCreateFor, NONE),
        (
            Customer,
            ReturnsRead,
            [NO, YES, NOT_YOURS, NOT_YOURS, NOT_YOURS],
        ),
        (Customer, ReturnsList, NONE),
        (Customer, ReturnsListOwn, EACH),
        (
            Customer,
            ReturnsCancel,
            [NO, YES, NOT_YOURS, NOT_YOURS, NOT_YOURS],
        ),
        (Customer, ReturnsDecide, NONE),
        (Customer, RefundsDecide, NONE),
        (Customer, OrdersList, EACH),
        (Customer, EventsRead, NONE),
        (Customer, EventsList, NONE),
        (Customer, OperatorActionsList, NONE),
        (Admin, ReturnsCreate, NONE),
        (Admin, ReturnsCreateFor, [NO, NO, YES, YES, YES]),
        (Admin, ReturnsRead, [NO, YES, YES, YES, YES]),
        (Admin, ReturnsList, EACH),
        (Admin, ReturnsListOwn, NONE),
        (Admin, ReturnsCancel, [NO, YES, YES, YES, YES]),
        (Admin, ReturnsDecide, [NO, NO, YES, YES, NO]),
        (Admin, RefundsDecide, [YES, NO, YES, YES, NO]),
        (Admin, OrdersList, NONE),
        (Admin, EventsRead, [NO, YES, YES, YES, YES]),
        (Admin, EventsList, EACH),
        (Admin, OperatorActionsList, EACH),
        (Auditor, ReturnsCreate, NONE),
        (Auditor, ReturnsCreateFor, NONE),
        (Auditor, ReturnsRead, NONE),
        (Auditor, ReturnsList, NONE),
        (Auditor, ReturnsListOwn, NONE),
        (Auditor, ReturnsCancel, NONE),
        (Auditor, ReturnsDecide, NONE),
        (Auditor, RefundsDecide, NONE),
        (Auditor, OrdersList, NONE),
        (Auditor, EventsRead, [NO, YES, YES, YES, YES]),
        (Auditor, EventsList, EACH),
        (Auditor, OperatorActionsList, EACH),
    ]
};

#[test]
fn every_role_may_do_what_the_matrix_says_in_both_formats() {
    let (shop, root, policy) = (JwtIssuer::eddsa("ed", 7), Root::new(1, 1), policy());
    let verifier = verifier(&[shop.jwk(), root.jwk()]);
    for role in Role::iter() {
        let jwt = shop.token(&json!({"role": role}));
        let name = format!("{:?}", role.as_str());
        let biscuit = text(&root.biscuit(&issuer_facts(&[("role", &name)])));
        for token in [jwt, biscuit] {
            let token = verifier.verify(&token).expect("good");
            for operation in Operation::iter() {
                let mut rows = MATRIX
                    .iter()
                    .filter(|row| (row.0, row.1) == (role, operation));
                let (_, _, expected) = rows.next().expect("each pair has a row");
                let decided = requests(operation).map(|request| policy.decide(&token, &request));
                if let Some(caller) = decided.iter().find_map(|decided| decided.as_ref().ok()) {
                    assert_eq!((caller.user, caller.role), (7, role));
                }
                let format = if token.biscuit.is_some() {
                    "Biscuit"
                } else {
                    "JWT"
                };
                assert_eq!(
                    &decided.map(code),
                    expected,
                    "{role:?} {operation:?} {format}"
                );
            }
        }
    }
}

/// A problem, a token with this problem, and an operation that would be allowed without the problem.
fn not_accepted() -> Vec<(&'static str, Verified, Operation)> {
    let mut problems = not_accepted_biscuits();
    problems.extend(not_accepted_jwts());
    problems
}

fn signed_for(token: Verified, roles: &[Role]) -> Verified {
    Verified {
        signer: signer(roles),
        ..token
    }
}

fn not_accepted_jwts() -> [(&'static str, Verified, Operation); 3] {
    let now = get_current_timestamp();
    let jwt = |begin, end| verified_jwt(Role::Customer, begin, end);
    let admin = verified_jwt(Role::Admin, now - 60, now + 60);
    [
        (
            "JWT: expired",
            jwt(now - 600, now - LEEWAY - 100),
            Operation::ReturnsCreate,
        ),
        (
            "JWT: not valid yet",
            jwt(now + LEEWAY + 100, now + 600),
            Operation::ReturnsCreate,
        ),
        (
            "JWT: a role that its key may not sign for",
            signed_for(admin, &[Role::Customer]),
            Operation::ReturnsList,
        ),
    ]
}

fn not_accepted_biscuits() -> Vec<(&'static str, Verified, Operation)> {
    let now = get_current_timestamp();
    let (past, future) = (date(now - LEEWAY - 100), date(now + LEEWAY + 100));
    let create =
        |why, changed: &[(&str, &str)]| (why, biscuit_with(changed), Operation::ReturnsCreate);
    let usual = issuer_facts(&[]);
    let also = |why, line: String| {
        let biscuit = Root::new(1, 1).biscuit(&format!("{usual}{line}"));
        (why, unverified(biscuit), Operation::ReturnsCreate)
    };
    let admin = biscuit_with(&[("role", r#""admin""#)]);
    vec![
        create("no user", &[("user", "")]),
        create("user 0", &[("user", "0")]),
        create("a user below 0", &[("user", "-7")]),
        also("two users", "user(8);".to_owned()),
        create("no role", &[("role", "")]),
        create("an unknown role", &[("role", r#""root""#)]),
        also("two roles", r#"role("admin");"#.to_owned()),
        (
            "a role that its key may not sign for",
            signed_for(admin, &[Role::Customer]),
            Operation::ReturnsList,
        ),
        (
            "a key that may sign for no role",
            signed_for(biscuit_with(&[]), &[]),
            Operation::ReturnsCreate,
        ),
        create("no audience", &[("audience", "")]),
        create("another audience", &[("audience", r#""shop""#)]),
        create("another issuer", &[("issuer", r#""shop.example""#)]),
        create("an issuer that is not text", &[("issuer", "5")]),
        also("two issuers", r#"issuer("else");"#.to_owned()),
        create("expired", &[("expires_at", &past)]),
        create("no expiry", &[("expires_at", "")]),
        also(
            "two expiry times, one in the past",
            format!("expires_at({past});"),
        ),
        create("not valid yet", &[("issued_at", &future)]),
        create("no time of issue", &[("issued_at", "")]),
        also(
            "two times of issue, one in the future",
            format!("issued_at({future});"),
        ),
    ]
}

#[test]
fn a_token_with_a_problem_is_not_accepted_for_any_request() {
    let policy = policy();
    for (why, token, operation) in not_accepted() {
        let denied = policy
            .decide(&token, &Request::of(operation))
            .expect_err(why);
        assert_eq!(denied.code(), NOT_ACCEPTED, "{why}: {denied}");
        let own = Request::about(Operation::ReturnsRead, RETURN, Some(OWN));
        let others = Request::about(Operation::ReturnsRead, RETURN, Some(OTHERS));
        for request in [own, others] {
            assert_eq!(code(policy.decide(&token, &request)), NOT_ACCEPTED, "{why}");
        }
    }
}

#[test]
fn the_denial_names_the_check_that_failed() {
    for (changed, check) in [
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
            .decide(&biscuit_with(&[changed]), &request)
            .expect_err(check)
            .to_string();
        assert!(denied.contains(check), "{denied}");
    }
}

#[test]
fn a_biscuit_need_not_name_its_issuer() {
    let request = Request::of(Operation::ReturnsCreate);
    let decided = policy()
        .decide(&biscuit_with(&[("issuer", "")]), &request)
        .map(|caller| caller.user);
    assert_eq!(decided, Ok(7));
}

/// Without any one of the statements, at least one decision about the tokens and requests above changes.
#[test]
fn every_statement_of_the_policy_has_an_effect() {
    let (now, create) = (
        get_current_timestamp(),
        Request::of(Operation::ReturnsCreate),
    );
    let answers = |policy: &Policy| -> Vec<&'static str> {
        let refused = not_accepted()
            .into_iter()
            .map(|(_, token, operation)| code(policy.decide(&token, &Request::of(operation))));
        let cells = MATRIX.iter().flat_map(|(role, operation, _)| {
            let token = verified_jwt(*role, now - 60, now + 60);
            requests(*operation).map(|request| code(policy.decide(&token, &request)))
        });
        let no_issuer = code(policy.decide(&biscuit_with(&[("issuer", "")]), &create));
        refused.chain(cells).chain([no_issuer]).collect()
    };
    let statements: Vec<&str> = POLICY
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .collect();
    assert!(
        statements.iter().all(|line| line.ends_with(';')),
        "one statement a line"
    );
    let whole = answers(&policy());
    for removed in &statements {
        // A request that no `allow if` matches is denied anyway; the last line is for readers.
        if *removed == "deny if true;" {
            continue;
        }
        let rest: String = statements
            .iter()
            .filter(|other| *other != removed)
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
        assert_ne!(answers(&without), whole, "{removed}");
    }
}
