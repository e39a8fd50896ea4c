//! The names of attributes. Standard ones are those of the OpenTelemetry semantic conventions in the version of
//! [`SCHEMA_URL`]; those of messaging may still change, and change here.

pub use opentelemetry_semantic_conventions::SCHEMA_URL;
pub use opentelemetry_semantic_conventions::attribute::{
    CLIENT_ADDRESS, DB_OPERATION_BATCH_SIZE, DB_OPERATION_NAME, DB_RESPONSE_STATUS_CODE,
    DB_SYSTEM_NAME, ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_REQUEST_RESEND_COUNT,
    HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, MESSAGING_BATCH_MESSAGE_COUNT,
    MESSAGING_CONSUMER_GROUP_NAME, MESSAGING_DESTINATION_NAME, MESSAGING_DESTINATION_PARTITION_ID,
    MESSAGING_KAFKA_MESSAGE_KEY, MESSAGING_KAFKA_OFFSET, MESSAGING_MESSAGE_CONVERSATION_ID,
    MESSAGING_MESSAGE_ID, MESSAGING_OPERATION_NAME, MESSAGING_OPERATION_TYPE, MESSAGING_SYSTEM,
    SERVER_ADDRESS, SERVER_PORT, URL_FULL, URL_PATH, URL_SCHEME,
};
pub use opentelemetry_semantic_conventions::resource::{
    SERVICE_INSTANCE_ID, SERVICE_NAMESPACE, SERVICE_VERSION,
};

/// The request id, as it stands in the response and the log.
pub const REQUEST_ID: &str = "returns.request_id";
/// The value of `error.type` for work that nobody waited for any more.
pub const CANCELLED: &str = "cancelled";
/// How many requests or settlements a piece of work was done for. For messages there is a standard name.
pub const BATCH_SIZE: &str = "returns.batch_size";
/// The return that a span is about.
pub const RETURN_ID: &str = "returns.return_id";
/// How long an event waited in the outbox, in milliseconds.
pub const OUTBOX_WAIT_MS: &str = "outbox.wait_ms";
/// What became of a record: `claimed`, `duplicate`, ...
pub const REFUND_RESULT: &str = "refund.result";
/// The number of the attempt to refund a return, from 1.
pub const REFUND_ATTEMPT: &str = "refund.attempt";
/// How the attempt was settled: `refunded`, `declined`, `postponed`, ...
pub const REFUND_OUTCOME: &str = "refund.outcome";
