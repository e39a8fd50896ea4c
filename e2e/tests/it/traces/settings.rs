//! The standard variables, read as their specification says.

use super::{DEADLINE, Traced};

/// Values that other programs of the same deployment accept do not end ours.
#[tokio::test]
async fn a_standard_variable_that_is_empty_or_not_understood_ends_no_program() -> anyhow::Result<()>
{
    let traced = Traced::create(1).await?;
    let api = traced
        .system
        .start_with(
            "returns-api",
            &[
                ("OTEL_TRACES_SAMPLER", ""),
                ("OTEL_TRACES_SAMPLER_ARG", "all"),
                ("OTEL_SDK_DISABLED", ""),
                ("OTEL_SERVICE_NAME", ""),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", ""),
            ],
        )
        .await?;
    let (_, trace_id) = traced.file(&api, 1).await?;
    let server = traced.span(&trace_id, "POST /returns").await?;
    assert_eq!(server.service, "returns-api");
    let log = api.lines_after(0).join("\n");
    for name in ["OTEL_TRACES_SAMPLER_ARG", "OTEL_BSP_MAX_QUEUE_SIZE"] {
        let warned = log.matches(&format!("{name} is ignored")).count();
        assert_eq!(warned, 1, "{name}: {log}");
    }
    api.stop(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn traces_are_turned_off_by_true_in_any_case() -> anyhow::Result<()> {
    let traced = Traced::create(1).await?;
    let off = [("OTEL_SDK_DISABLED", "TRUE")];
    let api = traced.system.start_with("returns-api", &off).await?;
    traced.file(&api, 1).await?;
    api.stop(DEADLINE).await?;
    assert!(traced.collector.spans().is_empty());
    Ok(())
}
