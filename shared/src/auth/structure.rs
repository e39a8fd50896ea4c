//! The permitted structure of a Biscuit, checked on its bytes before any signature is checked and any Datalog is run.
//!
//! Every holder of an unsealed token may append blocks, and the engine checks its limits between steps only: a check
//! that joins 60 facts four times, in a token of 1.7 kB, took 12 s on one core of an EPYC with any limits. So appended
//! blocks may hold small checks and nothing else.

use biscuit_auth::format::schema::{self, op, op_binary, op_unary, public_key};
use prost::Message;

use super::token::TOKEN_MAX;

/// The longest Biscuit that is read, in bytes. AUTH_TOKEN_MAX_BYTES allows fewer by default.
pub const BISCUIT_MAX: usize = TOKEN_MAX / 4 * 3;
/// Including the issuer's block.
const MAX_BLOCKS: usize = 4;
const MAX_CHECKS: usize = 8;
const MAX_QUERIES: usize = 4;
/// The most predicates in a query, and the most expressions.
const MAX_BODY: usize = 4;
const MAX_OPS: usize = 32;
/// The most terms in a block, including the members of sets. Each takes 50 to 200 bytes for as long as the token is
/// cached: 3 kB of nested lists took 80 kB in memory.
const MAX_TERMS: usize = 64;

/// Why the structure of a Biscuit is not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    #[error("longer than {BISCUIT_MAX} bytes")]
    TooLong,
    #[error("not a Biscuit")]
    Malformed,
    #[error("more than {MAX_BLOCKS} blocks")]
    TooManyBlocks,
    #[error("it has a block of a third party")]
    ThirdParty,
    #[error("it has a key that is not Ed25519")]
    KeyKind,
    #[error("the issuer's block has a rule")]
    Rule,
    #[error("an appended block holds more than checks")]
    NotChecksOnly,
    #[error("a check is too large")]
    TooLarge,
    #[error("a check has a closure")]
    Closure,
    #[error("a check has a regular expression")]
    Regex,
    #[error("a check calls a foreign function")]
    Foreign,
}

/// Checks that these bytes may be read as a Biscuit. This takes about 1 us for 3 kB and does not recurse.
///
/// # Errors
/// What is not permitted.
pub fn check_structure(raw: &[u8]) -> Result<(), StructureError> {
    if raw.len() > BISCUIT_MAX {
        return Err(StructureError::TooLong);
    }
    let token = schema::Biscuit::decode(raw).map_err(|_| StructureError::Malformed)?;
    if token.blocks.len() >= MAX_BLOCKS {
        return Err(StructureError::TooManyBlocks);
    }
    if token.authority.external_signature.is_some() {
        return Err(StructureError::ThirdParty);
    }
    check_key(&token.authority)?;
    check_authority(&token.authority)?;
    token.blocks.iter().try_for_each(check_appended)
}

/// Checks the key that signs the next block, which a holder chooses. A P-256 key takes several times as long to check,
/// and its signatures, which are the revocation ids, can be written in two ways.
fn check_key(signed: &schema::SignedBlock) -> Result<(), StructureError> {
    if signed.next_key.algorithm == public_key::Algorithm::Ed25519 as i32 {
        Ok(())
    } else {
        Err(StructureError::KeyKind)
    }
}

/// Checks the issuer's block before its signature is checked. Its keys for blocks of third parties would be parsed first:
/// 65 P-256 keys took 0.7 ms.
fn check_authority(signed: &schema::SignedBlock) -> Result<(), StructureError> {
    let block = schema::Block::decode(&signed.block[..]).map_err(|_| StructureError::Malformed)?;
    if !block.public_keys.is_empty() || !block.scope.is_empty() {
        return Err(StructureError::ThirdParty);
    }
    // Its facts are read as they are; nothing is derived.
    if !block.rules.is_empty() {
        return Err(StructureError::Rule);
    }
    check_checks(&block)
}

