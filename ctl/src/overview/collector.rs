//! Reads the sources, all at the same time, each within [`WITHIN`].

use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Url};
use shared::domain::refund::OVERDUE;
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::{
    Alert, Consumers, Outbox, Overview, Part, Program, Rates, Scrape, SourceArgs, WITHIN, Work,
    alerts, errors,
};
use crate::consumer_group::GroupReader;
use crate::error::CtlError;
use crate::http;
use crate::session::Session;
use crate::store::dead_letters::oldest_dead_letter;
use crate::store::findings::findings;
use crate::store::outbox::parked_totals;
use crate::store::queues::{open_attempts, open_returns};
use crate::store::shards::{ShardCounts, measured, relays, shard_counts, shard_heads};
use crate::text::rfc3339;

/// The outbox, its counts, and the work.
const CONNECTIONS: u32 = 3;
/// The metrics of a program of ours and the rules of a Prometheus are shorter.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The sources, and what was read from them last.
pub(crate) struct Collector {
    args: SourceArgs,
    session: Option<Session>,
    group: Option<GroupReader>,
    client: Client,
    last: Option<Overview>,
}

impl Collector {
    /// It connects when first used.
    pub(crate) fn new(args: SourceArgs) -> Result<Self, CtlError> {
        args.check()?;
        Ok(Self {
            args,
            session: None,
            group: None,
            client: http::client()?,
            last: None,
        })
    }

    pub(crate) async fn collect(&mut self) -> Overview {
        let deadline = Instant::now() + WITHIN;
        let taken_at = rfc3339(OffsetDateTime::now_utc());
        let (mysql, consumers, programs, alerts) = tokio::join!(
            mysql(&mut self.session, &self.args, deadline),
            consumers(&mut self.group, &self.args, deadline),
            programs(&self.client, &self.args.ops, deadline),
            rules(&self.client, self.args.prometheus_url.as_ref(), deadline),
        );
        let (outbox, outbox_counts, work) = mysql;
        let read = Overview {
            exit_code: 0,
            taken_at,
            waiting: Vec::new(),
            outbox,
            outbox_counts,
            work,
            consumers,
            programs,
            alerts,
            rates: Rates::default(),
            errors: Vec::new(),
        };
        let overview = completed(read, self.last.take(), &self.args);
        self.last = Some(overview.clone());
        overview
    }
}

/// With the older values of parts that could not be read, and with what follows from the parts.
fn completed(read: Overview, last: Option<Overview>, args: &SourceArgs) -> Overview {
    let mut overview = match last {
        None => read,
        Some(last) => {
            let rates = Rates::between(&last.programs, &read.programs);
            let errors = errors::seen(&last.programs, &read.programs, last.errors);
            let mut older = last.programs.into_iter();
            Overview {
                outbox: read.outbox.or_older(Some(last.outbox)),
                outbox_counts: read.outbox_counts.or_older(Some(last.outbox_counts)),
                work: read.work.or_older(Some(last.work)),
                consumers: read.consumers.or_older(Some(last.consumers)),
                programs: read
                    .programs
                    .into_iter()
                    .map(|program| Program {
                        metrics: program
                            .metrics
                            .or_older(older.next().map(|older| older.metrics)),
                        ..program
                    })
                    .collect(),
                alerts: read.alerts.map(|alerts| alerts.or_older(last.alerts)),
                rates,
                errors,
                ..read
            }
        }
    };
    overview.find_waiting(&args.topics);
    overview
}

