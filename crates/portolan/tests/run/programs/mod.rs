//! Programs that people run, in a space and beside it.

mod databases;
mod datagrams;
mod http;
mod many;
mod names;
mod remote;
mod throughput;
mod transfers;
