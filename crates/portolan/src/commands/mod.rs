//! The commands, a file each: its arguments and its `run`.

pub(crate) mod completions;
pub(crate) mod decode;
#[cfg(portolan_elsewhere)]
mod elsewhere;
#[cfg(not(portolan_elsewhere))]
pub(crate) mod explain;
#[cfg(not(portolan_elsewhere))]
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod name;
pub(crate) mod parse;
#[cfg(not(portolan_elsewhere))]
pub(crate) mod pick;
#[cfg(not(portolan_elsewhere))]
pub(crate) mod run;
#[cfg(not(portolan_elsewhere))]
pub(crate) mod spaces;
#[cfg(not(portolan_elsewhere))]
pub(crate) mod who;

#[cfg(portolan_elsewhere)]
pub(crate) use elsewhere::{explain, list, pick, run, spaces, who};
