//! A system with a Prometheus of its own, and the time from a cause to its alert.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use e2e::program::Program;
use e2e::prometheus::Prometheus;
use e2e::system::{CUSTOMER, System};
use e2e::{free_ports, until};

use crate::PROMISE;

pub(crate) const API: &str = "returns-api";
pub(crate) const RELAY: &str = "outbox-relay";
pub(crate) const CONSUMER: &str = "refund-consumer";
const PROGRAMS: [&str; 3] = [API, RELAY, CONSUMER];

const ORDERS: i64 = 10_000;
/// A loaded machine starts many programs at once.
const DEADLINE: Duration = Duration::from_secs(180);

/// Its programs have fixed addresses, so that Prometheus finds them again after a restart.
pub(crate) struct Watched {
    pub(crate) system: System,
    prometheus: Prometheus,
    ops: [SocketAddr; 3],
}

impl Watched {
    pub(crate) async fn start(system: System) -> anyhow::Result<Self> {
        system.db.seed_orders(1, ORDERS, CUSTOMER).await;
        let ports = free_ports(3)?;
        let ops = [0, 1, 2].map(|at| SocketAddr::from(([127, 0, 0, 1], ports[at])));
        let targets = [0, 1, 2].map(|at| (PROGRAMS[at], ops[at]));
        let prometheus = Prometheus::start(&targets, None).await?;
        Ok(Self {
            system,
            prometheus,
            ops,
        })
    }

    /// Starts a program, again at the same address.
    pub(crate) async fn program(&self, name: &'static str) -> anyhow::Result<Program> {
        self.program_with(name, &[]).await
    }

    pub(crate) async fn program_with(
        &self,
        name: &'static str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Program> {
        let at = PROGRAMS.iter().position(|program| *program == name);
        let ops = self.ops[at.context("a program")?].to_string();
        let more = [&[("OPS_LISTEN", ops.as_str())], more].concat();
        self.system.start_with(name, &more).await
    }

    /// Waits until these programs were scraped often enough for a counter to rise.
    pub(crate) async fn is_scraped(&self, programs: &[&str]) -> anyhow::Result<()> {
        until("the programs are scraped", DEADLINE, async || {
            let scraped = "sum by (job) (sum_over_time(up[5m])) >= 3";
            let scraped = self.prometheus.query(scraped).await?;
            Ok(scraped.len() >= programs.len())
        })
        .await
    }

    /// Files returns for these orders.
    pub(crate) async fn file(
        &self,
        api: &Program,
        orders: std::ops::RangeInclusive<i64>,
    ) -> anyhow::Result<Vec<i64>> {
        let mut filed = Vec::new();
        for order in orders {
            let answer = self.system.customer.file(api.api_address()?, order, None);
            let answer = answer.await?;
            filed.push(answer.return_id().with_context(|| format!("{answer:?}"))?);
        }
        Ok(filed)
    }

    /// The clock starts here. The alert must not fire yet.
    pub(crate) async fn cause(
        &self,
        cause: &'static str,
        alert: &'static str,
    ) -> anyhow::Result<Cause<'_>> {
        let firing = self.prometheus.firing().await?;
        ensure!(!firing.contains(alert), "{alert} fires before: {cause}");
        Ok(Cause {
            watched: self,
            cause,
            alert,
            began: Instant::now(),
        })
    }

    /// The alerts that have fired within the last minutes, also for a moment.
    pub(crate) async fn fired_within(&self, minutes: u32) -> anyhow::Result<Vec<String>> {
        let fired = format!("count_over_time(ALERTS{{alertstate=\"firing\"}}[{minutes}m])");
        let fired = self.prometheus.query(&fired).await?.into_iter();
        Ok(fired
            .filter_map(|mut alert| alert.remove("alertname"))
            .collect())
    }

    /// Returns the time since `began`.
    async fn until_firing(
        &self,
        alert: &str,
        firing: bool,
        began: Instant,
        most: Duration,
    ) -> anyhow::Result<Duration> {
        loop {
            if self.prometheus.firing().await?.contains(alert) == firing {
                return Ok(began.elapsed());
            }
            if Instant::now() > began + most {
                bail!("{alert}: not firing = {firing} within {most:?}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A trouble that was just made.
pub(crate) struct Cause<'a> {
    watched: &'a Watched,
    cause: &'static str,
    alert: &'static str,
    began: Instant,
}

impl<'a> Cause<'a> {
    /// It counts only after this time.
    pub(crate) fn after(mut self, time: Duration) -> Self {
        self.began += time;
        self
    }

    /// Waits for the alert, for longer than is allowed, to know the time.
    pub(crate) async fn fires(self) -> anyhow::Result<Fired<'a>> {
        let (alert, began) = (self.alert, self.began);
        let wait = self.watched.until_firing(alert, true, began, 3 * PROMISE);
        Ok(Fired {
            after: wait.await.context(self.cause)?,
            cause: self,
        })
    }
}

/// A trouble whose alert fires.
pub(crate) struct Fired<'a> {
    cause: Cause<'a>,
    after: Duration,
}

impl Fired<'_> {
    /// The cause is gone: waits until the alert has ended.
    pub(crate) async fn ends(self, most: Duration) -> anyhow::Result<Row> {
        let Cause {
            watched,
            cause,
            alert,
            ..
        } = self.cause;
        let wait = watched.until_firing(alert, false, Instant::now(), most);
        let ends = wait.await.context(cause)?;
        Ok(Row {
            cause,
            alert,
            fires: self.after,
            ends,
        })
    }
}

/// What stands above the rows.
pub(crate) const HEADER: &str =
    "cause                                          alert                   fires   ends";

/// One line of the table.
pub(crate) struct Row {
    cause: &'static str,
    alert: &'static str,
    fires: Duration,
    ends: Duration,
}

impl Row {
    pub(crate) fn is_in_time(&self) -> bool {
        self.fires <= PROMISE
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fires, ends) = (self.fires.as_secs(), self.ends.as_secs());
        let late = if self.is_in_time() { "" } else { "  TOO LATE" };
        write!(
            f,
            "{:<46} {:<22} {fires:>4} s {ends:>4} s{late}",
            self.cause, self.alert
        )
    }
}
