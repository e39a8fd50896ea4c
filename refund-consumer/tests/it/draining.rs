use std::io::{Read, Write};
use std::net::TcpStream;

use refund_consumer::app::Drain;

use crate::harness::fake::{Fake, Step};
use crate::harness::{World, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_calls_in_flight_are_settled_and_waiting_attempts_given_back() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[Step::Hold, Step::Hold]);
    let running = world
        .start(gateway.clone(), &["--gateway-parallel-calls=2"])
        .await;
    for order in 1..=10 {
        let filed = world.file(order).await;
        world.announce(&filed).await;
    }
    until_true("all are claimed", || running.messages("claimed") == 10).await;
    until_true("two are called for", || gateway.submitted().len() == 2).await;
    running.ask_to_stop();
    gateway.let_go();
    assert_eq!(running.stop().await, Drain::Complete);
    assert_eq!(
        gateway.submitted().len(),
        2,
        "nothing new is called for while stopping"
    );
    assert_eq!(
        world
            .count("SELECT COUNT(*) FROM returns WHERE status = 'refunded'")
            .await,
        2
    );
    assert_eq!(
        world
            .count("SELECT COUNT(*) FROM refunds WHERE state = 'claimed' AND owner IS NULL AND next_check_at <= UTC_TIMESTAMP(6)")
            .await,
        8
    );

    // Another consumer goes on at once, long before the call deadline of 30 s.
    let successor = world.start(gateway.clone(), &[]).await;
    until_true("the successor pays the rest", || {
        gateway.effects().len() == 10
    })
    .await;
    successor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_the_drain_ends_at_its_deadline_whatever_the_gateway_does() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[Step::Hold]);
    let running = world
        .start(gateway.clone(), &["--consumer-drain-secs=1"])
        .await;
    let filed = world.file(1).await;
    world.announce(&filed).await;
    until_true("it is called for", || gateway.submitted().len() == 1).await;
    let began = std::time::Instant::now();
    assert_eq!(running.stop().await, Drain::LeftOpen(1));
    // Waiting for the gateway would end at the call deadline of 30 s.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "claimed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_port_answers() {
    let world = World::new().await;
    let running = world.start(world.simulated(), &[]).await;
    let get = |path: &str| {
        let mut stream = TcpStream::connect(running.ops).expect("connect");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let answers = tokio::task::block_in_place(|| [get("/livez"), get("/readyz"), get("/metrics")]);
    assert!(
        answers
            .iter()
            .all(|answer| answer.starts_with("HTTP/1.1 200")),
        "{answers:?}"
    );
    assert!(
        answers[2].contains("refund_consumer_open_attempts 0"),
        "{}",
        answers[2]
    );
    assert!(!running.is_over());
    running.stop().await;
}
