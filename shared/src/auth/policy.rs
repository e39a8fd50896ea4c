//! Asks `policy.datalog` about one request of one caller.

mod judged;

use std::time::{SystemTime, UNIX_EPOCH};

use biscuit_auth::AuthorizerBuilder;
use biscuit_auth::builder::{Fact, Term, fact, string};
use biscuit_auth::error::{FailedCheck, Logic, RunLimit, Token as BiscuitError};
use strum::{EnumIter, IntoStaticStr};

pub(super) use self::judged::Judged;
use super::biscuit::LIMITS;
use super::verifier::Verified;
use super::{AuthArgs, Caller};
use crate::domain::ids::{CustomerId, ReturnId};

const POLICY: &str = include_str!("policy.datalog");

/// What somebody wants to do; each endpoint and command names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
pub enum Operation {
    #[strum(serialize = "returns.create")]
    ReturnsCreate,
    #[strum(serialize = "returns.read")]
    ReturnsRead,
    #[strum(serialize = "returns.list")]
    ReturnsList,
    #[strum(serialize = "returns.cancel")]
    ReturnsCancel,
    /// Approve or reject.
    #[strum(serialize = "returns.decide")]
    ReturnsDecide,
    /// Of refunds that wait for a person.
    #[strum(serialize = "refunds.decide")]
    RefundsDecide,
    #[strum(serialize = "orders.list")]
    OrdersList,
    /// The audit trail of one return.
    #[strum(serialize = "events.read")]
    EventsRead,
    /// The audit trail of all.
    #[strum(serialize = "events.list")]
    EventsList,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    operation: Operation,
    resource: Option<Resource>,
}

/// The return it is about, and whose it is; nobody's if there is no such return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resource {
    id: ReturnId,
    owner: Option<CustomerId>,
}

/// Why a request is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is not in time, not for us, or its key may not vouch for the role.
    #[error("the token is not honored: {0}")]
    Token(String),
    #[error("the role, or what the token was narrowed to, does not allow this")]
    Forbidden,
    /// Somebody else's, or nobody's: the two must not be told apart.
    #[error("the resource is not the caller's")]
    NotYours,
    #[error("the decision could not be made in time")]
    Undecided,
}

/// The policy, parsed once.
#[derive(Debug, Clone)]
pub struct Policy {
    prepared: AuthorizerBuilder,
    audience: Term,
    issuer: Term,
    /// Seconds.
    leeway: u64,
}

impl Operation {
    /// The name, as in the policy.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it changes anything, as in the policy. Holders narrow a Biscuit to reading by this.
    fn access(self) -> &'static str {
        match self {
            Self::ReturnsRead
            | Self::ReturnsList
            | Self::OrdersList
            | Self::EventsRead
            | Self::EventsList => "read",
            Self::ReturnsCreate
            | Self::ReturnsCancel
            | Self::ReturnsDecide
            | Self::RefundsDecide => "write",
        }
    }
}

impl Denied {
    /// A label for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(_) => "not_honored",
            Self::Forbidden => "forbidden",
            Self::NotYours => "not_yours",
            Self::Undecided => "undecided",
        }
    }
}

impl Request {
    /// About no return in particular.
    pub fn of(operation: Operation) -> Self {
        Self {
            operation,
            resource: None,
        }
    }

    /// About this return, which belongs to `owner` or does not exist.
    pub fn about(operation: Operation, id: ReturnId, owner: Option<CustomerId>) -> Self {
        Self {
            operation,
            resource: Some(Resource { id, owner }),
        }
    }
}

impl Policy {
    /// # Panics
    /// Never: a test reads the policy.
    pub fn new(args: &AuthArgs) -> Self {
        let prepared = AuthorizerBuilder::new()
            .code(POLICY)
            .expect("the policy is good Datalog")
            .set_limits(LIMITS);
        Self {
            prepared,
            audience: string(&args.auth_audience),
            issuer: string(&args.auth_issuer),
            leeway: args.auth_leeway_secs,
        }
    }

