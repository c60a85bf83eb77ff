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

/// Whether the locale has letters beyond ASCII: not where it was set to C or POSIX.
pub(crate) fn is_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    locale.is_none_or(|value| value != "C" && value != "POSIX")
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
