//! Prints `openapi.json`: `cargo run -p bowerbird-gateway --example openapi > gateway/openapi.json`.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::io::stdout().write_all(bowerbird_gateway::openapi_document()?.as_bytes())?;
    Ok(())
}
