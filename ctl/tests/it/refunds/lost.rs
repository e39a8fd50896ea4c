//! A connection that is lost at COMMIT: the outcome of the decision is unknown, and the command says so.

use shared::test_support::mysql_proxy::{Cut, MysqlProxy};

use super::fixture::{ADA, BOB, Fixture};

/// The proxy goes on while the program is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_lost_at_commit_is_reported_as_unclear() {
    let mut fixture = Fixture::new().await;
    let returns = [fixture.failed(1).await, fixture.failed(2).await];
    let (proxy, url) = MysqlProxy::before(fixture.db.url()).await;
    fixture.url = url;
    for (id, cut) in returns
        .into_iter()
        .zip([Cut::BeforeAnswer, Cut::BeforeServer])
    {
        proxy.arm("COMMIT", cut);
        let name = id.to_string();
        let args = ["retry", &name, "--attempt", "1", "--reason", "x"];
        let ran = fixture.act(2, ADA, &args);
        assert!(proxy.sprung(), "{cut:?}");
        for part in [
            "error[unclear]",
            "may have been carried out",
            &format!("refunds show {id}`"),
        ] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
        let done = cut == Cut::BeforeAnswer;
        assert_eq!(fixture.states(id).await.len(), if done { 2 } else { 1 });
        // The command names its attempt, so a second run makes no third one.
        fixture.act(if done { 1 } else { 0 }, BOB, &args);
        assert_eq!(fixture.states(id).await, ["declined", "claimed"]);
        fixture.audited(id).await;
    }
}
