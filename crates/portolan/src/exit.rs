//! How a command ends: its answer or its failure, and the exit code of each.

use std::io;
use std::process::ExitCode;

use crate::message;

/// What a command found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or yes: code 0.
    Yes,
    /// The answer is no: code 1.
    No,
    /// A program was run: its own code.
    Program(u8),
}

/// Why a command could not answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong: code 2.
    Usage(String),
    /// The answer is no, and this is why: code 1.
    No(String),
    /// The system does not let us: code 3.
    NotPermitted(String),
    /// The system failed: code 4.
    System(String),
    /// The program to be run could not be started, through no fault of its own: code 125.
    Run(String),
    /// The program to be run is not there: code 127, as in a shell.
    ProgramNotFound(String),
    /// The program to be run cannot be executed: code 126, as in a shell.
    ProgramNotExecutable(String),
    /// Standard output cannot be written: code 4, except that a closed pipe is a normal end.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Prints a failure to standard error, in one line, and gives the exit code.
pub(crate) fn report(answer: Result<Answer, Failure>) -> ExitCode {
    let (text, code) = match answer {
        Ok(Answer::Yes) => return ExitCode::SUCCESS,
        Ok(Answer::Program(code)) => return ExitCode::from(code),
        Ok(Answer::No) => return ExitCode::from(1),
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::No(text)) => (text, 1),
        Err(Failure::NotPermitted(text)) => (text, 3),
        Err(Failure::System(text)) => (text, 4),
        Err(Failure::Run(text)) => (text, 125),
        Err(Failure::ProgramNotFound(text)) => (text, 127),
        Err(Failure::ProgramNotExecutable(text)) => (text, 126),
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(Failure::Output(error)) => (format!("cannot write to standard output: {error}"), 4),
    };
    message::say_failure(&text);
    ExitCode::from(code)
}
