//! The program `sealane-bridge`: carries topics between machines from a command line or a file, and shows how they do.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
