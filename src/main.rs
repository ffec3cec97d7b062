//! The `gapscan` binary: parse, run, exit code.

fn main() -> std::process::ExitCode {
    gapscan::cli::main()
}
