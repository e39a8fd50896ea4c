//! Each operation: its callers, its request, its responses.

use serde_json::json;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{KnownFormat, OneOfBuilder, SchemaFormat};
use utoipa::openapi::{ContentBuilder, Ref, Required};
use utoipa::{IntoParams, ToSchema};

use super::notification;
use super::parts::{
    self, Described, body, etag, header, header_parameter, integer, operation, request_id,
    response, return_id, string, with_errors,
};
use crate::decisions::Verb;
use crate::error::ErrorKind;
use crate::filing::ReceiptBody;
use crate::http::query::TimePageParameters;
use crate::http::routes::{
    DecisionBody, Endpoint, FilingBody, ListEventsParameters, ListOperatorActionsParameters,
    ListOrdersParameters, ListReturnsParameters, ReturnEventsParameters,
};
use crate::http::views::{EventView, OperatorActionView, OrderView, ReturnView};
use crate::streams::{StreamEnd, StreamStatus};

pub(super) fn all() -> Vec<Described> {
    vec![
        file_return(),
        list_returns(),
        get_return(),
        watch_return(),
        list_orders(),
        list_return_events(),
        list_events(),
        notification::notify(),
        list_operator_actions(),
        decide(
            "cancelReturn",
            Verb::Cancel,
            "Cancel a return",
            "For its owner and for admins, until its refund has begun.",
        ),
        decide(
            "approveReturn",
            Verb::Approve,
            "Approve a return",
            "For admins, but not for returns of their own or that they filed for a customer. Required if `review_required` is set; the refund then follows automatically.",
        ),
        decide(
            "rejectReturn",
            Verb::Reject,
            "Reject a return",
            "For admins, but not for returns of their own or that they filed for a customer, until the refund has begun.",
        ),
        decide(
            "retryRefund",
            Verb::RetryRefund,
            "Retry a failed refund",
            "For admins, but not for returns of their own or that they filed for a customer, if the status is `refund_failed`. Every earlier attempt is looked up at the payment gateway first, so nothing is paid twice.",
        ),
    ]
}

fn file_return() -> Described {
    let key = string()
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[!-~]+$"))
        .examples([json!("8e03978e-40d5-43e8-bc93-6894a57f9324")]);
    let operation = operation(
        "fileReturn",
        "returns",
        "File a return for an order",
        "For customers, for their own orders; for admins, for the customer in `customer_id`. Each order has at most one open return.",
    )
    .parameter(header_parameter(
        "Idempotency-Key",
        Required::False,
        key,
        "Makes retries safe: for 24 hours the same key and body get the same response. A retry waits for the first request.",
    ))
    .request_body(Some(body::<FilingBody>(Required::True)))
    .response("201", filed());
    Described::new(
        Endpoint::FileReturn,
        with_errors(
            operation,
            &[
                ErrorKind::UnknownOrder,
                ErrorKind::AlreadyOpen,
                ErrorKind::BodyTooLarge,
                ErrorKind::UnsupportedMediaType,
                ErrorKind::UnsupportedContentEncoding,
                ErrorKind::RequestTimeout,
                ErrorKind::InvalidFields,
                ErrorKind::NotEligible,
                ErrorKind::KeyReused,
                ErrorKind::Busy,
                ErrorKind::BacklogFull,
                ErrorKind::OutcomeUnknown,
            ],
        ),
    )
}

