//! Logs and spans. Text for people, JSON for machines; an OTLP layer has its place beside the formatter.

use std::io;

use bowerbird_config::{LogFormat, Telemetry};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `telemetry.filter` is not understood.
    #[error("telemetry.filter: `{filter}` is not a filter such as `info` or `info,bowerbird_actors=debug`")]
    Filter {
        /// What was configured.
        filter: String,
        /// What the parser said.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is there already.
    #[error("telemetry was set up twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Set up logging to standard error for the whole process. To be called once.
pub fn init(settings: &Telemetry) -> Result<(), Error> {
    let filter =
        EnvFilter::try_new(&settings.filter).map_err(|source| Error::Filter { filter: settings.filter.clone(), source })?;
    let formatter = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let formatter = match settings.format {
        LogFormat::Text => formatter.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => formatter.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(formatter).try_init().map_err(Error::Twice)
}
