//! A slow or silent query leaves the other connections free.

use std::time::Duration;

use shared::runtime::http_server::Drain;
use shared::test_support::keep_when_silent;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::harness::{Answer, Api, CUSTOMER, check_rows, count, db_with_a_return, until};
use crate::wire::DEADLINE;

/// An api that reaches MySQL through a proxy, with one return.
async fn api_behind_proxy(flags: &[&str]) -> (Api, MysqlProxy, i64) {
    let (db, id) = db_with_a_return().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let api = Api::start_on(db, &url, flags).await;
    (api, proxy, id)
}

#[tokio::test]
async fn p12_a_read_without_a_response_gives_up_its_connection() {
    let flags = [
        "--database-max-connections",
        "2",
        "--api-request-timeout-secs",
        "3",
    ];
    let (api, proxy, id) = api_behind_proxy(&flags).await;
    let (path, token) = (format!("/returns/{id}"), api.customer_token());
    for _ in 0..2 {
        proxy.arm("/* get_return */", Cut::FrozenAfterServer);
        api.get(&path, &token).await.problem(503, "unavailable");
        assert!(proxy.sprung());
    }
    served(&api, &path).await;
    api.stop().await;
}

async fn served(api: &Api, path: &str) {
    until("it is served again", DEADLINE, || async {
        let answer = api.get(path, &api.customer_token()).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn p12_decisions_about_a_locked_return_leave_connections_to_others() {
    let api = Api::start().await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    let (locked, other) = (api.file(1).await.return_id(), api.file(2).await.return_id());
    let mut tx = api.db.pool.begin().await.expect("begin");
    sqlx::query("SELECT id FROM returns WHERE id = ? FOR UPDATE")
        .bind(locked)
        .fetch_one(&mut *tx)
        .await
        .expect("locked");
    let mut deciding = JoinSet::new();
    for _ in 0..20 {
        let cancel = api
            .http
            .post(api.url(&format!("/returns/{locked}/cancel")))
            .bearer_auth(api.customer_token())
            .header("if-match", "*");
        deciding.spawn(async move { cancel.send().await.expect("a response").status().as_u16() });
    }
    // The first response is of a request without a permit: from here on all permits are taken.
    assert_eq!(
        deciding.join_next().await.expect("20").expect("no panic"),
        503
    );
    for _ in 0..20 {
        let path = format!("/returns/{other}");
        assert_eq!(api.get(&path, &api.customer_token()).await.status, 200);
    }
    tx.rollback().await.expect("rollback");
    let answers = deciding.join_all().await;
    assert!(
        answers.contains(&200),
        "one of them cancels it: {answers:?}"
    );
    api.stop().await;
}

#[tokio::test]
async fn p12_audit_reads_leave_connections_to_others_and_no_waiting_tasks() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let mut locker = api.db.pool.acquire().await.expect("a connection");
    keep_when_silent(&mut locker).await;
    sqlx::raw_sql("LOCK TABLES return_events WRITE")
        .execute(&mut *locker)
        .await
        .expect("locked");
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let mut reading = JoinSet::new();
    for _ in 0..200 {
        let page = api
            .http
            .get(api.url("/events"))
            .bearer_auth(api.admin_token())
            .timeout(Duration::from_secs(5));
        reading.spawn(page.send());
    }
    let path = format!("/returns/{id}");
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
                   AND state LIKE 'Waiting for table metadata lock%'";
    until("four of them read", DEADLINE, || async {
        (count(&api.db, waiting).await >= 4).then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(api.get(&path, &api.customer_token()).await.status, 200);
    }
    let answers = reading.join_all().await;
    assert!(
        answers.iter().all(Result::is_err),
        "no request got a response"
    );
    // Tasks of the four requests with a permit, and of connections that are kept alive.
    until("few tasks are left", DEADLINE, || async {
        (alive() <= before + 100).then_some(())
    })
    .await;
    sqlx::raw_sql("UNLOCK TABLES")
        .execute(&mut *locker)
        .await
        .expect("unlocked");
    drop(locker);
    assert_eq!(api.get("/events", &api.admin_token()).await.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn p11_a_silent_connection_does_not_double_the_drain() {
    let flags = [
        "--api-request-timeout-secs",
        "5",
        "--api-body-timeout-secs",
        "1",
        "--api-drain-secs",
        "8",
    ];
    let (api, proxy, _) = api_behind_proxy(&flags).await;
    proxy.arm("/* list_events */", Cut::FrozenAfterServer);
    let page = api
        .http
        .get(api.url("/events"))
        .bearer_auth(api.admin_token());
    let reading = tokio::spawn(page.send());
    until("it is read", DEADLINE, || async {
        proxy.sprung().then_some(())
    })
    .await;
    // The server waits seven of its eight seconds for the response; the connection is silent for longer.
    let asked = Instant::now();
    let (db, drain) = api.drain().await;
    let took = asked.elapsed();
    check_rows(&db).await;
    assert_eq!(drain, Drain::Complete);
    assert!(took < Duration::from_secs(13), "{took:?}");
    let answer = reading.await.expect("no panic").expect("a response");
    assert_eq!(answer.status(), 503);
}

#[tokio::test]
async fn a_decision_whose_commit_gets_no_response_may_be_written() {
    let flags = ["--api-request-timeout-secs", "3"];
    let (api, proxy, id) = api_behind_proxy(&flags).await;
    proxy.arm("COMMIT", Cut::FrozenAfterServer);
    let cancel = || {
        let request = api.http.post(api.url(&format!("/returns/{id}/cancel")));
        let request = request.bearer_auth(api.customer_token());
        request.header("if-match", r#""1""#).send()
    };
    let answer = Answer::read(cancel().await.expect("a response")).await;
    answer.problem(503, "outcome-unknown");
    assert!(proxy.sprung());
    let again = Answer::read(cancel().await.expect("a response")).await;
    again.problem(412, "precondition-failed");
    api.stop().await;
}

/// A connection that was checked a second ago is checked before its next use.
#[tokio::test]
async fn p12_an_idle_connection_that_falls_silent_is_replaced() {
    let (api, proxy, id) = api_behind_proxy(&["--database-max-connections", "1"]).await;
    let (path, token) = (format!("/returns/{id}"), api.customer_token());
    proxy.arm(MysqlProxy::CHECK, Cut::FrozenAfterServer);
    let again = async {
        while !proxy.sprung() {
            api.get(&path, &token).await;
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        served(&api, &path).await;
    };
    timeout(DEADLINE, again).await.expect("served again");
    api.stop().await;
}
