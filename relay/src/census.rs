//! The gauges of the whole outbox, also of shards that nobody owns, read once a second on a connection of its own.

use std::time::{Duration, Instant};

use shared::domain::ids::Shard;
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::session::Session;
use crate::store::Range;
use crate::store::census::{self as store, Oldest};

const EVERY: Duration = Duration::from_secs(1);
/// How often the scan begins at 0 and not at the row that was the oldest last time. A row that commits below that
/// one shows this much later in the gauge (the pump finds it sooner).
const FROM_ZERO_EVERY: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(5);

/// Keeps the gauges until `stop`. While MySQL does not answer the age goes on growing: unknown is not good.
pub(crate) async fn watch(options: MySqlConnectOptions, metrics: Metrics, stop: CancellationToken) {
    let mut session = Session::new(options, DEADLINE);
    let mut from = all_from_zero();
    let mut from_zero = Instant::now();
    let (mut age, mut known) = (Duration::ZERO, Instant::now());
    loop {
        if from_zero.elapsed() >= FROM_ZERO_EVERY {
            (from, from_zero) = (all_from_zero(), Instant::now());
        }
        let ranges = from.clone();
        let census = session
            .run(move |mut conn| async move {
                let census = take(&mut conn, &ranges).await;
                (conn, census)
            })
            .await;
        match census {
            Ok((oldest, parked)) => {
                age = oldest.iter().map(|row| row.age).max().unwrap_or_default();
                known = Instant::now();
                oldest.iter().for_each(|row| begin_at(&mut from, row));
                metrics.parked_rows.set(parked);
            }
            Err(error) => metrics.database_error("census", &error),
        }
        let unknown_for = known.elapsed();
        let grown = if unknown_for > EVERY {
            unknown_for
        } else {
            Duration::ZERO
        };
        metrics.oldest_age_seconds.set((age + grown).as_secs_f64());
        let pause = tokio::time::sleep(EVERY);
        if stop.run_until_cancelled(pause).await.is_none() {
            break;
        }
    }
    session.close().await;
}

async fn take(conn: &mut MySqlConnection, from: &[Range]) -> sqlx::Result<(Vec<Oldest>, i64)> {
    let oldest = store::read_oldest(conn, from).await?;
    Ok((oldest, store::count_parked(conn).await?))
}

fn all_from_zero() -> Vec<Range> {
    Shard::all()
        .map(|shard| Range { shard, after: 0 })
        .collect()
}

fn begin_at(from: &mut [Range], oldest: &Oldest) {
    if let Some(range) = from.iter_mut().find(|range| range.shard == oldest.shard) {
        range.after = oldest.id - 1;
    }
}
