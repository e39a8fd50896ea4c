//! Files under `docs/` that are generated from code and checked in. Tests compare them.

/// Compares `docs/NAME` with `text`. If `UPDATE_DOCS` is set, the file is written first.
#[expect(
    clippy::disallowed_methods,
    reason = "this variable is for developers, not a setting of a program"
)]
pub(crate) fn assert_equal(name: &str, text: &[u8]) {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).expect("docs can be written");
    }
    let copy = std::fs::read(&path).unwrap_or_default();
    assert!(
        copy == text,
        "docs/{name} is not what the code says. Run this test again with UPDATE_DOCS=1, and commit the file."
    );
}
