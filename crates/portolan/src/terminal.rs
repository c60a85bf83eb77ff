//! The terminal that standard output leads to, if it does.

/// The columns that a line may have: `COLUMNS` if it is set to a number, else the terminal's; `None` for
/// pipes and files, where lines are as long as they are.
pub(crate) fn width() -> Option<usize> {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .or_else(of_stdout)
        .filter(|&columns| columns > 0)
}

#[cfg(unix)]
fn of_stdout() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col))
}

#[cfg(not(unix))]
fn of_stdout() -> Option<usize> {
    None
}