fn check_appended(signed: &schema::SignedBlock) -> Result<(), StructureError> {
    if signed.external_signature.is_some() {
        return Err(StructureError::ThirdParty);
    }
    check_key(signed)?;
    let block = schema::Block::decode(&signed.block[..]).map_err(|_| StructureError::Malformed)?;
    let checks_only = block.facts.is_empty()
        && block.rules.is_empty()
        && block.scope.is_empty()
        && block.public_keys.is_empty();
    if !checks_only {
        return Err(StructureError::NotChecksOnly);
    }
    check_checks(&block)
}

fn check_checks(block: &schema::Block) -> Result<(), StructureError> {
    if block.checks.len() > MAX_CHECKS {
        return Err(StructureError::TooLarge);
    }
    for check in &block.checks {
        if check.queries.len() > MAX_QUERIES {
            return Err(StructureError::TooLarge);
        }
        check.queries.iter().try_for_each(check_query)?;
    }
    let queries = block.checks.iter().flat_map(|check| &check.queries);
    let terms = queries
        .flat_map(terms)
        .try_fold(0, |sum, term| Ok(sum + size(term)?))?;
    if terms > MAX_TERMS {
        return Err(StructureError::TooLarge);
    }
    Ok(())
}

fn check_query(query: &schema::Rule) -> Result<(), StructureError> {
    if !query.scope.is_empty() {
        return Err(StructureError::NotChecksOnly);
    }
    // The library writes a head without terms. For a variable there that the body does not bind, the engine would print
    // a line to standard output at each evaluation.
    if !query.head.terms.is_empty() {
        return Err(StructureError::TooLarge);
    }
    if query.body.len() > MAX_BODY || query.expressions.len() > MAX_BODY {
        return Err(StructureError::TooLarge);
    }
    for expression in &query.expressions {
        if expression.ops.len() > MAX_OPS {
            return Err(StructureError::TooLarge);
        }
        expression.ops.iter().try_for_each(check_op)?;
    }
    Ok(())
}

fn terms(query: &schema::Rule) -> impl Iterator<Item = &schema::Term> {
    let body = query.body.iter().flat_map(|predicate| &predicate.terms);
    let ops = query.expressions.iter().flat_map(|one| &one.ops);
    body.chain(ops.filter_map(|op| match &op.content {
        Some(op::Content::Value(term)) => Some(term),
        _ => None,
    }))
}

/// One, plus the members of a set or list. Deeper nesting is refused.
fn size(term: &schema::Term) -> Result<usize, StructureError> {
    use schema::term::Content;
    let members = match &term.content {
        Some(Content::Set(set)) => &set.set[..],
        Some(Content::Array(list)) => &list.array[..],
        _ if is_scalar(term) => &[],
        _ => return Err(StructureError::TooLarge),
    };
    if members.iter().all(is_scalar) {
        Ok(1 + members.len())
    } else {
        Err(StructureError::TooLarge)
    }
}

fn is_scalar(term: &schema::Term) -> bool {
    use schema::term::Content;
    !matches!(
        term.content,
        None | Some(Content::Set(_) | Content::Array(_) | Content::Map(_))
    )
}

fn check_op(op: &schema::Op) -> Result<(), StructureError> {
    match &op.content {
        None => Err(StructureError::Malformed),
        Some(op::Content::Closure(_)) => Err(StructureError::Closure),
        Some(op::Content::Value(_)) => Ok(()),
        Some(op::Content::Unary(unary)) if unary.kind == op_unary::Kind::Ffi as i32 => {
            Err(StructureError::Foreign)
        }
        Some(op::Content::Unary(_)) => Ok(()),
        Some(op::Content::Binary(binary)) if binary.kind == op_binary::Kind::Ffi as i32 => {
            Err(StructureError::Foreign)
        }
        Some(op::Content::Binary(binary)) if binary.kind == op_binary::Kind::Regex as i32 => {
            Err(StructureError::Regex)
        }
        Some(op::Content::Binary(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
