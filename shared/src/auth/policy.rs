//! Evaluates `policy.datalog` for one request of one caller.

use biscuit_auth::AuthorizerBuilder;
use biscuit_auth::builder::{Fact, Term, fact, string};
use biscuit_auth::error::{FailedCheck, Logic, RunLimit, Token as BiscuitError};

use super::access::{Denied, Operation, Request, Resource};
use super::biscuit::LIMITS;
use super::token::Verified;
use super::{AuthArgs, Caller};
use crate::domain::ids::{CustomerId, ReturnId};
use crate::runtime::clock::unix_secs;

const POLICY: &str = include_str!("policy.datalog");

/// The policy, parsed once.
#[derive(Debug, Clone)]
pub struct Policy {
    prepared: AuthorizerBuilder,
    args: AuthArgs,
    audience: Term,
    /// Seconds.
    leeway: u64,
}

impl Policy {
    /// # Panics
    /// Never: a test parses the policy.
    pub fn new(args: &AuthArgs) -> Self {
        let prepared = AuthorizerBuilder::new()
            .code(POLICY)
            .expect("the policy is valid Datalog")
            .set_limits(LIMITS);
        Self {
            prepared,
            args: args.clone(),
            audience: string(&args.auth_audience),
            leeway: args.auth_leeway_secs,
        }
    }

    /// The caller, if the token is accepted now and allows the request. This takes 70 to 100 us (docs/BENCHMARKS.md),
    /// unless the decision of the same second is cached.
    ///
    /// # Errors
    /// Why the request is not allowed.
    pub fn decide<'v>(&self, token: &'v Verified, request: &Request) -> Result<&'v Caller, Denied> {
        // Tokens have no finer times. The leeway covers the difference between our clock and the issuer's.
        let now = unix_secs();
        let denied = match self.allows(token, request, now) {
            Ok(()) => return Ok(token.caller()),
            Err(denied) => denied,
        };
        // The policy also decides whether the request would be allowed if the return were the caller's own.
        match (denied, request.resource) {
            (Denied::Forbidden, Some(resource)) => {
                let owner = Some(CustomerId(token.caller().user));
                let own = Request {
                    resource: Some(Resource { owner, ..resource }),
                    ..*request
                };
                Err(match self.allows(token, &own, now) {
                    Ok(()) => Denied::NotYours,
                    Err(denied) => denied,
                })
            }
            (denied, _) => Err(denied),
        }
    }

    /// Whether a token that was accepted before is still within its time: nothing else about it can have changed. As in
    /// the policy, at a small part of its cost.
    pub fn is_current(&self, token: &Verified) -> bool {
        self.is_current_at(token, unix_secs())
    }

    fn is_current_at(&self, token: &Verified, now: u64) -> bool {
        let claims = &token.claims;
        now.saturating_sub(self.leeway) < claims.expires_at
            && claims.issued_at <= now.saturating_add(self.leeway)
    }

    /// Whether the token is accepted now, for whatever request.
    ///
    /// # Errors
    /// [`Denied::Token`] or [`Denied::Undecided`].
    pub fn accepts(&self, token: &Verified) -> Result<(), Denied> {
        let any = Request::of(Operation::ReturnsRead);
        match self.allows(token, &any, unix_secs()) {
            Ok(()) | Err(Denied::Forbidden | Denied::NotYours) => Ok(()),
            Err(denied @ (Denied::Token(_) | Denied::Undecided)) => Err(denied),
        }
    }

    fn allows(&self, token: &Verified, request: &Request, now: u64) -> Result<(), Denied> {
        let request = visible_part(token, *request);
        let evaluate = || self.evaluate(token, &request, now);
        token.decisions.get_or_evaluate(request, now, evaluate)
    }

    fn evaluate(&self, token: &Verified, request: &Request, now: u64) -> Result<(), Denied> {
        let from_server = self.server_facts(token, request, now);
        let from_claims = match token.biscuit {
            Some(_) => Vec::new(),
            // The claims of a JWT take the place of a Biscuit's first block.
            None => self.claim_facts(token),
        };
        let outcome = from_server
            .into_iter()
            .chain(from_claims)
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

    fn server_facts(&self, token: &Verified, request: &Request, now: u64) -> Vec<Fact> {
        let operation = request.operation;
        let date = |name, at| one(name, Term::Date(at));
        let mut facts = vec![
            one("operation", string(operation.as_str())),
            one("access", string(operation.access())),
            date("time", now),
            date("earliest", now.saturating_sub(self.leeway)),
            date("latest", now.saturating_add(self.leeway)),
            one("our_audience", self.audience.clone()),
            one("our_issuer", string(token.signer.issuer(&self.args))),
            token.key_roles().clone(),
        ];
        if let Some(Resource {
            id,
            owner,
            filed_by,
        }) = request.resource
        {
            facts.push(fact("resource", &[string("return"), Term::Integer(id.0)]));
            let person = |name, user| fact(name, &[Term::Integer(id.0), Term::Integer(user)]);
            facts.extend(owner.map(|owner| person("owner", owner.0)));
            facts.extend(filed_by.map(|admin| person("filed_by", admin)));
        }
        facts
    }

    /// `aud` and `iss` were compared when the signature was checked.
    fn claim_facts(&self, token: &Verified) -> Vec<Fact> {
        let claims = &token.claims;
        vec![
            one("user", Term::Integer(claims.caller.user)),
            one("role", string(claims.caller.role.as_str())),
            one("audience", self.audience.clone()),
            one("issuer", string(token.signer.issuer(&self.args))),
            // Not through `SystemTime`, which panics at a time that is too far away.
            one("issued_at", Term::Date(claims.issued_at)),
            one("expires_at", Term::Date(claims.expires_at)),
        ]
    }
}

/// The part of a request that the checks of this token may see.
fn visible_part(token: &Verified, request: Request) -> Request {
    let visible = |Resource {
                       id,
                       owner,
                       filed_by,
                   }| Resource {
        // Only a check that a holder has added can distinguish returns.
        id: match token.biscuit {
            Some(_) => id,
            None => ReturnId(0),
        },
        // Never another customer: the holder's own check could ask for the owner, and its failure would reveal that the
        // return exists and whose it is. The policy treats another customer's return like one that does not exist.
        owner: owner.filter(|owner| token.caller().is(*owner)),
        filed_by: filed_by.filter(|admin| token.caller().user == *admin),
    };
    Request {
        resource: request.resource.map(visible),
        ..request
    }
}

fn one(name: &str, term: Term) -> Fact {
    fact(name, &[term])
}

/// If one of our checks fails, the token is not accepted. If a holder's check fails or no `allow if` matches, the
/// request is forbidden.
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
        // A holder's expression divides by zero, or produces facts without end: such a token allows nothing.
        _ => Denied::Token("it cannot be evaluated".to_owned()),
    }
}

#[cfg(test)]
mod tests;
