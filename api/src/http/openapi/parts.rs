//! The building blocks of operations: parameters, headers, responses, and errors from the catalogue.

use std::collections::BTreeMap;

use serde_json::json;
use shared::domain::trace_context::TraceContext;
use utoipa::ToSchema;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, Response};
use warp::http::Method;

use crate::error::ErrorKind;
use crate::http::errors::{Entry, PROBLEM_JSON, Problem};
use crate::http::public_url::PublicUrl;
use crate::http::routes::{Endpoint, location};

/// An operation with its method and path.
pub(super) struct Described {
    method: HttpMethod,
    path: &'static str,
    operation: Operation,
}

impl Described {
    /// At the method and path of the endpoint.
    pub(super) fn new(endpoint: Endpoint, operation: OperationBuilder) -> Self {
        let (method, path) = location(endpoint);
        let method = if method == Method::GET {
            HttpMethod::Get
        } else {
            HttpMethod::Post
        };
        Self {
            method,
            path,
            operation: operation.build(),
        }
    }

    pub(super) fn add_to(self, paths: &mut Paths) {
        paths.add_path_operation(self.path, vec![self.method], self.operation);
    }
}

/// An operation. Its id is a verb and a noun, because generated clients name their methods after it.
pub(super) fn operation(id: &str, tag: &str, summary: &str, description: &str) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(id))
        .tag(tag)
        .summary(Some(summary))
        .description(Some(description))
}

/// The errors that every operation can return.
const EVERYWHERE: [ErrorKind; 7] = [
    ErrorKind::BadRequest,
    ErrorKind::MethodNotAllowed,
    ErrorKind::UriTooLong,
    ErrorKind::RateLimited,
    ErrorKind::HttpVersionNotSupported,
    ErrorKind::Unavailable,
    ErrorKind::Internal,
];

/// The errors that every operation with a token can return.
const WITH_TOKEN: [ErrorKind; 4] = [
    ErrorKind::Unauthenticated,
    ErrorKind::Forbidden,
    ErrorKind::Undecided,
    ErrorKind::RevocationsUnknown,
];

/// Adds these errors, and those of every operation with a token: one response for each status, with an example of each
/// kind.
pub(super) fn with_errors(operation: OperationBuilder, errors: &[ErrorKind]) -> OperationBuilder {
    with_errors_of_all(operation, &[&WITH_TOKEN, errors].concat())
}

/// Adds these errors, and those of every operation.
pub(super) fn with_errors_of_all(
    mut operation: OperationBuilder,
    errors: &[ErrorKind],
) -> OperationBuilder {
    let mut by_status: BTreeMap<u16, Vec<Entry>> = BTreeMap::new();
    for problem in EVERYWHERE.iter().chain(errors) {
        let entry = problem.entry();
        by_status
            .entry(entry.status.as_u16())
            .or_default()
            .push(entry);
    }
    for (status, entries) in by_status {
        operation = operation.response(status.to_string(), problem(&entries));
    }
    // Written by hyper itself, which has no problem document.
    let too_large = "More than 64 headers, or more than 32 KiB of them. Without a body; the connection is closed.";
    operation.response("431", ResponseBuilder::new().description(too_large))
}

fn problem(entries: &[Entry]) -> Response {
    let lines: Vec<String> = entries
        .iter()
        .map(|entry| format!("`{}`: {}", entry.code, entry.when))
        .collect();
    let examples = entries.iter().map(|entry| {
        let example = Ref::new(format!("#/components/examples/{}", entry.code));
        (entry.code, RefOr::<Example>::Ref(example))
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(lines.join("\n\n"))
        .content(PROBLEM_JSON, content)
        .header("X-Request-Id", request_id());
    let statuses: Vec<u16> = entries.iter().map(|entry| entry.status.as_u16()).collect();
    if let Some((name, description)) = also_sent(&statuses) {
        response = response.header(name, header(string().build(), description));
    }
    if entries.iter().any(Entry::has_retry_after) {
        let seconds = integer().minimum(Some(1)).build();
        response = response.header(
            "Retry-After",
            header(seconds, "Seconds after which the same request may succeed."),
        );
    }
    response.build()
}

/// The additional header of an error with this status.
fn also_sent(statuses: &[u16]) -> Option<(&'static str, &'static str)> {
    match statuses {
        [401, ..] | [403, ..] => {
            Some(("WWW-Authenticate", "The required kind of token (RFC 6750)."))
        }
        [405, ..] => Some(("Allow", "The methods that the path supports.")),
        _ => None,
    }
}

/// An example of each kind of error.
pub(super) fn problem_examples() -> impl Iterator<Item = (&'static str, Example)> {
    ErrorKind::catalogue().into_iter().map(|entry| {
        let trace = TraceContext::new(
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            0x00f0_67aa_0ba9_02b7,
            1,
        );
        let problem = Problem::new(
            entry,
            "01a1f8a4-6c1e-7b7c-8d6e-3f0f8f0c9b1a",
            &trace,
            &PublicUrl::default(),
        );
        let example = ExampleBuilder::new()
            .summary(entry.title)
            .value(Some(json!(problem)));
        (entry.code, example.build())
    })
}

/// A response with a JSON body.
pub(super) fn response<T: ToSchema>(description: &str) -> ResponseBuilder {
    response_with(&T::name(), description)
}

/// A page of these.
pub(super) fn page<T: ToSchema>(description: &str) -> ResponseBuilder {
    response_with(&page_name::<T>(), description)
}

pub(super) fn page_name<T: ToSchema>() -> String {
    format!("{}Page", T::name())
}

fn response_with(schema: &str, description: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(description)
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(schema)))
                .build(),
        )
        .header("X-Request-Id", request_id())
}

/// The JSON body of a request.
pub(super) fn body<T: ToSchema>(required: Required) -> RequestBody {
    RequestBodyBuilder::new()
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(T::name())))
                .build(),
        )
        .required(Some(required))
        .build()
}

pub(super) fn request_id() -> Header {
    let text = string().pattern(Some("^[A-Za-z0-9._:-]{1,64}$"));
    header(
        text.build(),
        "The `X-Request-Id` that a trusted proxy sent, or a generated one. Operators find the request in the log by it.",
    )
}

pub(super) fn etag() -> Header {
    let tag = string().pattern(Some("^\"[0-9]+\"$")).build();
    header(
        tag,
        "The version in quotes, for `If-Match` and `If-None-Match`.",
    )
}

pub(super) fn header(schema: Object, description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some(description))
        .build()
}

pub(super) fn return_id() -> Parameter {
    let id = integer()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(1));
    ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The return's id."))
        .schema(Some(id))
        .build()
}

pub(super) fn header_parameter(
    name: &str,
    required: Required,
    schema: ObjectBuilder,
    description: &str,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(required)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

pub(super) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

pub(super) fn integer() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer)
}