fn filed() -> ResponseBuilder {
    let location = string().pattern(Some("^/returns/[0-9]+$")).build();
    let replayed = string().enum_values(Some(["true"])).build();
    response::<ReceiptBody>("Filed and durably stored.")
        .header("Location", header(location, "The return."))
        .header(
            "Idempotent-Replayed",
            header(
                replayed,
                "Present if an earlier request with this key filed the return.",
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
        )
}

fn list_returns() -> Described {
    let operation = operation(
        "listReturns",
        "returns",
        "List returns",
        "Customers see their own, admins all. Newest first. Every page costs the same.",
    )
    .parameters(Some(ListReturnsParameters::into_params(query)))
    .parameters(Some(TimePageParameters::into_params(query)))
    .response("200", page::<ReturnView>("listReturns"));
    Described::new(
        Endpoint::ListReturns,
        with_errors(operation, &[ErrorKind::InvalidFields]),
    )
}

fn list_orders() -> Described {
    let operation = operation(
        "listOrders",
        "orders",
        "List your orders",
        "For customers. Each order shows whether it may be returned, and if not, every reason. The highest id comes first.",
    )
    .parameters(Some(ListOrdersParameters::into_params(query)))
    .response("200", page::<OrderView>("listOrders"));
    Described::new(
        Endpoint::ListOrders,
        with_errors(operation, &[ErrorKind::InvalidFields]),
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
    .parameters(Some(ReturnEventsParameters::into_params(query)))
    .response("200", events("listReturnEvents"));
    Described::new(
        Endpoint::ReturnEvents,
        with_errors(
            operation,
            &[
                ErrorKind::NotFound,
                ErrorKind::NotAcceptable,
                ErrorKind::InvalidFields,
                ErrorKind::TooManyExports,
                ErrorKind::BrokenTrail,
            ],
        ),
    )
}

fn list_events() -> Described {
    let operation = operation(
        "listEvents",
        "audit",
        "Read or export the audit trail of all returns",
        "For auditors and admins. Pages have the newest events first; an export has all events that pass the filters, oldest first.",
    )
    .parameters(Some(ListEventsParameters::into_params(query)))
    .parameters(Some(TimePageParameters::into_params(query)))
    .response("200", events("listEvents"));
    Described::new(
        Endpoint::ListEvents,
        with_errors(
            operation,
            &[
                ErrorKind::NotAcceptable,
                ErrorKind::InvalidFields,
                ErrorKind::TooManyExports,
                ErrorKind::BrokenTrail,
            ],
        ),
    )
}

fn list_operator_actions() -> Described {
    let operation = operation(
        "listOperatorActions",
        "operators",
        "Read what operators did, and why",
        "For auditors and admins. Newest first. Decisions through this API are not here but in the audit trail.",
    )
    .parameters(Some(ListOperatorActionsParameters::into_params(query)))
    .parameters(Some(TimePageParameters::into_params(query)))
    .response("200", page::<OperatorActionView>("listOperatorActions"));
    Described::new(
        Endpoint::ListOperatorActions,
        with_errors(operation, &[ErrorKind::InvalidFields]),
    )
}

/// A page, or with another `Accept` an export of all events.
fn events(operation: &str) -> ResponseBuilder {
    let lines = ContentBuilder::new().schema(Some(string().description(Some(
        "One event per line, as in a page. The last line is `{\"_manifest\": …}` with their number and the SHA-256 of their lines. Without it the export is incomplete.",
    ))));
    let table = ContentBuilder::new().schema(Some(string().description(Some(
        "RFC 4180, for reading. Text that a spreadsheet would execute as a formula begins with a `'`: verify hashes with the NDJSON export.",
    ))));
    page::<EventView>(operation)
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
                "The next page, with `rel=\"next\"` (RFC 8288); absent at the end.",
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
        "`ETag`s that the client has. 304 if the return's `ETag` is among them.",
    ))
    .response("200", returned("The return."))
    .response(
        "304",
        ResponseBuilder::new()
            .description("Unchanged.")
            .header("ETag", etag()),
    );
    Described::new(
        Endpoint::ShowReturn,
        with_errors(operation, &[ErrorKind::NotFound]),
    )
}

fn watch_return() -> Described {
    let last = integer()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(0))
        .maximum(Some(i32::MAX));
    let data = OneOfBuilder::new()
        .item(Ref::from_schema_name(StreamStatus::name()))
        .item(Ref::from_schema_name(StreamEnd::name()));
    let frames = string()
        .content_media_type("text/event-stream")
        .content_schema(Some(data))
        .description(Some(
            "Server-sent events. `status` has the `seq` as its id and `StreamStatus` as data, the present status first; `end` has `StreamEnd` as data, and no other event is expected. A comment every 15 s.",
        ));
    let stream = ResponseBuilder::new()
        .description(
            "The stream. It ends when the return reaches a final status, the token expires, or the client disconnects.",
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
        "For its owner and for admins: each change of its status, without polling.",
    )
    .parameter(return_id())
    .parameter(header_parameter(
        "Last-Event-ID",
        Required::False,
        last,
        "The id of the last event that the client received. The stream resumes after it, at any api process and after any time.",
    ))
    .response("200", stream.build());
    Described::new(
        Endpoint::StreamReturn,
        with_errors(operation, &[ErrorKind::NotFound, ErrorKind::TooManyStreams]),
    )
}

fn decide(id: &str, verb: Verb, summary: &str, description: &str) -> Described {
    let tag = string()
        .pattern(Some("^(\\*|\"[0-9]+\")$"))
        .examples([json!("\"1\"")]);
    let operation = operation(id, "decisions", summary, description)
        .parameter(return_id())
        .parameter(header_parameter(
            "If-Match",
            Required::True,
            tag,
            "The `ETag` of the return that the decision is based on; `*` for any version.",
        ))
        .request_body(Some(body::<DecisionBody>(Required::False)))
        .response("200", returned("Done. The return as it is now."));
    Described::new(
        Endpoint::Decide(verb),
        with_errors(
            operation,
            &[
                ErrorKind::NotFound,
                ErrorKind::InvalidTransition,
                ErrorKind::PreconditionFailed,
                ErrorKind::BodyTooLarge,
                ErrorKind::UnsupportedMediaType,
                ErrorKind::UnsupportedContentEncoding,
                ErrorKind::RequestTimeout,
                ErrorKind::InvalidFields,
                ErrorKind::PreconditionRequired,
                ErrorKind::OutcomeUnknown,
            ],
        ),
    )
}

/// A return with its `ETag`, and links to what can be done with both.
fn returned(description: &str) -> ResponseBuilder {
    let with_tag = |operation: &str| {
        LinkBuilder::new()
            .operation_id(operation)
            .parameter("id", "$response.body#/return_id")
            .parameter("If-Match", "$response.header.ETag")
            .build()
    };
    response::<ReturnView>(description)
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
