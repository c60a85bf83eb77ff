//! Listeners for more than one socket address, and what they may do with a SYN; the filter before
//! them.

mod filter;
mod listing;
mod opens;
mod scopes;
mod support;
mod verdicts;
