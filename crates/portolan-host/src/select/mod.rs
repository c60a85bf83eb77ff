//! Which sockets of a snapshot are meant: the filters of a person and of ss(8), as one language.
//!
//! ```text
//! words ─▶ tokens ─▶ parse ─▶ Expression ─┬▶ bounds ──▶ Query (what the kernel can filter by itself)
//!            items ────┘  (Names: services,│
//!                          devices, users) └▶ matcher ─▶ Matcher::matches(index of a socket)
//! ```
//!
//! Two ways of writing lead to one expression:
//!
//! - **Items**: `8080`, `8000-8100`, `53/udp`, `https`, `nginx`, `10.0.0.0/8`, `[::1]:80`, `tcp`. Items of
//!   one kind (protocol, port, address, holder) are alternatives; different kinds must all hold.
//! - **Expressions** of ss(8): `sport = :22 and not dst 10.0.0.0/8`. One word of its grammar makes the whole
//!   an expression, in which items may stand as tests too. `and` and `or` have the same rank and are taken
//!   from left to right, as ss takes them (its manual says otherwise).
//!
//! Nothing here asks the kernel for sockets. What names mean on a machine is asked through [`Names`].

mod bounds;
mod error;
mod expression;
mod glob;
mod holder;
mod host_names;
mod item;
mod matcher;
mod names;
mod operand;
mod parse;
mod ranges;
mod selection;
mod states;
mod tokens;

pub use error::{FilterError, FilterFault};
pub use host_names::HostNames;
pub use matcher::Matcher;
pub use names::Names;
pub use selection::Selection;
pub use states::{UnknownState, states_named};
