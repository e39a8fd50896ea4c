//! The return that a path names, for a caller who may do this with it.

use shared::auth::{Caller, Operation, Request};
use shared::domain::ids::ReturnId;

use crate::auth::Credential;
use crate::error::ApiError;
use crate::lane::Lane;
use crate::store::{self, ReturnRow};

/// Reads it and asks the policy.
///
/// # Errors
/// [`ApiError::NotFound`] for what does not exist and for what is somebody else's, and whatever else the policy says.
pub(super) async fn find<'c>(
    credential: &'c Credential,
    operation: Operation,
    id: &str,
    reads: &Lane,
) -> Result<(&'c Caller, ReturnRow), ApiError> {
    let id = parse_id(id);
    let row = reads
        .query(move |conn| Box::pin(store::get_return(conn, id)))
        .await?;
    // Asked for one that does not exist as well: someone else's must not be told from none.
    let owner = row.as_ref().map(|row| row.customer_id);
    let caller = credential.caller_for(&Request::about(operation, id, owner))?;
    Ok((caller, row.ok_or(ApiError::NotFound)?))
}

/// What is no number names nothing, as any other unknown id: ids begin at 1. No sign and no zeros in front: a return has
/// one path.
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
