//! The contract: an OpenAPI 3.1 document, generated from the types of requests and responses.
//!
//! `docs/openapi.json` is a copy for code generators and reviewers; a test compares the two.

mod notification;
mod operations;
mod parts;

use std::sync::LazyLock;

use bytes::Bytes;
use shared::domain::refund::notification::Notification;
use utoipa::openapi::path::Paths;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr,
    ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::errors::Problem;
use super::query::Page;
use super::routes::{DecisionBody, FilingBody};
use super::views::{EventView, OperatorActionView, OrderView, ReturnView};
use crate::filing::ReceiptBody;
use crate::streams::{StreamEnd, StreamStatus};

/// The document as it is served.
pub(crate) static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut text = document()
        .to_pretty_json()
        .expect("a document of strings and numbers always serializes");
    text.push('\n');
    text.into()
});

const ABOUT: &str = "\
Customers of a shop return orders; each return is refunded once. \
A return is filed with `POST /returns`. Then decisions of people, and the refund itself, change its status. \
Every change raises its `version` and is one event of its audit trail.

**Retries are safe**: of a filing with the same `Idempotency-Key`, of a decision with the same `ETag` in `If-Match`. \
**Errors** are `application/problem+json` (RFC 9457); the `type` of each is a page of this server. \
**Money** is a decimal string with its currency; **times** are RFC 3339 in UTC.

**Ids** are numbers up to 2^63-1. A browser's `JSON.parse` rounds those above 2^53 without a sign: parse them there as `BigInt` \
or as text, and compare them only so. **HEAD** is answered wherever GET is.";

/// The whole contract.
fn document() -> OpenApi {
    let mut paths = Paths::new();
    for operation in operations::all() {
        operation.add_to(&mut paths);
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Order returns")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT))
                .contact(Some(
                    ContactBuilder::new()
                        .name(Some("The operators of this server"))
                        .build(),
                ))
                .license(Some(
                    LicenseBuilder::new()
                        .name("MIT OR Apache-2.0")
                        .identifier(Some("MIT OR Apache-2.0"))
                        .build(),
                ))
                .build(),
        )
        // Relative to the address of this document (OpenAPI 3.1, 4.8.5): the api does not know its own.
        .servers(Some([ServerBuilder::new()
            .url("/")
            .description(Some("The server of this document."))
            .build()]))
        .paths(paths)
        .components(Some(components().build()))
        .security(Some([SecurityRequirement::new(
            BEARER,
            std::iter::empty::<String>(),
        )]))
        .tags(Some([
            tag("returns", "File a return and follow it."),
            tag("orders", "Orders that may be returned."),
            tag(
                "audit",
                "What happened, in records that cannot be changed unnoticed.",
            ),
            tag(
                "operators",
                "What people did with the operators' command line, and why.",
            ),
            tag(
                "decisions",
                "Decisions of people about a return, by its `ETag`.",
            ),
            tag("gateway", "For the payment provider."),
        ]))
        .build()
}

const BEARER: &str = "bearer";

fn tag(name: &str, description: &str) -> utoipa::openapi::Tag {
    TagBuilder::new()
        .name(name)
        .description(Some(description))
        .build()
}

fn components() -> ComponentsBuilder {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT or Biscuit")
        .description(Some(
            "A JWT (with dots) or a Biscuit (without dots). Its role is `customer`, `admin` or `auditor`.",
        ))
        .build();
    let mut schemas = Vec::new();
    with_its_parts::<Problem>(&mut schemas);
    with_its_parts::<FilingBody>(&mut schemas);
    with_its_parts::<ReceiptBody>(&mut schemas);
    with_its_parts::<DecisionBody>(&mut schemas);
    with_its_parts::<Notification>(&mut schemas);
    page_of::<ReturnView>(&mut schemas);
    page_of::<EventView>(&mut schemas);
    page_of::<OrderView>(&mut schemas);
    page_of::<OperatorActionView>(&mut schemas);
    with_its_parts::<StreamStatus>(&mut schemas);
    with_its_parts::<StreamEnd>(&mut schemas);
    let components = ComponentsBuilder::new()
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .schemas_from_iter(schemas);
    parts::problem_examples().fold(components, |components, (name, example)| {
        components.example(name, example)
    })
}

/// A page and the schema of its items. The generic type has one name for all pages.
fn page_of<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>)
where
    Page<T>: ToSchema,
{
    schemas.push((parts::page_name::<T>(), Page::<T>::schema()));
    with_its_parts::<T>(schemas);
}

/// A type's schema, and the schemas that it refers to.
fn with_its_parts<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs_copy;

    #[test]
    fn the_copy_in_docs_is_the_document() {
        docs_copy::assert_equal("openapi.json", &DOCUMENT);
    }

    /// utoipa puts the description of an inlined type into an object, which would be a second type.
    #[test]
    fn no_schema_has_two_types() {
        fn check(value: &serde_json::Value) {
            if let Some(parts) = value["allOf"].as_array() {
                let mut types: Vec<_> = parts.iter().filter_map(|part| part.get("type")).collect();
                types.dedup();
                assert!(types.len() < 2, "{value}");
            }
            match value {
                serde_json::Value::Array(values) => values.iter().for_each(check),
                serde_json::Value::Object(fields) => fields.values().for_each(check),
                _ => {}
            }
        }
        check(&serde_json::to_value(document()).expect("JSON"));
    }

    #[test]
    fn every_reference_has_its_target() {
        let document = serde_json::to_value(document()).expect("JSON");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().expect("a pointer");
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
