//! How ports and what holds them are written, and the faults that such text can have.
//!
//! ```text
//!  text ─▶ Part ─▶ Notation::parse ─┬▶ url ─▶ host, number
//!                                   ├▶ mapping ─▶ host, range
//!                                   ├▶ endpoint ─▶ host ─▶ address, host name
//!                                   └▶ port_set ─▶ range, service ─▶ ServiceNames
//! ```
//! Each type's `Display` writes the canonical form, and reading that gives an equal value. Nothing here
//! is trimmed or guessed; a fault is a [`NotationError`] with its kind and its place.

mod address;
mod any;
mod endpoint;
mod error;
mod host;
mod mapping;
mod number;
mod part;
mod port_set;
mod protocol;
mod publish;
mod scheme;
mod services;
mod url;

pub use address::{Address, Zone, takes_zone};
pub use any::Notation;
pub use endpoint::Endpoint;
pub use error::{Element, NotationError, NotationErrorKind};
pub use host::{Host, HostName};
pub use mapping::{Mapping, MappingProtocol};
pub use publish::{Automatic, Exception, Publication};
pub use scheme::{Scheme, scheme};
pub use services::ServiceNames;
pub use url::Url;
