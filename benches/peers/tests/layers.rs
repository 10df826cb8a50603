//! The order of the modules: main.rs declares them in layers, from the ground up, and each block of `mod` lines is a layer.
//! A file has at most 300 lines of code. Its tests do not count.

use std::{fs, path::Path};

#[test]
fn modules_import_from_lower_layers_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let main = fs::read_to_string(src.join("main.rs")).unwrap();
    let declared = |line| str::strip_prefix(line, "mod ")?.strip_suffix(';');
    let layers: Vec<Vec<&str>> =
        main.split("\n\n").map(|block| block.lines().filter_map(declared).collect()).collect();
    for (level, layer) in layers.iter().enumerate() {
        let not_lower = layers[level..].concat();
        for module in layer {
            let folder = fs::read_dir(src.join(module)).into_iter().flatten();
            let file = src.join(module).with_extension("rs");
            for path in folder.map(|entry| entry.unwrap().path()).chain(file.exists().then_some(file)) {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap();
                let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
                let lines = text.lines().map(str::trim).filter(is_code).count();
                assert!(lines <= 300, "{} has {lines} lines of code", path.display());
                assert!(!text.contains("super::"), "{}: expected only imports from `crate`", path.display());
                for import in text.split("crate::").skip(1).filter_map(|rest| rest.split(';').next()) {
                    for name in import.split(|c: char| !c.is_alphanumeric() && c != '_') {
                        assert!(!not_lower.contains(&name), "{} imports from `{name}`", path.display());
                    }
                }
            }
        }
    }
}
