//! Cuts the rows of a bulk INSERT into few sizes, so that few statements are prepared.
//!
//! sqlx caches a prepared statement by its text, and each number of rows is another text. The server keeps all statements
//! that a connection has prepared, with thousands of parameters each, so large groups are written in a few fixed sizes.
//! (`QueryBuilder` has no such limit.)

/// Any number of rows up to this one is written by one statement.
const EXACT: usize = 64;
/// Larger groups are first cut into these. A statement holds at most 65,535 parameters, and ours have 12 per row.
const SIZES: [usize; 2] = [512, 128];

/// Cuts rows into slices, in order; one statement writes each slice.
pub(crate) fn slices<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let fits = |size: &usize| *size <= rest.len();
        let size = SIZES
            .into_iter()
            .chain([EXACT])
            .find(fits)
            .unwrap_or(rest.len());
        let (slice, after) = rest.split_at(size);
        rest = after;
        (size > 0).then_some(slice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_are_written_in_order_in_few_sizes() {
        let mut sizes = std::collections::BTreeSet::new();
        for len in 0..3_000 {
            let rows: Vec<usize> = (0..len).collect();
            let slices: Vec<&[usize]> = slices(&rows).collect();
            assert_eq!(slices.concat(), rows);
            sizes.extend(slices.iter().map(|slice| slice.len()));
        }
        assert_eq!(sizes.len(), EXACT + SIZES.len());
    }

    #[test]
    fn a_group_of_filings_is_one_statement() {
        assert_eq!(slices(&[0; 64]).count(), 1);
        assert_eq!(slices(&[0; 63]).count(), 1);
    }
}
