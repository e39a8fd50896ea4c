//! Many filings at once: one winner per order, and no filing waits for the lock of another order.

use std::time::{Duration, Instant};

use sqlx::Connection;

use crate::harness::{Answer, Api, CUSTOMER, count, until};

#[tokio::test]
async fn two_filings_of_one_order_give_one_201_and_one_409() {
    let api = Api::start().await;
    for order in 1..=20 {
        api.db.seed_orders(order, 1, CUSTOMER).await;
        let (a, b) = tokio::join!(api.file(order), api.file(order));
        let (won, lost) = if a.status == 201 { (a, b) } else { (b, a) };
        let problem = lost.problem(409, "already-open");
        assert_eq!(problem["return_id"], won.return_id());
    }
    api.stop().await;
}

/// Files orders `first..first+count` at once; returns the responses in order, and the slowest latency without `except`.
async fn file_all(api: &Api, first: i64, count: i64, except: &[i64]) -> (Vec<Answer>, Duration) {
    let mut tasks = Vec::new();
    for order in first..first + count {
        let (http, address, token) = (api.http.clone(), api.address, api.customer_token());
        let key = (order == first).then_some("taken");
        tasks.push(tokio::spawn(async move {
            let body = serde_json::json!({"order_id": order, "reason": "does not fit"});
            let sent = Instant::now();
            let answer = crate::harness::post_return(&http, address, &token, &body, key).await;
            (order, answer, sent.elapsed())
        }));
    }
    let (mut answers, mut slowest) = (Vec::new(), Duration::ZERO);
    for task in tasks {
        let (order, answer, took) = task.await.expect("no panic");
        if !except.contains(&order) {
            slowest = slowest.max(took);
        }
        answers.push(answer);
    }
    (answers, slowest)
}

#[tokio::test]
async fn a_locked_a_repeated_and_an_open_order_do_not_slow_the_other_61() {
    let api = Api::start_with(&["--filing-writers", "1"]).await;
    api.db.seed_orders(1, 400, CUSTOMER).await;
    // First open connections and prepare statements; then file the same group without conflicts.
    file_all(&api, 200, 64, &[]).await;
    let (clean, without) = file_all(&api, 300, 64, &[]).await;
    assert!(clean.iter().skip(1).all(|answer| answer.status == 201));

    let (duplicate, open, locked) = (1, 2, 3);
    // The second group used the key for its first order. Here the key is used with another body.
    assert_eq!(api.file(open).await.status, 201);
    let mut session = api.db.pool.acquire().await.expect("a session");
    let mut tx = session.begin().await.expect("begin");
    sqlx::query("SELECT id FROM orders WHERE id = ? FOR UPDATE")
        .bind(locked)
        .execute(&mut *tx)
        .await
        .expect("lock");
    let troubled = [duplicate, open, locked];
    let taken = api.metric("filing_group_size_sum").await;
    let filing = file_all(&api, 1, 64, &troubled);
    let release = async {
        // The other 61 are written while the order is still locked.
        let filed = "SELECT COUNT(*) FROM returns WHERE order_id BETWEEN 4 AND 64";
        until(
            "61 strangers are filed",
            Duration::from_secs(10),
            || async { (count(&api.db, filed).await >= 61).then_some(()) },
        )
        .await;
        only_one_was_retried(&api, taken).await;
        tx.rollback().await.expect("rollback");
    };
    let ((answers, with), ()) = tokio::join!(filing, release);
    answers[0].problem(422, "idempotency-key-reused");
    answers[1].problem(409, "already-open");
    assert_eq!(answers[2].status, 201, "filed when its lock was released");
    assert!(answers[3..].iter().all(|answer| answer.status == 201));
    // For docs/BENCHMARKS.md.
    eprintln!(
        "slowest of 61: {with:?} with a locked, a repeated and an open order, {without:?} without"
    );
    drop(session);
    api.stop().await;
}

/// Only the locked one of the 64 was retried: after each lock wait of 5 s.
async fn only_one_was_retried(api: &Api, before: f64) {
    let taken = api.metric("filing_group_size_sum").await - before;
    assert!(taken <= 64.0 + 3.0, "64 were taken {taken} times");
}

#[tokio::test]
async fn a_locked_order_gets_503_when_the_lock_stays() {
    let api = Api::start_with(&["--api-request-timeout-secs", "2"]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let mut session = api.db.pool.acquire().await.expect("a session");
    let mut tx = session.begin().await.expect("begin");
    sqlx::query("SELECT id FROM orders WHERE id = 1 FOR UPDATE")
        .execute(&mut *tx)
        .await
        .expect("lock");
    // The request's own deadline ends it while the lock is held. (A lock wait that times out is never reported as
    // `outcome-unknown`.)
    api.file(1).await.problem(503, "outcome-unknown");
    tx.rollback().await.expect("rollback");
    drop(session);
    api.stop().await;
}

#[tokio::test]
async fn p12_a_full_queue_gets_503_at_once() {
    let api = Api::start_with(&[
        "--filing-queue",
        "1",
        "--filing-writers",
        "1",
        "--filing-batch-max",
        "1",
    ])
    .await;
    api.db.seed_orders(1, 200, CUSTOMER).await;
    let (answers, _) = file_all(&api, 1, 200, &[]).await;
    let busy: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status != 201)
        .collect();
    assert!(!busy.is_empty(), "200 at once through a queue of one");
    for answer in &busy {
        answer.problem(503, "busy");
    }
    let filed = count(&api.db, "SELECT COUNT(*) FROM returns").await;
    assert_eq!(
        filed,
        200 - i64::try_from(busy.len()).expect("small"),
        "a refused filing writes nothing"
    );
    api.stop().await;
}

