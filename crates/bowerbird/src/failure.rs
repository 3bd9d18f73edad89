//! Why the executable ends other than well: one sentence for people, one exit code for machines.

use std::process::ExitCode;

/// A sentence that says what to do, and the kind that decides the exit code (numbers of BSD's `sysexits.h`).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line, a setting, or what a setting names is wrong: exit code 64.
    #[error("{0}")]
    Settings(String),
    /// Something that is needed is not there, too old, taken or full: exit code 69.
    #[error("{0}")]
    Unavailable(String),
    /// It ran, and a part of it failed too often to go on: exit code 70.
    #[error("{0}")]
    GaveUp(String),
    /// A signal came before everything was started: exit code 0, as that is what was asked for.
    #[error("stopped while starting")]
    Stopped,
    /// A second signal: exit code 130, as a shell reports an interrupted program.
    #[error("ended at once, as a second signal asked; what was running resumes at the next start")]
    Aborted,
}

impl Failure {
    /// The exit code of this kind of failure.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Settings(_) => 64,
            Failure::Unavailable(_) => 69,
            Failure::GaveUp(_) => 70,
            Failure::Stopped => 0,
            Failure::Aborted => 130,
        })
    }
}

impl From<bowerbird_config::Error> for Failure {
    fn from(error: bowerbird_config::Error) -> Self {
        Failure::Settings(error.to_string())
    }
}

/// `error: source: source of source`, for the sentence of a failure whose cause is worth showing.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {source}")]
        struct Outer {
            source: std::io::Error,
        }
        let error = Outer { source: std::io::Error::other("inner") };
        assert_eq!(chain(&error), "outer: inner");
    }
}
