//! Tools of the system, and what they make of the header and of the examples.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::{
    installed::{INSTALLED, ROOT, passes},
    programs::limited,
};

/// Appends the static library, and the path of the program to make.
pub(crate) fn link(compiler: &mut Command, program: &Path) {
    compiler.arg(INSTALLED.join("lib/libsealane.a")).args(["-lpthread", "-ldl", "-lm", "-o"]).arg(program);
    passes(compiler);
}

pub(crate) fn is_there(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("SKIPPED: {tool} is not installed");
    }
    there
}

/// The functions that the header declares.
pub(crate) fn functions() -> BTreeSet<String> {
    let header = fs::read_to_string(Path::new(ROOT).join("include/sealane.h")).unwrap();
    let declarations =
        header.lines().filter(|line| !line.starts_with([' ', '/', '#', '}']) && line.contains('('));
    let names = declarations.filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next());
    names.filter(|name| name.starts_with("sealane_")).map(ToOwned::to_owned).collect()
}

/// The programs of `examples/NAME`, which this target of its Makefile builds, with these options of the compiler.
pub(crate) fn examples(name: &str, target: &str, options: &str) -> Option<TempDir> {
    if !is_there("pkg-config") || !is_there("make") {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let sources = Path::new(ROOT).join("../../examples").join(name);
    passes(Command::new("cp").arg("-r").arg(sources.join(".")).arg(directory.path()));
    passes(
        Command::new("make")
            .args(["-B", target])
            .env("CFLAGS", format!("-Werror {options}"))
            .env("CXXFLAGS", format!("-Werror {options}"))
            .env("PKG_CONFIG_PATH", INSTALLED.join("lib/pkgconfig"))
            .current_dir(&directory),
    );
    Some(directory)
}

/// The output of one of them.
pub(crate) fn example(name: &str, target: &str, program: &str, arguments: &[&str]) -> Option<String> {
    let directory = examples(name, target, "")?;
    let lib = INSTALLED.join("lib");
    Some(passes(limited(program).args(arguments).env("LD_LIBRARY_PATH", lib).current_dir(&directory)))
}
