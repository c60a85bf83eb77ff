//! The JSON shapes that several commands share; docs/json.md describes every field.

mod socket;

use std::fmt::Display;

use serde::{Serialize, Serializer};

pub(crate) use socket::{HiddenObject, SocketObject};

/// The version of every document.
pub(crate) const VERSION: u32 = 1;

/// Prints a value as a string, without making one first.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
