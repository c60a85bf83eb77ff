//! How things are shown to people: tables, ends of sockets, those who hold them.

pub(crate) mod address;
pub(crate) mod ownerless;
pub(crate) mod service;
pub(crate) mod table;
pub(crate) mod wrap;
