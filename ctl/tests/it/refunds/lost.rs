//! A connection that is lost at COMMIT: nobody knows what became of the decision, and the command says so.

use shared::test_support::mysql_proxy::{Cut, MysqlProxy};

use super::counter::{ADA, BOB, Counter};

/// The proxy goes on while the program is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_at_commit_is_told_as_unknown() {
    let mut counter = Counter::open().await;
    let returns = [counter.failed(1).await, counter.failed(2).await];
    let (proxy, url) = MysqlProxy::before(counter.db.url()).await;
    counter.url = url;
    for (id, cut) in returns
        .into_iter()
        .zip([Cut::BeforeAnswer, Cut::BeforeServer])
    {
        proxy.arm("COMMIT", cut);
        let name = id.to_string();
        let args = ["retry", &name, "--attempt", "1", "--reason", "x"];
        let ran = counter.act(2, ADA, &args);
        assert!(proxy.sprung(), "{cut:?}");
        for part in [
            "error[unclear]",
            "may have been carried out",
            &format!("refunds show {id}`"),
        ] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
        let done = cut == Cut::BeforeAnswer;
        assert_eq!(counter.states(id).await.len(), if done { 2 } else { 1 });
        // It names its attempt, so whoever runs it again makes no third one.
        counter.act(if done { 1 } else { 0 }, BOB, &args);
        assert_eq!(counter.states(id).await, ["declined", "claimed"]);
        counter.audited(id).await;
    }
}
