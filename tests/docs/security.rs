//! The tables of docs/security.md name tests and files that exist, and every error that a peer can cause is expected by a
//! test.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below `directory`.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// All words in backticks.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// True if the source has a function of this name that is marked as a test.
fn has_test(source: &str, name: &str) -> bool {
    let mut marked = false;
    source.lines().map(str::trim).any(|line| {
        let found = marked && line.starts_with(&format!("fn {name}("));
        marked = line.contains("test]") || marked && line.starts_with("#[");
        found
    })
}

#[test]
fn the_table_of_attacks_names_files_and_tests_that_exist() {
    let page = text("docs/security.md");
    // Rows of rules have a model where those of attacks have a test.
    let page = page.replace("\n| left out |", "\n| attack |");
    let tables: Vec<_> = page.split("\n| attack |").skip(1).collect();
    assert_eq!(tables.len(), 9, "tables of attacks, and one of rules");
    let rows = tables.iter().flat_map(|table| table.lines().skip(2).take_while(|line| line.starts_with('|')));
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [_attack, _check, place, tests] = cells[..] else { panic!("four cells expected: {row}") };
        for file in names(place) {
            assert!(root().join("src").join(file).is_file(), "src/{file} is no file: {row}");
        }
        let tests = names(tests);
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("file::test expected: {test}"));
            let file = if file.starts_with("src/") { file.to_owned() } else { format!("tests/{file}.rs") };
            assert!(has_test(&text(&file), name), "{file} has no test {name}");
        }
        count += 1;
    }
    assert!(count > 70, "{count} rows found");
}

/// All files of src/error, one after the other.
fn errors() -> String {
    sources(&root().join("src/error")).iter().map(text).collect()
}

/// The variants of an enum of src/error.
fn variants(errors: &str, name: &str) -> Vec<String> {
    let (_, body) = errors.split_once(&format!("pub enum {name} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let indented = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants: Vec<String> = indented
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned())
        .collect();
    assert!(variants.len() > 3, "{name}: {variants:?}");
    variants
}

#[test]
fn every_error_is_what_some_test_expects() {
    let errors = errors();
    let mut tests: String = sources(&root().join("tests"))
        .iter()
        .filter(|path| !path.ends_with(file!()))
        // A list of all reasons and their numbers is no expectation.
        .flat_map(|path| text(path).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| {
            !line.trim().starts_with('(') || !line.contains(", Reason::") || line.contains("Reason::Unknown")
        })
        .map(|line| line + "\n")
        .collect();
    for path in sources(&root().join("src")) {
        if let Some((_, inside)) = text(path).split_once("#[cfg(test)]") {
            tests.push_str(inside);
        }
    }
    for name in ["Error", "HandshakeError", "Reason", "ProtocolError", "CastError", "SealError"] {
        for variant in variants(&errors, name) {
            let full = format!("{name}::{variant}");
            let mut at = tests.match_indices(&full).map(|(at, _)| at);
            let found = at.any(|at| {
                let before = tests[..at].chars().next_back();
                let after = tests[at + full.len()..].chars().next();
                !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
            });
            assert!(found, "no test expects {full}");
        }
    }
}

/// Every violation is committed by a peer: testing the code that finds it is not enough.
#[test]
fn every_violation_is_committed_by_a_peer_in_some_test() {
    let errors = errors();
    let tests = ["tests/hostile/stream.rs", "tests/fanout/hostile_publishers.rs"].map(text).concat();
    for variant in variants(&errors, "ProtocolError") {
        let full = format!("ProtocolError::{variant}");
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric());
        assert!(
            tests.match_indices(&full).any(|(at, _)| ends(&tests[at + full.len()..])),
            "no hostile peer commits {full}"
        );
    }
}
