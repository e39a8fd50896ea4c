//! The runner of database work, on a real MySQL behind a proxy that breaks connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use shared::domain::ids::CustomerId;
use shared::runtime::db::{Database, DbArgs, DbError, DbFailure, Retry, TransactionError};
use shared::runtime::tasks::Backoff;
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::{Executor, MySqlConnection};
use tokio::sync::oneshot;

/// Long enough for any machine; each test that waits for it to pass has a shorter one of its own.
const DEADLINE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(500);

const AGAIN: Retry = Retry {
    tries: 3,
    backoff: Backoff {
        base: Duration::from_millis(1),
        cap: Duration::from_millis(5),
    },
};

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("database")]
    Database(#[from] DbError),
    #[error("refused")]
    Refused,
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

async fn connection_id(conn: &mut MySqlConnection) -> Result<u64, DbError> {
    let id = sqlx::query_scalar("SELECT CONNECTION_ID()");
    Ok(id.fetch_one(conn).await?)
}

async fn id_of(db: &Database) -> u64 {
    db.run("connection_id", DEADLINE, |conn| {
        Box::pin(connection_id(conn))
    })
    .await
    .expect("MySQL responds")
}

async fn set_total(conn: &mut MySqlConnection, total: i32) -> sqlx::Result<()> {
    sqlx::query("/* set_total */ UPDATE orders SET total = ? WHERE id = 1")
        .bind(total)
        .execute(conn)
        .await
        .map(|_| ())
}

async fn total(db: &TestDb) -> String {
    sqlx::query_scalar("SELECT CAST(total AS CHAR) FROM orders WHERE id = 1")
        .fetch_one(&db.pool)
        .await
        .expect("the order")
}

async fn with_an_order() -> TestDb {
    let db = TestDb::create().await;
    db.seed_orders(1, 2, CustomerId(42)).await;
    db
}

/// A database behind a proxy.
async fn behind_a_proxy(db: &TestDb) -> (MysqlProxy, Database) {
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let args = DbArgs {
        database_url: url.into(),
        database_max_connections: 1,
    };
    let options = args.options().expect("a URL");
    (proxy, Database::unmetered(options, 1))
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_success_and_an_error_about_data() {
    let db = with_an_order().await;
    let one = db.database(1);
    let first = id_of(&one).await;
    let duplicate: Result<(), DbError> = one
        .run("insert", DEADLINE, |conn| {
            Box::pin(async move {
                let insert = "INSERT INTO orders (id, customer_id, total, currency, status) \
                              VALUES (1, 1, 1, 'EUR', 'delivered')";
                sqlx::query(insert).execute(conn).await?;
                Ok(())
            })
        })
        .await;
    let failure = duplicate.expect_err("order 1 exists").failure();
    assert!(
        matches!(failure, DbFailure::Duplicate { .. }),
        "{failure:?}"
    );
    assert_eq!(id_of(&one).await, first);
}

#[tokio::test]
async fn a_connection_whose_state_is_not_known_is_closed() {
    let db = with_an_order().await;
    let one = db.database(1);
    let first = id_of(&one).await;
    let failed: Result<(), DbError> = one
        .run("bad_statement", DEADLINE, |conn| {
            Box::pin(async move {
                sqlx::query("SELECT no_such_column FROM orders")
                    .execute(conn)
                    .await?;
                Ok(())
            })
        })
        .await;
    assert_eq!(
        failed.expect_err("no such column").failure(),
        DbFailure::Statement
    );
    let second = id_of(&one).await;
    assert_ne!(second, first);
    let panicked: Result<(), DbError> = one
        .run("panic", DEADLINE, |_| {
            Box::pin(async { panic!("on purpose") })
        })
        .await;
    assert!(matches!(panicked, Err(DbError::Panicked)), "{panicked:?}");
    assert_ne!(id_of(&one).await, second, "and its permit is free again");
}

#[tokio::test]
async fn a_connection_that_takes_no_writes_is_left() {
    let db = with_an_order().await;
    let one = db.database(1);
    let first = id_of(&one).await;
    let refused: Result<(), DbError> = one
        .run("write", DEADLINE, |conn| {
            Box::pin(async move {
                conn.execute("START TRANSACTION READ ONLY").await?;
                Ok(set_total(conn, 9).await?)
            })
        })
        .await;
    let refused = refused.expect_err("the transaction is read-only");
    assert_eq!(refused.failure(), DbFailure::ReadOnly, "{refused:?}");
    assert_ne!(id_of(&one).await, first);
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_at_once() {
    let db = TestDb::create_empty().await;
    let url = db.url().replace("root@", "nobody:wrong@");
    let args = DbArgs {
        database_url: url.into(),
        database_max_connections: 2,
    };
    let nobody = Database::unmetered(args.options().expect("a URL"), 2);
    let try_it = async |set: &Database| {
        let tried = set.run("connection_id", DEADLINE, |conn| {
            Box::pin(connection_id(conn))
        });
        tried.await.expect_err("no such account")
    };
    let asked = try_it(&nobody).await;
    assert!(matches!(asked, DbError::Database(_)), "{asked:?}");
    // A set of its own has the same account.
    let again = try_it(&nobody.separate(1)).await;
    assert!(matches!(&again, DbError::LoginRefused(text) if text.contains("Access denied")));
    for error in [asked, again] {
        assert_eq!(error.failure(), DbFailure::Denied);
        assert!(error.is_transient());
    }
    tokio::time::timeout(DEADLINE, async {
        while matches!(try_it(&nobody).await, DbError::LoginRefused(_)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is asked again");
}

#[tokio::test]
async fn a_silent_server_costs_one_deadline_and_no_connection() {
    let db = with_an_order().await;
    let (proxy, one) = behind_a_proxy(&db).await;
    let first = id_of(&one).await;
    proxy.fall_silent();
    let silent = one.run("silent", SHORT, |conn| Box::pin(connection_id(conn)));
    let error = silent.await.expect_err("nothing responds");
    assert!(matches!(error, DbError::DeadlinePassed(_)), "{error:?}");
    proxy.come_back();
    assert_ne!(id_of(&one).await, first);
}

#[tokio::test]
async fn after_a_failover_the_next_unit_of_work_gets_a_new_connection() {
    let db = with_an_order().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let args = DbArgs {
        database_url: url.into(),
        database_max_connections: 8,
    };
    let eight = Database::unmetered(args.options().expect("a URL"), 8);
    let barrier = Arc::new(tokio::sync::Barrier::new(8));
    let fill = (0..8).map(|_| {
        let (eight, barrier) = (eight.clone(), Arc::clone(&barrier));
        tokio::spawn(async move {
            let wait = eight.run("fill", DEADLINE, |conn| {
                Box::pin(async move {
                    connection_id(conn).await?;
                    barrier.wait().await;
                    Ok::<_, DbError>(())
                })
            });
            wait.await.expect("MySQL responds");
        })
    });
    for filled in fill.collect::<Vec<_>>() {
        filled.await.expect("no panic");
    }
    proxy.go_away();
    proxy.come_back();
    // At most one idle connection is tried although all of them are dead and too fresh to be pinged.
    let first = eight.run("first", DEADLINE, |conn| Box::pin(connection_id(conn)));
    let _ = first.await;
    id_of(&eight).await;
}

#[tokio::test]
async fn work_goes_on_when_its_caller_gives_up() {
    let db = with_an_order().await;
    let one = db.database(1);
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let work = one.transaction::<(), Failed, _>("update", DEADLINE, Retry::NEVER, {
        let once = std::sync::Mutex::new(Some((begun, may_go_on)));
        move |conn| {
            let (begun, may_go_on) = once.lock().expect("not poisoned").take().expect("one run");
            Box::pin(async move {
                set_total(conn, 7).await?;
                begun.send(()).expect("awaited");
                may_go_on.await.expect("sent");
                Ok(())
            })
        }
    });
    let mut work = Box::pin(work);
    tokio::select! {
        _ = &mut work => panic!("it waits"),
        begun = has_begun => begun.expect("sent"),
    }
    drop(work);
    go_on.send(()).expect("the work still runs");
    // The only connection: free once the transaction has ended.
    id_of(&one).await;
    assert_eq!(total(&db).await, "7.0000");
}

#[tokio::test]
async fn a_share_is_a_bulkhead() {
    let db = with_an_order().await;
    let all = db.database(2).acquire_timeout(SHORT);
    let share = all.share(1);
    let (begun, has_begun) = oneshot::channel();
    let slow = tokio::spawn({
        let share = share.clone();
        async move {
            share
                .run::<(), DbError, _>("slow", DEADLINE, |_| {
                    Box::pin(async {
                        begun.send(()).expect("awaited");
                        std::future::pending().await
                    })
                })
                .await
        }
    });
    has_begun.await.expect("sent");
    let refused = share.run("second", DEADLINE, |conn| Box::pin(connection_id(conn)));
    let refused = refused.await.expect_err("the share is in use");
    assert!(matches!(refused, DbError::NoConnection(_)), "{refused:?}");
    id_of(&all).await;
    slow.abort();
}

#[tokio::test]
async fn a_lock_conflict_runs_the_whole_body_again() {
    let db = with_an_order().await;
    let mut holder = db.pool.begin().await.expect("begin");
    set_total(&mut holder, 1).await.expect("free");
    let holder = std::sync::Mutex::new(Some(holder));
    let (runs, free) = (Arc::new(AtomicU32::new(0)), Arc::new(holder));
    let counted = Arc::clone(&runs);
    let one = db.database(1);
    let done = one.transaction::<(), Failed, _>("update", DEADLINE, AGAIN, move |conn| {
        let (runs, free) = (Arc::clone(&counted), Arc::clone(&free));
        Box::pin(async move {
            if runs.fetch_add(1, Ordering::Relaxed) == 1 {
                let holder = free.lock().expect("not poisoned").take().expect("held");
                holder.rollback().await?;
            }
            let sql = "SELECT 1 FROM orders WHERE id = 1 FOR UPDATE NOWAIT";
            sqlx::query(sql).execute(&mut *conn).await?;
            set_total(conn, 9).await?;
            Ok(())
        })
    });
    done.await.expect("free in the second run");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(total(&db).await, "9.0000");
}

#[tokio::test]
async fn a_conflict_that_never_ends_is_returned_after_the_bound_and_holds_no_lock() {
    let db = with_an_order().await;
    let mut holder = db.pool.begin().await.expect("begin");
    sqlx::query("SELECT 1 FROM orders WHERE id = 2 FOR UPDATE")
        .execute(&mut *holder)
        .await
        .expect("free");
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let one = db.database(1);
    let conflict = one.transaction::<(), Failed, _>("update", DEADLINE, AGAIN, move |conn| {
        let runs = Arc::clone(&counted);
        Box::pin(async move {
            runs.fetch_add(1, Ordering::Relaxed);
            set_total(conn, 9).await?;
            let sql = "SELECT 1 FROM orders WHERE id = 2 FOR UPDATE NOWAIT";
            sqlx::query(sql).execute(conn).await?;
            Ok(())
        })
    });
    let conflict = conflict.await.expect_err("order 2 is held");
    assert!(
        matches!(conflict, TransactionError::Conflict(_)),
        "{conflict:?}"
    );
    assert_eq!(runs.load(Ordering::Relaxed), AGAIN.tries);
    let free = "SELECT 1 FROM orders WHERE id = 1 FOR UPDATE NOWAIT";
    sqlx::query(free)
        .execute(&db.pool)
        .await
        .expect("order 1 is free");
}

#[tokio::test]
async fn a_refusal_is_rolled_back_and_keeps_the_connection() {
    let db = with_an_order().await;
    let one = db.database(1);
    let first = id_of(&one).await;
    let refused = one.transaction::<(), _, _>("update", DEADLINE, AGAIN, |conn| {
        Box::pin(async move {
            set_total(conn, 9).await?;
            Err(Failed::Refused)
        })
    });
    let refused = refused.await.expect_err("it refuses");
    assert!(
        matches!(refused, TransactionError::Refused(Failed::Refused)),
        "{refused:?}"
    );
    assert_eq!(total(&db).await, "49.9000");
    assert_eq!(id_of(&one).await, first);
}

#[tokio::test]
async fn a_lost_commit_is_unknown_and_keeps_what_the_body_returned() {
    for (cut, written) in [
        (Cut::BeforeServer, "49.9000"),
        (Cut::BeforeAnswer, "9.0000"),
        (Cut::FrozenAfterServer, "9.0000"),
    ] {
        let db = with_an_order().await;
        let (proxy, one) = behind_a_proxy(&db).await;
        id_of(&one).await;
        proxy.arm("COMMIT", cut);
        let deadline = if cut == Cut::FrozenAfterServer {
            Duration::from_secs(3)
        } else {
            DEADLINE
        };
        let lost = one.transaction::<_, Failed, _>("update", deadline, AGAIN, |conn| {
            Box::pin(async move {
                set_total(conn, 9).await?;
                Ok("value")
            })
        });
        match lost.await {
            Err(TransactionError::CommitUnknown {
                value: "value",
                cause,
            }) => {
                assert_eq!(
                    cause.failure(),
                    DbFailure::ConnectionLost,
                    "{cut:?}: {cause}"
                );
            }
            other => panic!("{cut:?}: {other:?}"),
        }
        assert_eq!(total(&db).await, written, "{cut:?}");
        id_of(&one).await;
    }
}

#[tokio::test]
async fn before_commit_a_passed_deadline_is_a_rollback() {
    let db = with_an_order().await;
    let (proxy, one) = behind_a_proxy(&db).await;
    id_of(&one).await;
    proxy.arm("set_total", Cut::FrozenAfterServer);
    let late = one.transaction::<(), Failed, _>("update", SHORT, AGAIN, |conn| {
        Box::pin(async move { Ok(set_total(conn, 9).await?) })
    });
    let late = late.await.expect_err("no response");
    assert!(
        matches!(
            late,
            TransactionError::Refused(Failed::Database(DbError::DeadlinePassed(_)))
        ),
        "{late:?}"
    );
    // The server rolls back once it sees that the connection is closed.
    let began = Instant::now();
    while sqlx::query("SELECT 1 FROM orders WHERE id = 1 FOR UPDATE NOWAIT")
        .execute(&db.pool)
        .await
        .is_err()
    {
        assert!(began.elapsed() < DEADLINE, "the lock stays");
        tokio::task::yield_now().await;
    }
    assert_eq!(total(&db).await, "49.9000");
}

#[tokio::test]
async fn no_session_waits_for_a_metadata_lock_for_long() {
    let db = TestDb::create().await;
    let one = db.database(1);
    let seconds = one.run("variables", DEADLINE, |conn| {
        Box::pin(async move {
            let wait = sqlx::query_scalar("SELECT CAST(@@SESSION.lock_wait_timeout AS SIGNED)");
            Ok::<i64, DbError>(wait.fetch_one(conn).await?)
        })
    });
    assert_eq!(seconds.await.expect("MySQL responds"), 10);
}
