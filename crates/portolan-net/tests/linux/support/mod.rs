//! What the tests against Linux share.

pub(crate) mod driver;
pub(crate) mod flow;
pub(crate) mod impair;
pub(crate) mod kernel;
pub(crate) mod namespace;
pub(crate) mod pattern;
