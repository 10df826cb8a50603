//! The library as it is installed, and the system's compilers: for the tests in C and in C++.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
    time::Duration,
};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The library, installed: `include` and `lib`.
pub(crate) static INSTALLED: LazyLock<PathBuf> = LazyLock::new(|| {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("installed-", env!("CARGO_CRATE_NAME")));
    let mut install = Command::new(Path::new(ROOT).join("install"));
    // Variables of the cargo that runs this test would change what is built.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
        install.env_remove(name);
    }
    passes(install.env_remove("RUSTFLAGS").arg(&prefix));
    prefix
});

/// A program that fails if it hangs.
pub(crate) fn limited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(program);
    command
}

/// What a command prints, which succeeds.
pub(crate) fn passes(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout
}

/// A compiler of the system, with warnings as errors.
pub(crate) fn compiler(name: &str, standard: &str) -> Command {
    let mut compiler = Command::new(name);
    compiler.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-I"]);
    compiler.arg(INSTALLED.join("include"));
    compiler
}

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

/// What a program of `examples/NAME` prints, which are built by their own Makefile.
pub(crate) fn example(name: &str, program: &str) -> Option<String> {
    if !is_there("pkg-config") || !is_there("make") {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    for file in fs::read_dir(Path::new(ROOT).join("../../examples").join(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
    }
    let lib = INSTALLED.join("lib");
    passes(
        Command::new("make")
            .arg("-B")
            .env("CFLAGS", "-Werror")
            .env("CXXFLAGS", "-Werror")
            .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
            .current_dir(&directory),
    );
    Some(passes(limited(program).env("LD_LIBRARY_PATH", lib).current_dir(&directory)))
}
