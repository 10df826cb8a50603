//! The library as it is installed, for tests and benchmarks that use it.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The library, installed: `include` and `lib`.
pub(crate) static INSTALLED: LazyLock<PathBuf> = LazyLock::new(|| {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("installed-", env!("CARGO_CRATE_NAME")));
    let mut install = Command::new(Path::new(ROOT).join("install"));
    // Variables of the cargo that runs this program would change what is built.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
        install.env_remove(name);
    }
    passes(install.env_remove("RUSTFLAGS").arg(&prefix));
    prefix
});

/// Runs a command that has to succeed, and returns what it prints.
pub(crate) fn passes(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout
}
