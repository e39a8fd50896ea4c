//! Cuts the rows of a bulk INSERT into few sizes, so that few statements are prepared.
//!
//! sqlx caches a prepared statement by its text, and each number of rows is another text. The server keeps all statements
//! that a connection has prepared, with thousands of parameters each, and refuses to prepare more than
//! `max_prepared_stmt_count` for all its clients together (16,382 by default).

/// Each is at most a half larger than the next, so that a group of filings, which are at most 64, takes at most three
/// statements a table. Powers of two would take up to six round trips, and save five texts. A statement holds at most
/// 65,535 parameters, and ours have 12 per row.
const SIZES: [usize; 14] = [512, 128, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1];

/// Cuts rows into slices, in order; one statement writes each slice.
pub fn slices<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rest.len())?;
        let (slice, after) = rest.split_at(size);
        rest = after;
        Some(slice)
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
        assert_eq!(sizes.len(), SIZES.len());
    }

    #[test]
    fn a_group_of_filings_is_at_most_three_statements() {
        let most = (1..=64).map(|len| slices(&vec![0; len]).count()).max();
        assert_eq!(most, Some(3));
        assert_eq!(slices(&[0; 64]).count(), 1);
    }
}
