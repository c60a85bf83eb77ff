//! TCP from outside: scripts of packets with their times, and simulated worlds.

mod adversary;
mod asked;
mod close;
mod cookies;
mod handshake;
mod hardening;
mod options;
mod path;
mod receiving;
mod recovery;
mod sending;
mod simulation;
mod support;
mod tuning;
mod undo;
mod urgent;
mod worlds;
