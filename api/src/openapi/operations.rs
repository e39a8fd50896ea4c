//! Each operation: who may, what it takes, what it answers.

use serde_json::json;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterIn};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{KnownFormat, SchemaFormat};
use utoipa::openapi::{ContentBuilder, Required};
use utoipa::{IntoParams, ToSchema};

use super::parts::{
    self, Described, answer, body, etag, header, header_parameter, integer, operation, request_id,
    return_id, string, with_errors,
};
use crate::error::ProblemType;
use crate::filing::ReceiptBody;
use crate::routes::{
    decide_return, list_events, list_orders, list_returns, post_return, return_events, show_return,
};

pub(super) fn all() -> Vec<Described> {
    vec![
        file_return(),
        list_returns(),
        get_return(),
        watch_return(),
        list_orders(),
        list_return_events(),
        list_events(),
        decide(
            "cancelReturn",
            "/returns/{id}/cancel",
            "Cancel a return",
            "For its owner and for admins, until its refund is under way.",
        ),
        decide(
            "approveReturn",
            "/returns/{id}/approve",
            "Approve a return",
            "For admins, but never their own. Needed where `review_required`; the refund follows by itself.",
        ),
        decide(
            "rejectReturn",
            "/returns/{id}/reject",
            "Reject a return",
            "For admins, but never their own, until its refund is under way.",
        ),
        decide(
            "retryRefund",
            "/returns/{id}/retry-refund",
            "Retry a failed refund",
            "For admins, but never their own, once it is `refund_failed`. Every earlier attempt is looked up at the gateway first, so nothing is paid twice.",
        ),
    ]
}

fn file_return() -> Described {
    let key = string()
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[!-~]+$"))
        .examples([json!("8e03978e-40d5-43e8-bc93-6894a57f9324")]);
    let location = string().pattern(Some("^/returns/[0-9]+$")).build();
    let replayed = string().enum_values(Some(["true"])).build();
    let filed = answer::<ReceiptBody>("Filed, and kept whatever crashes from here on.")
        .header("Location", header(location, "The return."))
        .header(
            "Idempotent-Replayed",
            header(
                replayed,
                "There if an earlier request under this key filed it.",
            ),
        )
        .link("get", to("getReturn", "$response.body#/return_id"))
        .link(
            "cancel",
            LinkBuilder::new()
                .operation_id("cancelReturn")
                .parameter("id", "$response.body#/return_id")
                .parameter("If-Match", "\"1\"")
                .build(),
        );
    let operation = operation(
        "fileReturn",
        "returns",
        "File a return for an order",
        "For customers, for their own orders; one open return for each order.",
    )
    .parameter(header_parameter(
        "Idempotency-Key",
        Required::False,
        key,
        "Makes repeating safe: for 24 hours the same key and body get the same answer, and a repeat waits for the first.",
    ))
    .request_body(Some(body::<post_return::Body>(Required::True)))
    .response("201", filed);
    described(
        HttpMethod::Post,
        "/returns",
        with_errors(
            operation,
            &[
                ProblemType::UnknownOrder,
                ProblemType::AlreadyOpen,
                ProblemType::BodyTooLarge,
                ProblemType::UnsupportedMediaType,
                ProblemType::UnsupportedContentEncoding,
                ProblemType::RequestTimeout,
                ProblemType::InvalidFields,
                ProblemType::NotEligible,
                ProblemType::KeyReused,
                ProblemType::Busy,
                ProblemType::BacklogFull,
                ProblemType::OutcomeUnknown,
            ],
        ),
    )
}

fn list_returns() -> Described {
    let operation = operation(
        "listReturns",
        "returns",
        "List returns",
        "For admins. Newest first; a page costs the same however deep.",
    )
    .parameters(Some(list_returns::Parameters::into_params(query)))
    .response("200", page::<show_return::ReturnView>("listReturns"));
    described(
        HttpMethod::Get,
        "/returns",
        with_errors(operation, &[ProblemType::InvalidFields]),
    )
}

fn list_orders() -> Described {
    let operation = operation(
        "listOrders",
        "orders",
        "List one's orders",
        "For customers: each with whether it may be returned, and every reason if not. The newest number first.",
    )
    .parameters(Some(list_orders::Parameters::into_params(query)))
    .response("200", page::<list_orders::OrderView>("listOrders"));
    described(
        HttpMethod::Get,
        "/orders",
        with_errors(operation, &[ProblemType::InvalidFields]),
    )
}

fn list_return_events() -> Described {
    let operation = operation(
        "listReturnEvents",
        "audit",
        "Read the audit trail of a return",
        "For auditors and admins, in the order of its chain.",
    )
    .parameter(return_id())
    .parameters(Some(return_events::Parameters::into_params(query)))
    .response("200", events("listReturnEvents"));
    described(
        HttpMethod::Get,
        "/returns/{id}/events",
        with_errors(
            operation,
            &[
                ProblemType::NotFound,
                ProblemType::NotAcceptable,
                ProblemType::InvalidFields,
                ProblemType::TooManyExports,
            ],
        ),
    )
}

fn list_events() -> Described {
    let operation = operation(
        "listEvents",
        "audit",
        "Read or export the audit trail of all returns",
        "For auditors and admins. Pages come newest first; an export has everything that the filters let through, oldest first.",
    )
    .parameters(Some(list_events::Parameters::into_params(query)))
    .response("200", events("listEvents"));
    described(
        HttpMethod::Get,
        "/events",
        with_errors(
            operation,
            &[
                ProblemType::NotAcceptable,
                ProblemType::InvalidFields,
                ProblemType::TooManyExports,
            ],
        ),
    )
}

