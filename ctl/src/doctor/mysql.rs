//! MySQL: connection, version, schema, and the settings that our sessions see.

use shared::runtime::db::DbArgs;
use shared::runtime::schema::{self, SchemaError};
use time::{Duration, OffsetDateTime};

use super::report::{Check, Report};
use super::{audit, orders, outbox, waiting};
use crate::error::CtlError;
use crate::session::Session;
use crate::store::server::{self as store, ServerSettings};

/// Up to this, InnoDB's purge keeps up; above, reads of the outbox skip many deleted rows.
const PURGE_BACKLOG_LIMIT: i64 = 1_000_000;
/// Tokens are accepted this much before and after their time (the api's leeway).
const SKEW_LIMIT: Duration = Duration::seconds(30);
const SKEW_NOTABLE: Duration = Duration::seconds(1);

pub(super) async fn examine(args: &DbArgs, report: &mut Report) {
    match Session::open(args, 1).await {
        Ok(session) => {
            if let Err(error) = examine_inside(&session, report).await {
                report.add(Check::of_error("mysql", &error));
            }
        }
        Err(error) => report.add(Check::of_error("mysql connection", &error)),
    }
}

async fn examine_inside(session: &Session, report: &mut Report) -> Result<(), CtlError> {
    let settings = session.read("server_settings", |conn| {
        Box::pin(store::server_settings(conn))
    });
    let settings = settings.await?;
    report.add(Check::ok("mysql connection", "connected"));
    report.add(version(&settings));
    let schema = schema_check(session.schema().await);
    let usable = schema.is_ok();
    report.add(schema);
    for check in session_rules(&settings)
        .into_iter()
        .chain(durability(&settings))
    {
        report.add(check);
    }
    report.add(clock(session).await?);
    let prepared = session.read("prepared_statements", |conn| {
        Box::pin(store::prepared_statements(conn))
    });
    report.add(prepared_statements(prepared.await?));
    report.add(purge(session).await);
    if usable {
        outbox::examine(session, report).await;
        waiting::examine(session, report).await;
        audit::examine(session, report).await;
        orders::examine(session, report).await;
    }
    Ok(())
}

fn version(settings: &ServerSettings) -> Check {
    let name = "mysql version";
    let found = settings.version.clone();
    if settings.version.contains("MariaDB") {
        return Check::fail(
            name,
            found,
            "use MySQL 8.4 or newer; MariaDB locks and reports differently",
        );
    }
    let mut numbers = settings
        .version
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (8, 4) {
        Check::ok(name, found)
    } else {
        Check::fail(name, found, "use MySQL 8.4 or newer")
    }
}

fn schema_check(checked: Result<(), SchemaError>) -> Check {
    let name = "schema";
    let advice = "run `returnsctl migrate`";
    match checked {
        Ok(()) => Check::ok(name, format!("at {} or newer", schema::version())),
        Err(SchemaError::Missing) => Check::fail(name, "none", advice),
        Err(SchemaError::TooOld { found, needed }) => Check::fail(
            name,
            format!("at {found}, this build needs {needed}"),
            advice,
        ),
        Err(other) => Check::of_error(name, &other.into()),
    }
}

