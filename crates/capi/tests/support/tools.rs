//! Tools of the system, and what they make of the header and of the examples.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

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

/// What a program of `examples/NAME` prints, which the target of the Makefile there builds.
pub(crate) fn example(name: &str, target: &str, program: &str, arguments: &[&str]) -> Option<String> {
    if !is_there("pkg-config") || !is_there("make") {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let sources = Path::new(ROOT).join("../../examples").join(name);
    passes(Command::new("cp").arg("-r").arg(sources.join(".")).arg(directory.path()));
    let lib = INSTALLED.join("lib");
    passes(
        Command::new("make")
            .args(["-B", target])
            .env("CFLAGS", "-Werror")
            .env("CXXFLAGS", "-Werror")
            .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
            .current_dir(&directory),
    );
    Some(passes(limited(program).args(arguments).env("LD_LIBRARY_PATH", lib).current_dir(&directory)))
}
