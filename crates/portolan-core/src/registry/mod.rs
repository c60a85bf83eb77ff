//! The names of ports: IANA's registry, embedded, and what a machine's own /etc/services adds.
//!
//! ```text
//! IANA ─▶ cargo xtask gen-ports ─▶ data/iana-ports.tsv ─┐
//! use  ───────────────────────────▶ data/local.tsv ─────┴▶ build.rs ─▶ static tables ─┐
//! /etc/services ─▶ Services::with_overrides ──────────────────────────────────────────┴▶ Services
//! ```
//!
//! Three sources, and [`Entry::source`] always says which one speaks. For *display* ([`Services::name`])
//! and for *resolution* ([`Services::ports`]) they are asked in this order: the machine's own file, since
//! its administrator wrote it and since getservbyname(3) obeys it; IANA; names by custom. None hides
//! another in [`Services::entries`].
//!
//! ```
//! use portolan_core::registry::Services;
//! use portolan_core::{Port, Protocol};
//!
//! let services = Services::built_in();
//! assert_eq!(services.name(Port::new(443), Protocol::Udp), Some("https"));
//! let ssh = services.ports("SSH", Protocol::Tcp).unwrap();
//! assert_eq!(ssh.first(), Port::new(22));
//! ```

mod entry;
mod etc_services;
mod glob;
mod services;
mod similar;
mod tables;

pub use entry::{Entry, Names, Source, Status};
pub use etc_services::{Problem, ProblemKind, Problems};
pub use glob::{Glob, GlobError};
pub use services::Services;