#[tokio::test]
async fn another_sessions_uncommitted_return_delays_only_its_own_order() {
    let api = Api::start().await;
    api.db.seed_orders(1, 70, CUSTOMER).await;
    // As if another api had frozen between INSERT and COMMIT.
    let mut session = api.db.pool.acquire().await.expect("a session");
    let mut tx = session.begin().await.expect("begin");
    sqlx::query("SELECT id FROM orders WHERE id = 1 FOR UPDATE")
        .execute(&mut *tx)
        .await
        .expect("lock");
    insert_return(&mut tx, 1).await;
    let taken = api.metric("filing_group_size_sum").await;
    let (answers, _) = {
        let filing = file_all(&api, 1, 64, &[]);
        let release = async {
            let filed = "SELECT COUNT(*) FROM returns WHERE order_id BETWEEN 2 AND 64";
            until(
                "63 strangers are filed",
                Duration::from_secs(10),
                || async { (count(&api.db, filed).await >= 63).then_some(()) },
            )
            .await;
            only_one_was_retried(&api, taken).await;
            tx.rollback().await.expect("rollback");
        };
        tokio::join!(filing, release).0
    };
    assert!(answers.iter().all(|answer| answer.status == 201));
    drop(session);
    api.stop().await;
}

#[tokio::test]
async fn a_duplicate_is_isolated_and_the_rest_of_its_group_goes_on() {
    let api = Api::start_with(&["--filing-writers", "1"]).await;
    api.db.seed_orders(1, 70, CUSTOMER).await;
    // Another api's uncommitted response under the key of the first order. No read sees it; the group meets it at its
    // insert. (A return of the same order would be skipped with its order, because the foreign key locks the order.)
    let mut session = api.db.pool.acquire().await.expect("a session");
    let mut tx = session.begin().await.expect("begin");
    sqlx::query(
        "INSERT INTO idempotency (actor, idem_key, fingerprint, status, body, created_at) \
         VALUES ('customer:42', 'taken', REPEAT('x', 32), 201, '{}', UTC_TIMESTAMP(6))",
    )
    .execute(&mut *tx)
    .await
    .expect("insert");
    let filing = file_all(&api, 1, 64, &[]);
    let commit = async {
        let waiting = "SELECT COUNT(*) FROM performance_schema.data_lock_waits w \
                       JOIN performance_schema.data_locks l ON l.engine_lock_id = w.requesting_engine_lock_id \
                       WHERE l.object_schema = DATABASE() AND l.index_name = 'PRIMARY'";
        until(
            "a session waits for the duplicate",
            Duration::from_secs(4),
            || async { (count(&api.db, waiting).await > 0).then_some(()) },
        )
        .await;
        tx.commit().await.expect("commit");
    };
    let ((answers, _), ()) = tokio::join!(filing, commit);
    for (order, answer) in (1..).zip(&answers) {
        if order == 1 {
            answer.problem(422, "idempotency-key-reused");
        } else {
            assert_eq!(answer.status, 201, "order {order}");
        }
    }
    drop(session);
    let metrics = api
        .http
        .get(format!("http://{}/metrics", api.ops))
        .send()
        .await
        .expect("a response");
    let metrics = metrics.text().await.expect("text");
    assert!(
        metrics.contains("filing_group_failures_total 1\n"),
        "{metrics}"
    );
    api.stop().await;
}

#[tokio::test]
async fn an_order_that_cannot_be_paid_is_refused_alone() {
    let api = Api::start().await;
    api.db.seed_orders(1, 64, CUSTOMER).await;
    sqlx::query("UPDATE orders SET currency = 'eur' WHERE id = 9")
        .execute(&api.db.pool)
        .await
        .expect("update");
    let (answers, _) = file_all(&api, 1, 64, &[]).await;
    for (order, answer) in (1..).zip(&answers) {
        if order == 9 {
            answer.problem(422, "not-eligible");
        } else {
            assert_eq!(answer.status, 201, "order {order}");
        }
    }
    api.stop().await;
}

async fn insert_return(conn: &mut sqlx::MySqlConnection, order: i64) {
    sqlx::query(
        "INSERT INTO returns (order_id, customer_id, reason, version, policy_version, refund_amount, currency, created_at, updated_at) \
         VALUES (?, 42, 'x', 1, 'x', 1, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    )
    .bind(order)
    .execute(conn)
    .await
    .expect("insert");
}