/// The settings that every session of our programs must have.
fn session_rules(settings: &ServerSettings) -> Vec<Check> {
    let expect = |name: &str, good: bool, found: String, advice: &str| {
        if good {
            Check::ok(name, found)
        } else {
            Check::fail(name, found, advice)
        }
    };
    let modes = &settings.sql_mode;
    let strict = modes.contains("STRICT_TRANS_TABLES") || modes.contains("STRICT_ALL_TABLES");
    vec![
        expect(
            "isolation level",
            settings.isolation == "READ-COMMITTED",
            settings.isolation.clone(),
            "a proxy or init_connect overrides the pool's SET SESSION transaction_isolation: remove it",
        ),
        expect(
            "time zone",
            settings.time_zone == "+00:00" && settings.zone_offset_secs == 0,
            format!(
                "session {}, NOW() - UTC_TIMESTAMP() = {} s",
                settings.time_zone, settings.zone_offset_secs
            ),
            "a proxy or init_connect overrides the session's time zone +00:00: remove it",
        ),
        expect(
            "auto_increment_increment",
            settings.auto_increment_increment == 1,
            settings.auto_increment_increment.to_string(),
            "a proxy overrides the session's auto_increment_increment = 1: remove it, because grouped inserts rely on consecutive ids",
        ),
        expect(
            "session limits",
            settings.lock_wait_secs <= 10 && settings.idle_timeout_secs <= 60,
            format!(
                "lock wait {} s, silence {} s",
                settings.lock_wait_secs, settings.idle_timeout_secs
            ),
            "a proxy or init_connect overrides the pool's limits: a frozen process would hold locks for hours",
        ),
        expect(
            "strict sql_mode",
            strict,
            strict.to_string(),
            "add STRICT_TRANS_TABLES to sql_mode: without it MySQL cuts values that do not fit",
        ),
        expect(
            "writable",
            settings.read_only == 0,
            format!("read_only = {}", settings.read_only),
            "this is a replica or a server in maintenance: point DATABASE_URL at the primary",
        ),
    ]
}

/// Whether a commit survives a power cut.
fn durability(settings: &ServerSettings) -> Vec<Check> {
    let flush = settings.flush_log_at_commit;
    let found = format!("innodb_flush_log_at_trx_commit = {flush}");
    let redo = if flush == 1 {
        Check::ok("durability of the redo log", found)
    } else {
        let advice =
            "SET PERSIST innodb_flush_log_at_trx_commit = 1, or a power cut loses accepted returns";
        Check::warn("durability of the redo log", found, advice)
    };
    let found = format!(
        "log_bin = {}, sync_binlog = {}",
        settings.log_bin, settings.sync_binlog
    );
    let binlog = if settings.log_bin == 0 || settings.sync_binlog == 1 {
        Check::ok("durability of the binary log", found)
    } else {
        let advice = "SET PERSIST sync_binlog = 1, or a power cut makes replicas differ";
        Check::warn("durability of the binary log", found, advice)
    };
    vec![redo, binlog]
}

/// The server's clock is read between two readings of ours; only a time outside of these is skew.
async fn clock(session: &Session) -> Result<Check, CtlError> {
    let before = OffsetDateTime::now_utc();
    let server = session.read("server_clock", |conn| Box::pin(store::server_clock(conn)));
    let server = server.await?.assume_utc();
    let after = OffsetDateTime::now_utc();
    Ok(skew(before, server, after))
}

fn skew(before: OffsetDateTime, server: OffsetDateTime, after: OffsetDateTime) -> Check {
    let skew = if server < before {
        server - before
    } else if server > after {
        server - after
    } else {
        Duration::ZERO
    };
    let found = format!(
        "MySQL's clock differs from this machine's by {:.3} s",
        skew.as_seconds_f64()
    );
    let advice = "run a time service (chrony, systemd-timesyncd) on both machines";
    match skew.abs() {
        skew if skew > SKEW_LIMIT => Check::fail("clock", found, advice),
        skew if skew > SKEW_NOTABLE => Check::warn("clock", found, advice),
        _ => Check::ok("clock", found),
    }
}

/// At the limit MySQL prepares no more for anybody, and a program that opens a connection waits.
fn prepared_statements((count, most): (i64, i64)) -> Check {
    let name = "prepared statements";
    let found = format!("{count} of at most {most}");
    if count < most / 2 {
        Check::ok(name, found)
    } else {
        Check::warn(
            name,
            found,
            "SET PERSIST max_prepared_stmt_count to four times what all programs use",
        )
    }
}

