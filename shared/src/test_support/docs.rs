//! Documents that are generated from the code and compared with it.

use std::path::{Path, PathBuf};

/// Compares the section `## NAME` of `docs/FILE` with `text`, which begins with that heading. With `UPDATE_DOCS=1` in
/// the environment it writes the section instead.
///
/// # Panics
/// The section is missing or differs.
#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the tests, not a setting"
)]
pub fn check_section(file: &str, text: &str) {
    let path = docs().join(file);
    let heading = text.lines().next().expect("a heading");
    let page = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (start, end) =
        find(&page, heading).unwrap_or_else(|| panic!("{file} has no section {heading:?}"));
    if page[start..end].trim_end() == text.trim_end() {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let page = format!("{}{}\n\n{}", &page[..start], text.trim_end(), &page[end..]);
        std::fs::write(&path, page.trim_end().to_owned() + "\n").expect("docs/ is writable");
        return;
    }
    panic!(
        "docs/{file}, section {heading:?}, is not what the code says. Run this test again with UPDATE_DOCS=1, and commit the file."
    );
}

/// Where the section begins and where the next one does.
fn find(page: &str, heading: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut start = None;
    for line in page.split_inclusive('\n') {
        match start {
            None if line.trim_end() == heading => start = Some(at),
            Some(start) if line.starts_with("## ") => return Some((start, at)),
            _ => {}
        }
        at += line.len();
    }
    Some((start?, at))
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}
