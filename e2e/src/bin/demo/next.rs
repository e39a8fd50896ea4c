//! What to try while everything runs, as commands that can be pasted.

use std::net::SocketAddr;

use crate::programs::Programs;
use crate::stage::Stage;
use crate::traces::Traces;

pub(crate) fn show(
    stage: &Stage,
    programs: &Programs,
    api: SocketAddr,
    waiting: i64,
    traces: &Traces,
) -> anyhow::Result<()> {
    println!("\nEverything stays up. Ctrl-C stops it.\n");
    for program in programs.iter() {
        let (name, ops) = (program.name(), program.ops_address()?);
        println!("  {name:<16} http://{ops}/readyz?verbose  /livez  /metrics");
    }
    let free = stage.order + 2;
    println!(
        r#"
Paste these lines into another terminal, then try the commands below.

  API=http://{api}
  CUSTOMER={customer}
  ADMIN={admin}

File another return (order {free} is free), and watch the one that waits for an admin; Ctrl-C ends the stream:

  curl -i $API/returns -H "Authorization: Bearer $CUSTOMER" \
       -H 'Content-Type: application/json' -d '{{"order_id": {free}, "reason": "does not fit"}}'
  curl -N $API/returns/{waiting}/stream -H "Authorization: Bearer $CUSTOMER"

List the returns that were not claimed yet, and approve the one that waits:

  curl "$API/returns?status=initiated" -H "Authorization: Bearer $ADMIN"
  curl -i -X POST $API/returns/{waiting}/approve -H "Authorization: Bearer $ADMIN" -H 'If-Match: "1"'

Or cancel it instead. The ETag of the return says which version you have seen:

  curl -i $API/returns/{waiting} -H "Authorization: Bearer $CUSTOMER"
  curl -i -X POST $API/returns/{waiting}/cancel -H "Authorization: Bearer $CUSTOMER" -H 'If-Match: "1"'

Operate it:

  set -a; . {env}; set +a
  target/debug/returnsctl doctor
  target/debug/returnsctl outbox stats
  TRACE_QUERY_URL={query_url} target/debug/returnsctl trace {waiting}
  deploy/local/stack mysql client {instance} -e 'SELECT id, status, version FROM returns'

docs/RUNNING.md goes on from here."#,
        customer = stage.customer_token,
        admin = stage.admin_token,
        query_url = traces.printable_url()?,
        env = stage.logs.join("env").display(),
        instance = shared::test_support::env("STACK_INSTANCE"),
    );
    Ok(())
}
