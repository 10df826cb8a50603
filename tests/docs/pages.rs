//! The pages of the repository: links lead somewhere in the repository and in rustdoc, and what pages name exists.
//!
//! A page of docs/ is read in the repository and as a module of `sealane::docs`. So its links are labels: the page defines
//! them at its end for the repository, and docs/rustdoc.links, which precedes each page in rustdoc, defines them there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const LINKS: &str = include_str!("../../docs/rustdoc.links");
const LIB: &str = include_str!("../../src/lib.rs");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn has_extension(path: impl AsRef<Path>, extension: &str) -> bool {
    path.as_ref().extension().is_some_and(|found| found == extension)
}

/// All files below `directory` with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    // What a workspace of its own has built.
    if directory.ends_with("target") {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path, extension) } else { vec![path] })
        .filter(|path| has_extension(path, extension))
        .collect()
}

/// A page without its code: no fenced blocks, no spans in backticks but those that are a label.
struct Page {
    path: PathBuf,
    prose: String,
    headings: Vec<String>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let mut fenced = false;
        let (mut prose, mut headings) = (String::new(), Vec::new());
        for line in
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).lines()
        {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                if line.starts_with('#') {
                    headings.push(anchor(line.trim_start_matches('#')));
                }
                prose.push_str(line);
                prose.push('\n');
            }
        }
        assert!(!fenced, "{}: a code block without an end", path.display());
        Self { path: path.to_owned(), prose, headings }
    }

    /// The labels that it defines, with their targets.
    fn definitions(&self) -> BTreeMap<String, String> {
        definitions(&self.prose)
    }

    /// The targets of links and pictures that it writes out: `[text](target)`.
    fn inline(&self) -> Vec<&str> {
        let targets = self.prose.match_indices("](").map(|(at, mark)| &self.prose[at + mark.len()..]);
        targets.map(|rest| rest.split([')', ' ']).next().unwrap()).collect()
    }

    /// The labels that it uses: `[label]` and `[text][label]`.
    fn labels(&self) -> Vec<String> {
        let mut found = Vec::new();
        for line in self.prose.lines().filter(|line| definition(line).is_none()) {
            // Code with brackets is no label; code within brackets is.
            let parts = line
                .split('`')
                .enumerate()
                .map(|(at, part)| if at % 2 == 1 && part.contains('[') { "" } else { part });
            let line = parts.collect::<Vec<_>>().join("`");
            let mut rest = line.as_str();
            while let Some((label, behind)) =
                rest.split_once('[').and_then(|(_, after)| after.split_once(']'))
            {
                // The text of a link whose target or label follows is no label itself.
                if !behind.starts_with(['(', '[']) {
                    found.push(label.to_owned());
                }
                rest = behind;
            }
        }
        found
    }

    fn links_to(&self, target: &str) -> Result<(), String> {
        if target.contains("://") {
            return Ok(());
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = if file.is_empty() { self.path.clone() } else { self.path.parent().unwrap().join(file) };
        if !path.exists() {
            return Err(format!("{}: {target} is not there", self.path.display()));
        }
        let has = heading.is_empty() || Self::read(&path).headings.iter().any(|found| found == heading);
        if has { Ok(()) } else { Err(format!("{}: no heading for {target}", self.path.display())) }
    }
}

/// The anchor of a heading in links, in the repository and in rustdoc.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().flat_map(char::to_lowercase);
    letters
        .filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// A line `[label]: target`.
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

fn definitions(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(definition).map(|(label, target)| (label.to_owned(), target.to_owned())).collect()
}

fn pages() -> Vec<Page> {
    let mut paths: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root().join(name)).into();
    paths.extend(files(&root().join("docs"), "md"));
    paths.iter().map(|path| Page::read(path)).collect()
}

/// The page is a module of `sealane::docs`.
fn is_in_rustdoc(page: &Page) -> bool {
    let name = page.path.file_name().unwrap().to_str().unwrap();
    page.path.parent().unwrap().ends_with("docs") && LIB.contains(&format!("\"{name}\""))
}