    /// The caller, if the token is honored now and allows the request: 70 to 100 us (docs/BENCHMARKS.md) unless the same was
    /// asked within the same second.
    ///
    /// # Errors
    /// Why not.
    pub fn decide<'v>(&self, token: &'v Verified, request: &Request) -> Result<&'v Caller, Denied> {
        let now = clock();
        let denied = match self.ask(token, request, now) {
            Ok(()) => return Ok(token.caller()),
            Err(denied) => denied,
        };
        // Would it be allowed, were it the caller's own? That is the policy's to say as well.
        match (denied, request.resource) {
            (Denied::Forbidden, Some(resource)) => {
                let owner = Some(CustomerId(token.caller().user));
                let own = Request {
                    resource: Some(Resource { owner, ..resource }),
                    ..*request
                };
                Err(match self.ask(token, &own, now) {
                    Ok(()) => Denied::NotYours,
                    Err(denied) => denied,
                })
            }
            (denied, _) => Err(denied),
        }
    }

    /// Whether the token is honored at all now, whatever it is shown for.
    ///
    /// # Errors
    /// [`Denied::Token`] or [`Denied::Undecided`].
    pub fn honors(&self, token: &Verified) -> Result<(), Denied> {
        let any = Request::of(Operation::ReturnsRead);
        match self.ask(token, &any, clock()) {
            Ok(()) | Err(Denied::Forbidden | Denied::NotYours) => Ok(()),
            Err(denied @ (Denied::Token(_) | Denied::Undecided)) => Err(denied),
        }
    }

    fn ask(&self, token: &Verified, request: &Request, now: u64) -> Result<(), Denied> {
        let question = question(token, *request);
        let evaluate = || self.evaluate(token, &question, now);
        token.judged.of(question, now, evaluate)
    }

    fn evaluate(&self, token: &Verified, question: &Request, now: u64) -> Result<(), Denied> {
        let facts = self.ambient(token, question, now);
        let said = match token.biscuit {
            Some(_) => Vec::new(),
            // The claims of a JWT stand where a Biscuit's first block would.
            None => self.claims(token),
        };
        let outcome = facts
            .into_iter()
            .chain(said)
            .try_fold(self.prepared.clone(), AuthorizerBuilder::fact)
            .and_then(|builder| match &token.biscuit {
                Some(biscuit) => builder.build(biscuit),
                None => builder.build_unauthenticated(),
            })
            .and_then(|mut authorizer| authorizer.authorize());
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => Err(denied(error)),
        }
    }

    fn ambient(&self, token: &Verified, question: &Request, now: u64) -> Vec<Fact> {
        let operation = question.operation;
        let date = |name, at| one(name, Term::Date(at));
        let mut facts = vec![
            one("operation", string(operation.as_str())),
            one("access", string(operation.access())),
            date("time", now),
            date("earliest", now.saturating_sub(self.leeway)),
            date("latest", now.saturating_add(self.leeway)),
            one("our_audience", self.audience.clone()),
            one("our_issuer", self.issuer.clone()),
            token.key_roles().clone(),
        ];
        if let Some(Resource { id, owner }) = question.resource {
            facts.push(fact("resource", &[string("return"), Term::Integer(id.0)]));
            facts.extend(
                owner.map(|owner| fact("owner", &[Term::Integer(id.0), Term::Integer(owner.0)])),
            );
        }
        facts
    }

    /// `aud` and `iss` were compared when the signature was checked.
    fn claims(&self, token: &Verified) -> Vec<Fact> {
        let claims = &token.claims;
        vec![
            one("user", Term::Integer(claims.caller.user)),
            one("role", string(claims.caller.role.as_str())),
            one("audience", self.audience.clone()),
            one("issuer", self.issuer.clone()),
            // Not by way of `SystemTime`, which panics at what no clock reaches.
            one("issued_at", Term::Date(claims.issued_at)),
            one("expires_at", Term::Date(claims.expires_at)),
        ]
    }
}

/// As much of a request as this token's policy may see.
fn question(token: &Verified, request: Request) -> Request {
    let seen = |Resource { id, owner }| Resource {
        // Only a holder's own check could tell one return from another.
        id: match token.biscuit {
            Some(_) => id,
            None => ReturnId(0),
        },
        // Never somebody else's: a holder's own check could ask about it, and learn that the return exists, and whose
        // it is, from how it fails. Nobody's and a stranger's are the same to the policy.
        owner: owner.filter(|owner| token.caller().is(*owner)),
    };
    Request {
        resource: request.resource.map(seen),
        ..request
    }
}

/// Unix seconds: tokens have no finer times. This machine's, as for all times that issuers set; the leeway is for what it
/// differs.
#[expect(
    clippy::disallowed_methods,
    reason = "a token's times are its issuer's, and not the database's"
)]
fn clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_secs()
}

fn one(name: &str, term: Term) -> Fact {
    fact(name, &[term])
}

/// Checks of ours that fail make it no token; checks of a holder's, or no `allow if`, no permission.
fn denied(error: BiscuitError) -> Denied {
    match error {
        BiscuitError::FailedLogic(
            Logic::Unauthorized { checks, .. } | Logic::NoMatchingPolicy { checks },
        ) => {
            let ours = checks.into_iter().find_map(|check| match check {
                FailedCheck::Authorizer(check) => Some(check.rule),
                FailedCheck::Block(_) => None,
            });
            ours.map_or(Denied::Forbidden, Denied::Token)
        }
        BiscuitError::RunLimit(RunLimit::Timeout) => Denied::Undecided,
        // An expression of a holder's that divides by zero, facts without end: no permission can come of it.
        _ => Denied::Token("it cannot be evaluated".to_owned()),
    }
}

#[cfg(test)]
mod tests;