async fn purge(session: &Session) -> Check {
    let name = "purge backlog";
    let backlog = session.read("purge_backlog", |conn| Box::pin(store::purge_backlog(conn)));
    match backlog.await {
        Ok(Some(backlog)) if backlog > PURGE_BACKLOG_LIMIT => Check::warn(
            name,
            format!("{backlog} row versions"),
            "look for a transaction that has been open for long in information_schema.innodb_trx",
        ),
        Ok(Some(backlog)) => Check::ok(name, format!("{backlog} row versions")),
        Ok(None) | Err(_) => Check::ok(name, "hidden from this user (needs the PROCESS privilege)"),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::doctor::report::Verdict;

    fn good() -> ServerSettings {
        ServerSettings {
            version: "8.4.3".to_owned(),
            isolation: "READ-COMMITTED".to_owned(),
            time_zone: "+00:00".to_owned(),
            zone_offset_secs: 0,
            auto_increment_increment: 1,
            flush_log_at_commit: 1,
            sync_binlog: 1,
            log_bin: 1,
            read_only: 0,
            sql_mode: "STRICT_TRANS_TABLES".to_owned(),
            lock_wait_secs: 5,
            idle_timeout_secs: 30,
        }
    }

    #[test]
    fn versions_below_8_4_are_refused() {
        for (text, verdict) in [
            ("8.4.0", Verdict::Ok),
            ("9.7.4", Verdict::Ok),
            ("10.0.0-debug", Verdict::Ok),
            ("8.0.40-0ubuntu0.22.04.1", Verdict::Fail),
            ("11.8.2-MariaDB", Verdict::Fail),
            ("?", Verdict::Fail),
        ] {
            let mut settings = good();
            settings.version = text.to_owned();
            assert_eq!(version(&settings).verdict(), verdict, "{text}");
        }
    }

    #[test]
    fn each_wrong_setting_is_one_failed_check() {
        let broken: [fn(&mut ServerSettings); 6] = [
            |s| s.isolation = "REPEATABLE-READ".to_owned(),
            |s| s.zone_offset_secs = 3_600,
            |s| s.auto_increment_increment = 2,
            |s| s.idle_timeout_secs = 28_800,
            |s| s.sql_mode = String::new(),
            |s| s.read_only = 1,
        ];
        let failed = |settings: &ServerSettings| -> usize {
            session_rules(settings)
                .iter()
                .filter(|check| check.verdict() == Verdict::Fail)
                .count()
        };
        assert_eq!(failed(&good()), 0);
        for (index, spoil) in broken.iter().enumerate() {
            let mut settings = good();
            spoil(&mut settings);
            assert_eq!(failed(&settings), 1, "{index}");
        }
    }

    #[test]
    fn a_commit_that_is_not_flushed_is_worth_a_warning() {
        let mut settings = good();
        settings.flush_log_at_commit = 2;
        settings.sync_binlog = 0;
        let verdicts: Vec<Verdict> = durability(&settings).iter().map(Check::verdict).collect();
        assert_eq!(verdicts, [Verdict::Warn, Verdict::Warn]);
        settings.log_bin = 0;
        assert_eq!(durability(&settings)[1].verdict(), Verdict::Ok);
    }

    #[test]
    fn half_of_the_prepared_statements_is_worth_a_warning() {
        let verdict = |count| prepared_statements((count, 16_382)).verdict();
        assert_eq!(verdict(8_190), Verdict::Ok);
        assert_eq!(verdict(8_191), Verdict::Warn);
        assert_eq!(prepared_statements((0, 0)).verdict(), Verdict::Warn);
    }

    #[test]
    fn a_slow_response_is_no_skew() {
        let before = datetime!(2026-11-23 12:00:00 UTC);
        let after = before + Duration::seconds(40);
        let verdict = |server| skew(before, server, after).verdict();
        assert_eq!(verdict(before + Duration::seconds(20)), Verdict::Ok);
        assert_eq!(verdict(before - Duration::seconds(5)), Verdict::Warn);
        assert_eq!(verdict(after + Duration::minutes(5)), Verdict::Fail);
    }
}
