//! The GPU that the engine would use, or why there is none: `cargo run -p cocoon-inference --features cuda --example gpu`.
#![expect(clippy::disallowed_methods, reason = "a program for people writes to standard output")]

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    writeln!(std::io::stdout(), "{}", cocoon_inference::describe_gpu()?)?;
    Ok(())
}
