//! Tests that need MySQL or compare the code with the documents.

mod alerts;
mod database;
mod docs;
mod layout;
mod statement_spans;
mod tooling;
