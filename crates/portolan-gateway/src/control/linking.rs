//! Asking another space for a link.

use std::io;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{REQUEST_MAX, Reply, Request, SpaceName};

/// A space that is busy answers within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the space at the other end to link with `own`. Afterwards `stream` is at the first byte behind the answer.
///
/// # Errors
/// What the other side has against it; nothing, if it does not answer.
pub(crate) async fn ask_link(stream: &UnixStream, own: &SpaceName) -> Result<(), Option<String>> {
    let name = own.as_str().to_owned();
    match timeout(PATIENCE, ask(stream, &Request::Link { name })).await {
        Ok(Ok(Reply::Done(_))) => Ok(()),
        Ok(Ok(Reply::Refused(why) | Reply::Wrong(why))) => Err(Some(why)),
        // Of ports there was no question.
        Ok(Ok(Reply::Taken { .. } | Reply::LowPort) | Err(_)) | Err(_) => Err(None),
    }
}

async fn ask(stream: &UnixStream, request: &Request) -> io::Result<Reply> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut rest = &line[..];
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    line.clear();
    // Byte by byte: what comes behind the answer may come with descriptors.
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.readable().await?;
        match stream.try_read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if line.len() < REQUEST_MAX => line.extend(byte),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(serde_json::from_slice(&line)?)
}
