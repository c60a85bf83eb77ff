//! Fewer rights for this process, which reads what the program sends.

use portolan_space::sandbox;

use crate::message;

/// Gives up whatever serving takes no more. What the system does not let us give up is told if `verbose`: it is a
/// second wall, and the first stands without it.
pub(super) fn enter(verbose: bool) {
    let tell = |what: &str, error: &dyn std::fmt::Display| {
        if verbose {
            message::say(&format!("sandbox: cannot {what}: {error}"));
        }
    };
    if let Err(error) = sandbox::leave_mounts() {
        tell("leave the file systems", &error);
    }
    if let Err(error) = sandbox::drop_capabilities() {
        tell("give up capabilities", &error);
    }
    if let Err(error) = sandbox::forbid_dumps() {
        tell("forbid dumps of memory", &error);
    }
    match sandbox::forbid_files() {
        Ok(true) => {}
        Ok(false) => tell("forbid all files", &"this kernel has no Landlock, or an old one"),
        Err(error) => tell("forbid files", &error),
    }
    if let Err(error) = sandbox::limit_system_calls() {
        tell("limit system calls", &error);
    }
}
