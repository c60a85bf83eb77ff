//! Asking a person before something is done that cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::exit::Failure;
use crate::message::one_line;

/// Asks on the terminal; only `y` and `yes` mean yes.
///
/// # Errors
/// Without a terminal nobody can be asked, and so nothing may be done: `option` is what says yes beforehand.
pub(crate) fn ask(question: &str, option: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(format!(
            "there is no terminal to ask on, so nothing was done; {option} does it without asking"
        )));
    }
    let mut stderr = io::stderr();
    write!(stderr, "{} [y/N] ", one_line(question))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}