/// A page, or by `Accept` an export of everything.
fn events(operation: &str) -> ResponseBuilder {
    let lines = ContentBuilder::new().schema(Some(string().description(Some(
        "One event a line, as in a page, and last `{\"_manifest\": …}` with their number and the SHA-256 of their lines: without it the export broke off.",
    ))));
    let table = ContentBuilder::new().schema(Some(string().description(Some(
        "RFC 4180, for reading. What a spreadsheet would take for a formula has a `'` before it: check hashes by the lines.",
    ))));
    page::<list_events::EventView>(operation)
        .content("application/x-ndjson", lines.build())
        .content("text/csv", table.build())
}

/// A page, and the link to the next.
fn page<T: ToSchema>(operation: &str) -> ResponseBuilder {
    let next = LinkBuilder::new()
        .operation_id(operation)
        .parameter("cursor", "$response.body#/next_cursor");
    parts::page::<T>("A page.")
        .header(
            "Link",
            header(
                string().build(),
                "The next page, with `rel=\"next\"` (RFC 8288); none at the end.",
            ),
        )
        .link("next", next.build())
}

fn query() -> Option<ParameterIn> {
    Some(ParameterIn::Query)
}

fn get_return() -> Described {
    let tags = string().examples([json!("\"1\"")]);
    let operation = operation(
        "getReturn",
        "returns",
        "Read a return",
        "For its owner and for admins.",
    )
    .parameter(return_id())
    .parameter(header_parameter(
        "If-None-Match",
        Required::False,
        tags,
        "`ETag`s that the client has: 304 if the return's is among them.",
    ))
    .response("200", returned("The return."))
    .response(
        "304",
        ResponseBuilder::new()
            .description("Unchanged.")
            .header("ETag", etag()),
    );
    described(
        HttpMethod::Get,
        "/returns/{id}",
        with_errors(operation, &[ProblemType::NotFound]),
    )
}

fn watch_return() -> Described {
    let last = integer()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(0))
        .maximum(Some(i32::MAX));
    let frames = string().description(Some(
        "Server-sent events: `status` with the `seq` as its id and `{\"status\", \"seq\", \"at\"}` as data, the present state first; `end` when no other follows. A comment every 15 s.",
    ));
    let stream = ResponseBuilder::new()
        .description(
            "The stream. It goes on until the return has ended, the token has, or the client goes.",
        )
        .content(
            "text/event-stream",
            ContentBuilder::new().schema(Some(frames)).build(),
        )
        .header("X-Request-Id", request_id());
    let operation = operation(
        "watchReturn",
        "returns",
        "Watch a return",
        "For its owner and for admins: its status as it changes, without polling.",
    )
    .parameter(return_id())
    .parameter(header_parameter(
        "Last-Event-ID",
        Required::False,
        last,
        "The id of the last event that was received: the stream goes on behind it, at any api and after any time.",
    ))
    .response("200", stream.build());
    described(
        HttpMethod::Get,
        "/returns/{id}/stream",
        with_errors(
            operation,
            &[ProblemType::NotFound, ProblemType::TooManyStreams],
        ),
    )
}

fn decide(id: &str, path: &'static str, summary: &str, description: &str) -> Described {
    let tag = string()
        .pattern(Some("^(\\*|\"[0-9]+\")$"))
        .examples([json!("\"1\"")]);
    let operation = operation(id, "decisions", summary, description)
        .parameter(return_id())
        .parameter(header_parameter(
            "If-Match",
            Required::True,
            tag,
            "The `ETag` of the return that the decision rests on; `*` for whatever it is.",
        ))
        .request_body(Some(body::<decide_return::Body>(Required::False)))
        .response("200", returned("Done; the return as it is now."));
    described(
        HttpMethod::Post,
        path,
        with_errors(
            operation,
            &[
                ProblemType::NotFound,
                ProblemType::InvalidTransition,
                ProblemType::PreconditionFailed,
                ProblemType::BodyTooLarge,
                ProblemType::UnsupportedMediaType,
                ProblemType::UnsupportedContentEncoding,
                ProblemType::RequestTimeout,
                ProblemType::InvalidFields,
                ProblemType::PreconditionRequired,
                ProblemType::OutcomeUnknown,
            ],
        ),
    )
}

/// A return with its `ETag`, and what can be done with both.
fn returned(description: &str) -> ResponseBuilder {
    let with_tag = |operation: &str| {
        LinkBuilder::new()
            .operation_id(operation)
            .parameter("id", "$response.body#/return_id")
            .parameter("If-Match", "$response.header.ETag")
            .build()
    };
    answer::<show_return::ReturnView>(description)
        .header("ETag", etag())
        .link("cancel", with_tag("cancelReturn"))
        .link("approve", with_tag("approveReturn"))
        .link("reject", with_tag("rejectReturn"))
        .link("retryRefund", with_tag("retryRefund"))
}

fn to(operation: &str, id: &str) -> Link {
    LinkBuilder::new()
        .operation_id(operation)
        .parameter("id", id)
        .build()
}

fn described(method: HttpMethod, path: &'static str, operation: OperationBuilder) -> Described {
    Described {
        method,
        path,
        operation: operation.build(),
    }
}