/// The three parts that MySQL has.
async fn mysql(
    session: &mut Option<Session>,
    args: &SourceArgs,
    deadline: Instant,
) -> (Part<Outbox>, Part<Vec<ShardCounts>>, Part<Work>) {
    let open = async {
        if session.is_none() {
            let opened = Session::open(&args.db, CONNECTIONS).await?;
            opened.check_schema().await?;
            *session = Some(opened);
        }
        Ok(session.clone().expect("it was opened"))
    };
    let session = match within(deadline, open).await {
        Part {
            value: Some(session),
            ..
        } => session,
        Part { trouble, .. } => {
            let trouble = trouble.unwrap_or_default();
            return (
                Part::unreadable(&trouble),
                Part::unreadable(&trouble),
                Part::unreadable(trouble),
            );
        }
    };
    tokio::join!(
        within(
            deadline,
            session.run("overview_outbox", WITHIN, |conn| Box::pin(outbox(conn)))
        ),
        within(
            deadline,
            session.run("shard_counts", WITHIN, |conn| Box::pin(shard_counts(
                conn, WITHIN
            )))
        ),
        within(
            deadline,
            session.run("overview_work", WITHIN, |conn| Box::pin(work(conn)))
        ),
    )
}

async fn outbox(conn: &mut MySqlConnection) -> sqlx::Result<Outbox> {
    let (parked_events, parked_orders) = parked_totals(conn, WITHIN).await?;
    Ok(Outbox {
        shards: shard_heads(conn).await?,
        relays: relays(conn).await?,
        measured: measured(conn).await?,
        parked_events,
        parked_orders,
    })
}

async fn work(conn: &mut MySqlConnection) -> sqlx::Result<Work> {
    Ok(Work {
        returns: open_returns(conn, WITHIN).await?,
        refunds: open_attempts(conn, WITHIN).await?,
        oldest_dead_letter_secs: oldest_dead_letter(conn).await?,
        findings: findings(conn, OVERDUE.whole_seconds(), WITHIN).await?,
    })
}

async fn consumers(
    group: &mut Option<GroupReader>,
    args: &SourceArgs,
    deadline: Instant,
) -> Part<Consumers> {
    let read = async {
        let reader = match group.take() {
            Some(reader) => reader,
            None => GroupReader::new(&args.kafka, &args.group.consumer_group)?,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let found = reader.read(&args.topics.topic_returns, left).await?;
        // After a failure a new client is made: one that has forgotten its brokers does not recover.
        *group = Some(reader);
        Ok(Consumers {
            group: found.group,
            topics: found.topics,
        })
    };
    within(deadline + GRACE, read).await
}

/// The client of Kafka keeps the deadline itself, and then has a better reason.
const GRACE: Duration = Duration::from_millis(300);

async fn programs(client: &Client, addresses: &[String], deadline: Instant) -> Vec<Program> {
    let asked = addresses.iter().map(|address| async move {
        let url = format!("http://{address}/metrics");
        let read = async {
            let text = get(client, &url, address).await?;
            Scrape::of(&text).ok_or_else(|| {
                CtlError::Problem(format!("{address}/metrics is not of one of our programs"))
            })
        };
        Program {
            address: address.clone(),
            metrics: within(deadline, read).await,
        }
    });
    join_all(asked).await
}

async fn rules(client: &Client, base: Option<&Url>, deadline: Instant) -> Option<Part<Vec<Alert>>> {
    let base = base?;
    let read = async {
        let url = format!(
            "{}/api/v1/rules?type=alert",
            base.as_str().trim_end_matches('/')
        );
        let body = get(client, &url, "Prometheus").await?;
        alerts::parse(&body).map_err(|error| CtlError::Refused {
            problem: "PROMETHEUS_URL does not lead to a Prometheus".to_owned(),
            source: Box::new(error),
        })
    };
    Some(within(deadline, read).await)
}

/// The body of a page; `server` is its name in messages.
async fn get(client: &Client, url: &str, server: &str) -> Result<String, CtlError> {
    let (status, body) = http::get(client, url, MOST_BYTES, server).await?;
    if !status.is_success() {
        let text = format!("{server} answered with status {status}");
        return Err(CtlError::Problem(text));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn within<T>(deadline: Instant, read: impl Future<Output = Result<T, CtlError>>) -> Part<T> {
    match timeout_at(deadline, read).await {
        Ok(read) => read.into(),
        Err(_) => Part::unreadable(format!("no answer within {} s", WITHIN.as_secs())),
    }
}
