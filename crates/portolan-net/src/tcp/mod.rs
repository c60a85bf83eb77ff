//! TCP sockets.

mod connect;
mod connection;
mod deadline;
mod listener;
mod settings;
mod split;
mod stream;

pub use connect::ConnectOptions;
pub use listener::{HeldSyn, ListenOptions, TcpListener};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::{Closed, TcpStream};
