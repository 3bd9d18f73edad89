//! The executable: roles and composition, nothing else.

mod allocator;
mod arguments;
mod children;
mod data_dir;
mod failure;
mod help;
mod listeners;
mod process;
mod role;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use bowerbird_config::Settings;
use bowerbird_lifecycle::telemetry;

use self::{
    arguments::{Arguments, Command},
    failure::Failure,
};

/// How long threads that block may take to end after everything has stopped.
const LAST_THREADS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be listening; the exit code says it too.
            let _ = writeln!(io::stderr(), "bowerbird: {failure}");
            failure.exit_code()
        }
    }
}

fn run() -> Result<(), Failure> {
    let Arguments { config, command } = arguments::parse(std::env::args_os().skip(1))?;
    let settings = match command {
        Command::Help(page) => return print(page),
        Command::Version => return print(concat!("bowerbird ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => Settings::load(config.as_deref())?,
    };
    if command == Command::ConfigShow {
        return print(&settings.show()?);
    }
    if matches!(command, Command::Up(_) | Command::Gateway | Command::Actors | Command::Store) {
        allocator::settle();
    }
    telemetry::init(&settings.telemetry).map_err(|error| Failure::Settings(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Unavailable(format!("the runtime cannot be started: {error}")))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Up(options) => Box::pin(role::up::run(settings, options)).await,
            Command::Gateway => Box::pin(role::gateway::run(settings)).await,
            Command::Actors => Box::pin(role::actors::run(settings)).await,
            Command::Store => Box::pin(role::store::run(settings)).await,
            Command::Migrate => role::migrate::run(&settings).await,
            Command::AdminCreate { name } => role::admin::create(&settings, &name).await,
            Command::RebuildStatistics => role::rebuild::statistics(&settings).await,
            Command::RebuildStreams => role::rebuild::streams(&settings).await,
            // Done already.
            Command::Help(_) | Command::Version | Command::ConfigShow => Ok(()),
        }
    });
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

/// Write to standard output. A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Unavailable(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
