//! Which addresses of MySQL the programs accept.

use e2e::program::run_to_end;
use e2e::system::System;
use shared::test_support::mysql_proxy::MysqlProxy;

const PROGRAMS: [&str; 3] = ["returns-api", "outbox-relay", "refund-consumer"];

#[tokio::test]
async fn an_ipv6_address_works_in_every_program() -> anyhow::Result<()> {
    let mut system = System::create().await?;
    let (_proxy, url) = MysqlProxy::listening("[::1]:0", system.db.url()).await;
    assert!(url.contains("@[::1]:"), "{url}");
    system.env.insert("DATABASE_URL".to_owned(), url);
    for name in PROGRAMS {
        drop(system.start(name).await?);
    }
    let doctor = run_to_end("returnsctl", &["doctor"], &system.env).await?;
    let connected = "ok    mysql connection: connected";
    assert!(doctor.stdout.contains(connected), "{}", doctor.stdout);
    Ok(())
}

#[tokio::test]
async fn p13_another_machine_needs_a_word_about_tls() -> anyhow::Result<()> {
    let mut system = System::create().await?;
    let url = "mysql://returns:s3cret@mysql.example.com/returns";
    system.env.insert("DATABASE_URL".to_owned(), url.to_owned());
    for name in PROGRAMS {
        let refused = run_to_end(name, &[], &system.env).await?;
        assert_eq!(refused.status.code(), Some(64), "{name}");
        let sentence = "add ?ssl-mode=VERIFY_IDENTITY";
        assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
    }
    let refused = run_to_end("returnsctl", &["doctor"], &system.env).await?;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    Ok(())
}
