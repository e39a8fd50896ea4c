//! What a Biscuit may consist of, judged on its bytes before any signature is checked and any Datalog is run.
//!
//! Whoever holds an unsealed token may append blocks, and the engine's limits are looked at between steps only: a
//! check that joins 60 facts four times in a token of 1.7 kB took 12 s of one core on two cores of an EPYC, whatever
//! the limits. So appended blocks hold small checks and nothing else.

use biscuit_auth::format::schema::{self, op, op_binary, op_unary, public_key};
use prost::Message;

/// The longest Biscuit that is looked at, in bytes.
pub const BISCUIT_MAX: usize = 3072;
/// The issuer's block among them.
const MAX_BLOCKS: usize = 4;
const MAX_CHECKS: usize = 8;
const MAX_QUERIES: usize = 4;
/// Of predicates, and of expressions, in a query.
const MAX_BODY: usize = 4;
const MAX_OPS: usize = 32;
/// In a block, the members of sets included. Each takes 50 to 200 bytes and its share of time while the token is
/// remembered: 3 kB of nested lists were 80 kB in memory.
const MAX_TERMS: usize = 64;

/// Why a Biscuit is not even looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unvetted {
    #[error("longer than {BISCUIT_MAX} bytes")]
    TooLong,
    #[error("no Biscuit")]
    Malformed,
    #[error("more than {MAX_BLOCKS} blocks")]
    TooManyBlocks,
    #[error("a block of a third party")]
    ThirdParty,
    #[error("a key that is not Ed25519")]
    KeyKind,
    #[error("a rule in the issuer's block")]
    Rule,
    #[error("an appended block with more than checks")]
    NotChecksOnly,
    #[error("a check that is too large")]
    TooLarge,
    #[error("a check with a closure")]
    Closure,
    #[error("a check with a regular expression")]
    Regex,
    #[error("a check that calls a foreign function")]
    Foreign,
}

/// Whether these bytes may be read as a Biscuit: about 1 us, without recursion of ours.
///
/// # Errors
/// Why not.
pub fn vet(raw: &[u8]) -> Result<(), Unvetted> {
    if raw.len() > BISCUIT_MAX {
        return Err(Unvetted::TooLong);
    }
    let token = schema::Biscuit::decode(raw).map_err(|_| Unvetted::Malformed)?;
    if token.blocks.len() >= MAX_BLOCKS {
        return Err(Unvetted::TooManyBlocks);
    }
    if token.authority.external_signature.is_some() {
        return Err(Unvetted::ThirdParty);
    }
    vet_key(&token.authority)?;
    vet_authority(&token.authority)?;
    token.blocks.iter().try_for_each(vet_appended)
}

/// The key that signs the next block. Holders choose it: one of P-256 is several times as dear to check, and its
/// signatures, which name the block in the list of revoked tokens, have two spellings.
fn vet_key(signed: &schema::SignedBlock) -> Result<(), Unvetted> {
    if signed.next_key.algorithm == public_key::Algorithm::Ed25519 as i32 {
        Ok(())
    } else {
        Err(Unvetted::KeyKind)
    }
}

/// Who has signed it is not known yet. Keys in it, for blocks of third parties, would be read before: 65 of P-256 took
/// 0.7 ms.
fn vet_authority(signed: &schema::SignedBlock) -> Result<(), Unvetted> {
    let block = schema::Block::decode(&signed.block[..]).map_err(|_| Unvetted::Malformed)?;
    if !block.public_keys.is_empty() || !block.scope.is_empty() {
        return Err(Unvetted::ThirdParty);
    }
    // What it says is read as it stands, and not derived.
    if !block.rules.is_empty() {
        return Err(Unvetted::Rule);
    }
    vet_checks(&block)
}

fn vet_appended(signed: &schema::SignedBlock) -> Result<(), Unvetted> {
    if signed.external_signature.is_some() {
        return Err(Unvetted::ThirdParty);
    }
    vet_key(signed)?;
    let block = schema::Block::decode(&signed.block[..]).map_err(|_| Unvetted::Malformed)?;
    let checks_only = block.facts.is_empty()
        && block.rules.is_empty()
        && block.scope.is_empty()
        && block.public_keys.is_empty();
    if !checks_only {
        return Err(Unvetted::NotChecksOnly);
    }
    vet_checks(&block)
}

fn vet_checks(block: &schema::Block) -> Result<(), Unvetted> {
    if block.checks.len() > MAX_CHECKS {
        return Err(Unvetted::TooLarge);
    }
    for check in &block.checks {
        if check.queries.len() > MAX_QUERIES {
            return Err(Unvetted::TooLarge);
        }
        check.queries.iter().try_for_each(vet_query)?;
    }
    let queries = block.checks.iter().flat_map(|check| &check.queries);
    let terms = queries
        .flat_map(terms)
        .try_fold(0, |sum, term| Ok(sum + size(term)?))?;
    if terms > MAX_TERMS {
        return Err(Unvetted::TooLarge);
    }
    Ok(())
}

fn vet_query(query: &schema::Rule) -> Result<(), Unvetted> {
    if !query.scope.is_empty() {
        return Err(Unvetted::NotChecksOnly);
    }
    // Honest ones have a head without terms. A variable there that the body does not bind would be complained of on
    // standard output, each time.
    if !query.head.terms.is_empty() {
        return Err(Unvetted::TooLarge);
    }
    if query.body.len() > MAX_BODY || query.expressions.len() > MAX_BODY {
        return Err(Unvetted::TooLarge);
    }
    for expression in &query.expressions {
        if expression.ops.len() > MAX_OPS {
            return Err(Unvetted::TooLarge);
        }
        expression.ops.iter().try_for_each(vet_op)?;
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

/// One, or as many as a set or list has members. Nothing is nested deeper.
fn size(term: &schema::Term) -> Result<usize, Unvetted> {
    use schema::term::Content;
    let members = match &term.content {
        Some(Content::Set(set)) => &set.set[..],
        Some(Content::Array(list)) => &list.array[..],
        _ if is_scalar(term) => &[],
        _ => return Err(Unvetted::TooLarge),
    };
    if members.iter().all(is_scalar) {
        Ok(1 + members.len())
    } else {
        Err(Unvetted::TooLarge)
    }
}

fn is_scalar(term: &schema::Term) -> bool {
    use schema::term::Content;
    !matches!(
        term.content,
        None | Some(Content::Set(_) | Content::Array(_) | Content::Map(_))
    )
}

fn vet_op(op: &schema::Op) -> Result<(), Unvetted> {
    match &op.content {
        None => Err(Unvetted::Malformed),
        Some(op::Content::Closure(_)) => Err(Unvetted::Closure),
        Some(op::Content::Value(_)) => Ok(()),
        Some(op::Content::Unary(unary)) if unary.kind == op_unary::Kind::Ffi as i32 => {
            Err(Unvetted::Foreign)
        }
        Some(op::Content::Unary(_)) => Ok(()),
        Some(op::Content::Binary(binary)) if binary.kind == op_binary::Kind::Ffi as i32 => {
            Err(Unvetted::Foreign)
        }
        Some(op::Content::Binary(binary)) if binary.kind == op_binary::Kind::Regex as i32 => {
            Err(Unvetted::Regex)
        }
        Some(op::Content::Binary(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
