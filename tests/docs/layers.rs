//! The folders of `src` are layers: each imports from the layers before it only. docs/architecture.md has the same order.

use std::{fs, path::Path};

/// From the ground up. Those of one line do not import each other.
const LAYERS: [&[&str]; 10] = [
    &["error"],
    &["protocol", "wait"],
    &["sys"],
    &["memory"],
    &["socket"],
    &["ring"],
    &["channel"],
    &["connect"],
    &["fanout"],
    &["tokio"],
];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&name))
}

/// The modules that a file imports, apart from its tests: the names behind `crate::`, alone or in braces.
fn imports(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use crate::") {
        let statement = text[at + "use crate::".len()..].split(';').next().unwrap();
        let mut depth = 0;
        let mut words = String::new();
        for letter in statement.chars() {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            // Names in a brace of their own belong to the name before it.
            words.push(if depth > i32::from(statement.starts_with('{')) { ' ' } else { letter });
        }
        let names =
            words.split(['{', '}', ',']).map(|path| path.trim().split("::").next().unwrap().to_owned());
        found.extend(names.filter(|name| name.starts_with(char::is_lowercase)));
    }
    found
}

/// Lines of code in a file: neither empty nor a comment, apart from its tests.
fn lines_of_code(text: &str) -> usize {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// Checks a layer's file, or all files of its folder, and says how many there were.
fn check(path: &Path, own: usize, name: &str) -> usize {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|entry| check(&entry.unwrap().path(), own, name)).sum();
    }
    let text = fs::read_to_string(path).unwrap();
    let lines = lines_of_code(&text);
    assert!(lines <= 300, "{} has {lines} lines of code: look for the second concept in it", path.display());
    for import in imports(&text) {
        let other = layer(&import).unwrap_or_else(|| panic!("{}: {import} is no layer", path.display()));
        assert!(
            other < own || import == name,
            "{} imports {import}, which is no lower layer",
            path.display()
        );
    }
    1
}

#[test]
fn modules_are_short_and_import_from_lower_layers_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    for (own, names) in LAYERS.iter().enumerate() {
        for name in *names {
            let path = src.join(name);
            files += check(&if path.is_dir() { path } else { path.with_extension("rs") }, own, name);
        }
    }
    assert!(files > 40, "{files} files");
    // The only other file is the crate's face.
    for entry in fs::read_dir(&src).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        assert!(name == "lib" || layer(name).is_some(), "src/{name} is in no layer");
    }
}

#[test]
fn imports_are_found_in_every_form() {
    assert_eq!(imports("use crate::error::Error;"), ["error"]);
    let nested = "use crate::{\n    error::{Error, Result},\n    wait::Deadline,\n    channel::{Channel, loan::{self}},\n};";
    assert_eq!(imports(nested), ["error", "wait", "channel"]);
    assert_eq!(imports("pub(crate) use crate::sys;\n#[cfg(test)]\nuse crate::connect::x;"), ["sys"]);
}
