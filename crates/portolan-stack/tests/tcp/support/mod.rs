//! Two stacks and the link between them, under a clock that jumps from event to event; and one stack whose peer
//! follows a script.

pub(crate) mod link;
pub(crate) mod pair;
pub(crate) mod trace;
pub(crate) mod world;
