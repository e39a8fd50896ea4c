//! What an endpoint gets: one value instead of one argument per filter.

use std::sync::Arc;
use std::time::Duration;

use shared::auth::{Caller, Holder, Operation, Request};
use shared::domain::eligibility::PolicyArgs;
use shared::domain::ids::ReturnId;
use shared::domain::transition::Cause;
use shared::runtime::db::{Database, DbError};
use shared::runtime::http_server::Connection;
use warp::http::{HeaderMap, Method};
use warp::path::FullPath;
use warp::{Filter, Rejection};

use super::body::RequestBody;
use super::context::RequestContext;
use super::public_url::PublicUrl;
use super::rate_limit::RateLimit;
use crate::audit::AuditReads;
use crate::auth::{Authenticator, Credential};
use crate::decisions::Decisions;
use crate::error::ApiError;
use crate::filing::FilingQueue;
use crate::notifications::Notifications;
use crate::store::{self, ReturnRow};
use crate::streams::Streams;

/// What endpoints work with.
#[derive(Debug)]
pub(crate) struct State {
    /// A share of the connections for reads.
    pub(crate) reads: Database,
    pub(crate) read_deadline: Duration,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) filing: FilingQueue,
    pub(crate) decisions: Decisions,
    pub(crate) audit: AuditReads,
    pub(crate) streams: Streams,
    /// `None`: the provider sends none.
    pub(crate) notifications: Option<Notifications>,
    pub(crate) policy: PolicyArgs,
    /// Per holder, not per token. `None`: no limit.
    pub(crate) caller_rate: Option<RateLimit<Holder>>,
    /// For reading a body, once an endpoint asks for it.
    pub(crate) body_timeout: Duration,
    pub(crate) public_url: PublicUrl,
}

/// A request on its way to an endpoint.
pub(super) struct Call {
    pub(super) state: Arc<State>,
    pub(super) method: Method,
    pub(super) path: FullPath,
    pub(super) context: Arc<RequestContext>,
    pub(super) connection: Connection,
    pub(super) headers: HeaderMap,
    /// As sent; empty if there is none.
    pub(super) query: String,
    pub(super) body: RequestBody,
}

/// The only filter: everything of a request.
pub(super) fn call(
    state: State,
) -> impl Filter<Extract = (Call,), Error = Rejection> + Clone + Send + Sync + 'static {
    let state = Arc::new(state);
    let raw_query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(warp::ext::get::<Arc<RequestContext>>())
        .and(warp::ext::get::<Connection>())
        .and(warp::header::headers_cloned())
        .and(raw_query)
        .and(warp::body::stream())
        .map(
            move |method, path, context, connection, headers, query, body| Call {
                state: Arc::clone(&state),
                method,
                path,
                context,
                connection,
                headers,
                query,
                body: RequestBody::new(body),
            },
        )
}

impl State {
    /// Reads the return that the path names, and asks the policy.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] for a return that does not exist and for another customer's, or what else the policy says.
    pub(super) async fn find_return<'c>(
        &self,
        credential: &'c Credential,
        operation: Operation,
        id: &str,
    ) -> Result<(&'c Caller, ReturnRow), ApiError> {
        let id = parse_id(id);
        let row = self
            .reads
            .run("get_return", self.read_deadline, move |conn| {
                Box::pin(async move { store::get_return(conn, id).await.map_err(DbError::from) })
            });
        let row = row.await?;
        // Also for a return that does not exist: the response must not show whether it exists.
        let owner = row.as_ref().map(|row| row.customer_id);
        let filed_by = row.as_ref().and_then(|row| row.filed_by);
        let request = Request::about(operation, id, owner).filed_by(filed_by);
        let caller = credential.caller_for(&request)?;
        Ok((caller, row.ok_or(ApiError::NotFound)?))
    }
}

impl Call {
    /// Authenticates the caller and counts the request.
    pub(super) fn authenticate(&self) -> Result<Credential, ApiError> {
        let State {
            authenticator,
            caller_rate,
            ..
        } = self.state.as_ref();
        let credential = authenticator.authenticate(&self.headers, &self.context.source)?;
        if let Some(limit) = caller_rate {
            let decision = limit.take(&credential.holder());
            self.context.set_rate(decision);
            decision.admit()?;
        }
        Ok(credential)
    }

    /// Why a change is made: by this caller, in this request.
    pub(super) fn cause(&self, caller: &Caller) -> Cause {
        Cause {
            actor: caller.actor(),
            request_id: Some(self.context.source.request_id.clone()),
            trace: self.context.span.context().clone(),
        }
    }
}

/// The id in a path; 0, which no return has, for everything else. No sign and no leading zeros: a return has one path.
pub(super) fn parse_id(text: &str) -> ReturnId {
    let id = text.parse().unwrap_or(0);
    ReturnId(if id.to_string() == text { id } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_has_one_path() {
        assert_eq!(parse_id("5"), ReturnId(5));
        assert_eq!(parse_id(&i64::MAX.to_string()), ReturnId(i64::MAX));
        for none in ["", "+5", "05", " 5", "5.0", "x", "9223372036854775808"] {
            assert_eq!(parse_id(none), ReturnId(0), "{none}");
        }
    }
}
