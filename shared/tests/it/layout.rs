//! Imports run one way: no circle of top-level modules in any crate, and no import from a lower to a higher floor.
//!
//! Both `use` lines and paths such as `crate::x::y` in code count. Comments and the crate root do not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CRATES: [&str; 7] = [
    "shared",
    "api",
    "relay",
    "refund-consumer",
    "ctl",
    "e2e",
    "bench",
];

/// The top-level modules of a crate, from the lowest floor to the highest. A module may import its own floor and lower
/// ones.
type Floors = &'static [&'static [&'static str]];

const API: Floors = &[
    &["docs_copy", "error", "metrics", "quota"],
    &["store"],
    &[
        "audit",
        "auth",
        "backlog",
        "decisions",
        "filing",
        "idempotency",
        "notifications",
        "streams",
        "unclaimed",
    ],
    &["http"],
    &["app", "config", "open_files"],
];

const SHARED: Floors = &[&["domain"], &["auth", "runtime", "test_support"]];

/// An import of one top-level module by another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Import {
    from: String,
    to: String,
    /// File, line number and text.
    place: String,
}

#[test]
fn no_crate_has_a_circle_of_modules() {
    let broken: Vec<String> = CRATES
        .into_iter()
        .flat_map(roots)
        .flat_map(|root| circles(&imports(&root)))
        .collect();
    assert!(broken.is_empty(), "circles:\n{}", broken.join("\n"));
}

#[test]
fn no_module_imports_a_higher_floor() {
    let mut broken = Vec::new();
    for (name, floors) in [("api", API), ("shared", SHARED)] {
        for root in roots(name) {
            broken.extend(upward(&imports(&root), floors));
        }
    }
    assert!(broken.is_empty(), "upward imports:\n{}", broken.join("\n"));
}

/// The folders with a crate root: `src`, and each program of several files below `src/bin`.
fn roots(name: &str) -> Vec<PathBuf> {
    let src = workspace().join(name).join("src");
    let programs = std::fs::read_dir(src.join("bin"))
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.is_dir());
    let programs: Vec<PathBuf> = programs.collect();
    std::iter::once(src).chain(programs).collect()
}

fn workspace() -> &'static Path {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR"));
    shared
        .parent()
        .expect("shared is a folder of the workspace")
}

fn imports(root: &Path) -> Vec<Import> {
    let mut files = Vec::new();
    rust_files(root, &mut files);
    let module = |file: &Path| top_module(root, file);
    let modules: BTreeSet<String> = files.iter().filter_map(|file| module(file)).collect();
    let mut found = Vec::new();
    for file in &files {
        let Some(from) = module(file) else { continue };
        let text = std::fs::read_to_string(file).expect("a readable file");
        let depth = file
            .strip_prefix(root)
            .map_or(0, |path| path.components().count());
        for (line, to) in named(&text, depth) {
            if to != from && modules.contains(&to) {
                let code = text.lines().nth(line).unwrap_or_default().trim();
                let shown = file.strip_prefix(workspace()).unwrap_or(file).display();
                let place = format!("{shown}:{}: {code}", line + 1);
                found.push(Import {
                    from: from.clone(),
                    to,
                    place,
                });
            }
        }
    }
    found
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `src/filing/group.rs` belongs to `filing`. `None` for the crate root and for programs below `src/bin`.
fn top_module(root: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(root).ok()?.components().next()?;
    let first = first.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main", "bin"].contains(&name)).then(|| name.to_owned())
}

/// The items of the crate root that a file names: the line, from 0, and the name. `depth` is the number of components of
/// the file's path below the crate root.
fn named(text: &str, depth: usize) -> Vec<(usize, String)> {
    let code: String = text
        .lines()
        .map(|line| without_comment(line) + "\n")
        .collect();
    // From a file at this depth, this leads to the crate root. An indented `use super::…` belongs to an inline module.
    let supers = format!("\nuse {}", "super::".repeat(depth));
    let mut found = Vec::new();
    for prefix in ["crate::", supers.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let is_whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if is_whole_word || prefix.starts_with('\n') {
                let start = at + prefix.len();
                let line = code[..start].matches('\n').count();
                found.extend(first_segments(&code[start..]).map(|name| (line, name)));
            }
        }
    }
    found
}

/// Doc comments go too. A `//` within text is rare, and cutting it there hides no import.
fn without_comment(line: &str) -> String {
    line.split("//").next().unwrap_or_default().to_owned()
}

/// `a` of `a::b`, or each first segment of `{a, b::c}`.
fn first_segments(path: &str) -> impl Iterator<Item = String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let group = path.strip_prefix('{').map(|inner| {
        let (mut depth, mut parts) = (0, vec![String::new()]);
        for c in inner.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => parts.push(String::new()),
                c => parts.last_mut().expect("never empty").push(c),
            }
        }
        parts
    });
    let parts = group.unwrap_or_else(|| vec![path.to_owned()]);
    parts.into_iter().filter_map(move |part| {
        let part = part.trim_start();
        let name = part.split(|c: char| !is_name(c)).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    })
}

/// The imports between modules that reach each other.
fn circles(imports: &[Import]) -> Vec<String> {
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        edges.entry(&import.from).or_default().insert(&import.to);
    }
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(module) = next.pop() {
            if module == to {
                return true;
            }
            let targets = edges.get(module.as_str()).into_iter().flatten();
            next.extend(
                targets
                    .filter(|target| seen.insert(**target))
                    .map(|target| (*target).to_owned()),
            );
        }
        false
    };
    let in_circle = imports
        .iter()
        .filter(|import| reaches(&import.to, &import.from));
    in_circle
        .map(|import| format!("{} -> {}: {}", import.from, import.to, import.place))
        .collect()
}

/// The imports from a lower to a higher floor, and modules without a floor.
fn upward(imports: &[Import], floors: Floors) -> Vec<String> {
    let floor = |module: &str| floors.iter().position(|floor| floor.contains(&module));
    imports
        .iter()
        .filter_map(|import| match (floor(&import.from), floor(&import.to)) {
            (Some(from), Some(to)) if to <= from => None,
            (Some(_), Some(_)) => Some(format!(
                "{} -> {}: {}",
                import.from, import.to, import.place
            )),
            (None, _) => Some(format!(
                "{} has no floor in shared/tests/it/layout.rs",
                import.from
            )),
            (_, None) => Some(format!(
                "{} has no floor in shared/tests/it/layout.rs",
                import.to
            )),
        })
        .collect()
}

#[test]
fn every_form_of_an_import_is_found() {
    let text = "use crate::store::{self, Row};\nuse crate::{a, b::{c, d}};\nuse super::super::e;\n\
                // crate::comment\nfn f() { crate::inline::g(); mycrate::no::h() }\n    use super::nested;\n";
    let mut names: Vec<_> = named(text, 2).into_iter().collect();
    names.sort();
    let expected = [(0, "store"), (1, "a"), (1, "b"), (2, "e"), (4, "inline")];
    assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
}

#[test]
fn a_circle_of_three_is_found() {
    let import = |from: &str, to: &str| Import {
        from: from.to_owned(),
        to: to.to_owned(),
        place: String::new(),
    };
    let imports = [
        import("a", "b"),
        import("b", "c"),
        import("c", "a"),
        import("d", "a"),
    ];
    assert_eq!(circles(&imports), ["a -> b: ", "b -> c: ", "c -> a: "]);
    assert_eq!(upward(&imports[..2], &[&["c"], &["b"], &["a"]]).len(), 0);
    assert_eq!(upward(&imports[..1], &[&["a"], &["b"]]), ["a -> b: "]);
}
