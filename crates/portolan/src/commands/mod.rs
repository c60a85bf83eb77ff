//! The commands, a file each: its arguments and its `run`.

pub(crate) mod completions;
pub(crate) mod decode;
#[cfg(target_os = "linux")]
pub(crate) mod explain;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod name;
pub(crate) mod parse;
#[cfg(target_os = "linux")]
pub(crate) mod pick;
#[cfg(target_os = "linux")]
pub(crate) mod who;