#[test]
fn links_of_pages_lead_to_files_and_headings_that_exist() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let definitions = page.definitions();
        let targets = page.inline().into_iter().chain(definitions.values().map(String::as_str));
        for target in targets {
            count += 1;
            wrong.extend(page.links_to(target).err());
        }
        for label in page.labels() {
            if !definitions.contains_key(&label) {
                wrong.push(format!("{}: [{label}] is defined nowhere", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count} links");
}

/// A sentence that begins like a definition, `[label]: `, is one for Markdown, and its line is not shown.
#[test]
fn definitions_of_links_stand_at_the_end_of_their_page() {
    for page in pages() {
        let lines = page.prose.lines().filter(|line| !line.is_empty());
        let hidden =
            lines.skip_while(|line| definition(line).is_none()).find(|line| definition(line).is_none());
        assert_eq!(hidden, None, "{}: text behind a definition", page.path.display());
    }
}

#[test]
fn links_of_pages_in_rustdoc_lead_somewhere_there_too() {
    let there = definitions(LINKS);
    for target in there.values() {
        assert!(target.starts_with("crate"), "{target}: rustdoc checks paths only");
    }
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages().into_iter().filter(is_in_rustdoc) {
        count += 1;
        let path = page.path.display();
        for target in page.inline() {
            if !target.contains("://") && !target.starts_with('#') {
                wrong.push(format!("{path}: {target} leads nowhere in rustdoc: make it a label"));
            }
        }
        for (label, target) in page.definitions() {
            if !target.contains("://") && !there.contains_key(&label) {
                wrong.push(format!("{path}: [{label}] is not in docs/rustdoc.links"));
            }
        }
    }
    let used: Vec<_> =
        pages().iter().filter(|page| is_in_rustdoc(page)).flat_map(Page::definitions).collect();
    for label in there.keys() {
        if !used.iter().any(|(used, _)| used == label) {
            wrong.push(format!("docs/rustdoc.links: no page has a link [{label}]"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 5, "{count} pages in rustdoc");
}

/// The words that are a path from the repository's root.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    const FOLDERS: [&str; 9] =
        ["src/", "tests/", "examples/", "benches/", "crates/", "docs/", "fuzz/", ".ci/", ".cargo/"];
    let words = text.split(|letter: char| !letter.is_alphanumeric() && !"/._-".contains(letter));
    words
        .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder) && word != folder))
        .map(|word| word.trim_end_matches(['.', '/']))
}

#[test]
fn paths_that_pages_name_exist() {
    let mut count = 0;
    for page in pages().into_iter().filter(|page| !page.path.ends_with("CHANGELOG.md")) {
        for path in paths(&page.prose) {
            count += 1;
            assert!(root().join(path).exists(), "{} names {path}", page.path.display());
        }
    }
    assert!(count > 50, "{count} paths");
}

#[test]
fn pages_and_tests_that_sources_name_exist() {
    let mut count = 0;
    for directory in ["src", "tests", "examples", "benches", "crates"] {
        for path in files(&root().join(directory), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let named = paths(&text).filter(|name| {
                (name.starts_with("docs/") && has_extension(name, "md"))
                    || (name.starts_with("tests/") && has_extension(name, "rs"))
            });
            for name in named {
                count += 1;
                assert!(root().join(name).is_file(), "{} names {name}", path.display());
            }
        }
    }
    assert!(count > 10, "{count} names");
}

/// The table of obligations: `| file, names in backticks; another file, names | …`.
#[test]
fn unsafe_page_names_code_that_exists() {
    let page = fs::read_to_string(root().join("docs/unsafe.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| file"));
    let mut count = 0;
    for row in rows {
        let cell = row.trim_matches('|').split('|').next().unwrap();
        for (file, names) in cell.split(';').filter_map(|part| part.trim().split_once(',')) {
            let path = root().join("src/sys").join(file).with_extension("rs");
            let source =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let words: Vec<&str> =
                source.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
            for name in names.split('`').skip(1).step_by(2) {
                let name = name.rsplit("::").next().unwrap();
                assert!(words.contains(&name), "src/sys/{file}.rs has no {name}: {row}");
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} names");
}

#[test]
fn architecture_page_names_files_that_exist() {
    let page = Page::read(&root().join("docs/architecture.md")).prose;
    let names =
        page.split('`').skip(1).step_by(2).filter(|name| name.contains('/') && !name.starts_with("tests/"));
    let mut count = 0;
    for name in names.filter(|name| has_extension(name, "rs") || name.ends_with('/')) {
        assert!(root().join("src").join(name).exists(), "there is no src/{name}");
        count += 1;
    }
    assert!(count > 15, "{count} names");
}

/// The guide's questions are headings in backticks: messages of this library, with `…` for what differs, or of the system.
#[test]
fn error_messages_in_the_guide_are_those_of_the_code() {
    const OF_THE_SYSTEM: [&str; 4] = [
        "Too many open files (os error 24)",
        "Permission denied (os error 13)",
        "Bad system call",
        "Operation not permitted",
    ];
    let code: String =
        files(&root().join("src"), "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let guide = fs::read_to_string(root().join("docs/guide.md")).unwrap();
    let mut count = 0;
    for heading in guide.lines().filter_map(|line| line.strip_prefix("### `")) {
        for message in format!("`{heading}").split('`').skip(1).step_by(2) {
            count += 1;
            let known =
                OF_THE_SYSTEM.contains(&message) || message.split('…').all(|part| code.contains(part));
            assert!(known, "no error says {message:?}");
        }
    }
    assert!(count > 15, "{count} messages");
}

#[test]
fn guide_has_an_index_of_all_examples() {
    let guide = fs::read_to_string(root().join("docs/guide.md")).unwrap();
    let (_, index) = guide.split_once("\n## Examples\n").unwrap();
    // Examples are not part of a package from a registry.
    for path in files(&root().join("examples"), "rs") {
        let folder = path.parent().unwrap();
        let name = if path.ends_with("main.rs") { folder } else { &path.with_extension("") };
        let is_example = path.ends_with("main.rs") || folder.ends_with("examples");
        let name = name.file_name().unwrap().to_str().unwrap();
        assert!(
            !is_example || index.contains(&format!("`{name}`")),
            "the example {name} is not in the guide"
        );
    }
}

#[test]
fn readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 180, "{lines} lines");
}
