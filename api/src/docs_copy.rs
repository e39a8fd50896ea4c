//! Files under `docs/` that are made from code: checked in, and kept equal by a test.

/// Compares `docs/NAME` with `text`; with `UPDATE_DOCS` set it is written first.
#[expect(
    clippy::disallowed_methods,
    reason = "how a checked-in copy is renewed is no setting of a binary"
)]
pub(crate) fn assert_equal(name: &str, text: &[u8]) {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).expect("docs can be written");
    }
    let copy = std::fs::read(&path).unwrap_or_default();
    assert!(
        copy == text,
        "docs/{name} is old: UPDATE_DOCS=1 cargo test -p api --lib"
    );
}
