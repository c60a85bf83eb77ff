//! Connections that must show whom they are for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_net::TcpStream;
use tokio::time::timeout;

use crate::gate::{Gate, Pass, SHOWN_BYTES_MAX, Shown, shown_name};

/// For how long a connection may show nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads until the connection shows a name, and gives what was read if the rule allows that name. Nothing of it has
/// left then; if it does not show one in time, or never will, it is denied, and counted by the gate.
pub(super) async fn shown(inside: &TcpStream, gate: &Gate, pass: &Pass) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    let reading = async {
        loop {
            match shown_name(&bytes) {
                Shown::Name(name) => return Some(name),
                Shown::Nothing => return None,
                Shown::More => {}
            }
            // At the end there is no more, and of a failure nobody needs to hear.
            match inside.read_chunk(SHOWN_BYTES_MAX).await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    };
    let allowed = match timeout(PATIENCE, reading).await {
        Ok(Some(name)) => gate.check_name(pass, &name).is_ok(),
        Ok(None) | Err(_) => {
            let _ = gate.no_name(pass);
            false
        }
    };
    allowed.then(|| bytes.freeze())
}
