//! TCP from outside: scripts of packets with their times, and simulated worlds.

mod adversary;
mod close;
mod handshake;
mod hardening;
mod receiving;
mod recovery;
mod sending;
mod simulation;
mod support;
mod worlds;
