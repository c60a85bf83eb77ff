//! What these tests share.

pub(crate) mod counting;
pub(crate) mod namespace;
pub(crate) mod wire;
pub(crate) mod world;
