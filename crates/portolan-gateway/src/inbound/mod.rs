//! Ports in: published ports of the host that lead into the space.
//!
//! ```text
//!   Mapping ─▶ Bound::bind ─▶ sockets of the host, all or none       before anything is started
//!                  └▶ Publisher::serve ─▶ Doors (one epoll for all) ─┬▶ tcp: accept ─▶ connect inside ─▶ relay
//!   Publisher::publish, unpublish ─▶ the same, live                  ├▶ shortcut: clients on the host's loopback
//!                                                                    └▶ udp: sessions
//!   Publisher::follow ─▶ auto: what the program listens on ─▶ Porter
//! ```
//!
//! The program sees the client's own address and port. A client on the loopback of the host has none that means anything
//! inside; it appears as the gateway. So does one that has an address of the space itself, so that nobody outside ever
//! appears as the program or its loopback.

mod auto;
mod batch;
mod bound;
mod client;
mod descriptors;
mod doors;
mod error;
mod handed;
mod many;
mod place;
mod porter;
mod publisher;
mod run;
mod shortcut;
mod sys;
mod tcp;
mod udp;

pub use auto::{AutoConfig, Listening, Look, Notice};
pub use bound::{Bound, HolderFinder};
pub(crate) use descriptors::connections_max;
pub use descriptors::raise_descriptor_limit;
pub use error::{PublishError, Refusal};
pub use place::{Place, Published};
pub use porter::{Porter, serve_porter};
pub use publisher::{Admit, Publisher, PublisherConfig, ShortcutConfig};
pub use shortcut::InsideSockets;
pub use udp::{DatagramCounters, SessionLimits};
