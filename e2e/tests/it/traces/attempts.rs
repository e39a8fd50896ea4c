//! Several attempts to pay one return.

use e2e::operator::{as_admin, retry_first_attempt};
use e2e::provider;
use e2e::until;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use shared::domain::ids::ReturnId;

use super::{DEADLINE, Traced};

/// Short pauses between the calls of the provider.
const QUICK: [(&str, &str); 3] = [
    ("LOOKUP_BACKOFF_MS", "100"),
    ("LOOKUP_BACKOFF_MAX_MS", "1000"),
    ("RECONCILE_INTERVAL_MS", "200"),
];

impl Traced {
    /// Another attempt, as an operator requests it.
    async fn retry(&self, id: i64) -> anyhow::Result<()> {
        let admin = as_admin(&self.system.env, "7").await?;
        retry_first_attempt(&admin, id).await
    }

    async fn wait_for_failed_refund(&self) -> anyhow::Result<()> {
        until("declined", DEADLINE, async || {
            let failed = "SELECT COUNT(*) FROM returns WHERE status = 'refund_failed'";
            Ok(self.system.count(failed).await? == 1)
        })
        .await
    }
}

#[tokio::test]
async fn a_retry_begins_a_trace_that_leads_to_the_old_one() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let api = traced.start("returns-api").await?;
    let (id, first) = traced.file(&api, 1).await?;
    let key = provider::key(&traced.system, ReturnId(id), 1).await?;
    traced.provider.script(&key, &["decline"], &[]).await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    traced.wait_for_failed_refund().await?;
    let failed = traced.span(&first, "refund").await?;
    traced.retry(id).await?;
    traced.system.settled(DEADLINE).await?;

    let second = traced.trace_id_of(id, 5).await?;
    assert_ne!(first, second);
    let action = traced.span(&second, "refund.retry").await?;
    assert_eq!(
        (action.parent.as_ref(), action.kind),
        (None, SpanKind::Internal)
    );
    let refund = traced.span(&second, "refund").await?;
    assert_eq!(refund.parent.as_ref(), Some(&action.span_id));
    assert_eq!(refund.attribute("refund.attempt")?, "2");
    let to_first = (failed.trace_id.clone(), failed.span_id.clone());
    for span in [&action, &refund] {
        assert!(span.links.contains(&to_first), "{span:?}");
    }
    traced.no_orphans()
}

/// Its events come between the retry and the take-over. They are of the second attempt itself.
#[tokio::test]
async fn a_second_attempt_that_is_taken_over_leads_to_the_end_of_the_first() -> anyhow::Result<()> {
    let mut traced = Traced::create(1).await?;
    traced.set(&QUICK);
    let api = traced.start("returns-api").await?;
    let (id, first) = traced.file(&api, 1).await?;
    let key = provider::key(&traced.system, ReturnId(id), 1).await?;
    traced.provider.script(&key, &["decline"], &[]).await?;
    let key = provider::key(&traced.system, ReturnId(id), 2).await?;
    traced.provider.script(&key, &["reset"], &[]).await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    traced.wait_for_failed_refund().await?;
    let failed = traced.span(&first, "refund").await?;
    traced.retry(id).await?;
    traced.system.settled(DEADLINE).await?;
    let unknown = "SELECT COUNT(*) FROM return_events WHERE event_type = 'refund.outcome_unknown'";
    assert_eq!(traced.system.count(unknown).await?, 1);
    let second = traced.trace_id_of(id, 5).await?;
    // The first call of the attempt, and after its look-up the second one.
    let tries = traced.spans(&second, "refund", 2).await?;
    let to_first = (failed.trace_id.clone(), failed.span_id.clone());
    for refund in &tries {
        assert!(refund.links.contains(&to_first), "{refund:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_payment_that_is_sent_again_says_how_often_it_was() -> anyhow::Result<()> {
    let mut traced = Traced::create(1).await?;
    traced.set(&QUICK);
    let api = traced.start("returns-api").await?;
    let (id, trace_id) = traced.file(&api, 1).await?;
    let key = provider::key(&traced.system, ReturnId(id), 1).await?;
    // Nothing is paid, and the consumer cannot know that.
    let faults = ["server-error", "server-error"];
    traced.provider.script(&key, &faults, &[]).await?;
    let _relay = traced.start("outbox-relay").await?;
    let _consumer = traced.start("refund-consumer").await?;
    traced.system.settled(DEADLINE).await?;
    let mut sent = traced.spans(&trace_id, "POST", 3).await?;
    sent.sort_by_key(|span| span.began);
    let name = "http.request.resend_count";
    let counts: Vec<_> = sent.iter().map(|span| span.attributes.get(name)).collect();
    let [one, two] = ["1".to_owned(), "2".to_owned()];
    assert_eq!(counts, [None, Some(&one), Some(&two)]);
    for look_up in traced.spans(&trace_id, "GET", 2).await? {
        assert_eq!(look_up.attributes.get(name), None, "nothing was sent again");
    }
    Ok(())
}
