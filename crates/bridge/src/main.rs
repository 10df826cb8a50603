//! The program `sealane-bridge`: see docs/bridge.md.

mod program;

fn main() -> std::process::ExitCode {
    program::main()
}
