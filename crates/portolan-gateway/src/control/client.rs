//! Asking a running space.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use portolan_core::Mapping;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{
    Directory, HostEnd, Notice, PublishedItem, REPLY_MAX, REQUEST_MAX, Reply, Request, SpaceName, rights,
};
use crate::inbound::{Bound, PublishError};

/// A connection to a running space. It blocks.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AskError {
    /// No such space runs.
    #[error("no space named {0} is running; portolan spaces lists those that are")]
    NotRunning(String),
    /// What was asked was not understood.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
    /// Somebody holds a port that was to be published.
    #[error("cannot publish {}/{protocol}: it is held by another program; choose another port", host.port)]
    Taken {
        /// `tcp` or `udp`.
        protocol: String,
        /// Where it is on the host.
        host: HostEnd,
    },
    /// One of the ports that were to be published takes a right that the space has given up.
    #[error("cannot publish low ports: the space has given up the right to")]
    LowPort,
    /// A port that the space may not take, and that this process was to take for it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Talking to it failed.
    #[error("the space does not answer: {0}")]
    Failed(#[from] io::Error),
}

/// A space that is busy answers within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of a command that joins, so many bytes are listed.
const COMMAND_MAX: usize = 4_096;

impl Client {
    /// Connects to a space.
    ///
    /// # Errors
    /// If none runs under this name, or this process may not connect.
    pub fn connect(directory: &Directory, name: &SpaceName) -> Result<Self, AskError> {
        let stream = UnixStream::connect(directory.socket(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NotRunning(name.as_str().to_owned())
            }
            _ => AskError::Failed(error),
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// If there is none, or it is no.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, AskError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, AskError> {
        let mut line = Vec::new();
        (&mut self.stream).take(REPLY_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(AskError::Failed(io::ErrorKind::UnexpectedEof.into()));
        }
        read(&line)
    }

    /// Has ports published, all of the mapping or none, and says which they are. Where low ones are among them, the right to
    /// which the space has given up, `take` is to take them all for it ([`Bound::bind`]).
    ///
    /// # Errors
    /// If there is no answer, or it is no.
    pub fn publish(
        &mut self,
        mapping: &str,
        take: impl FnOnce(Mapping) -> Result<Bound, PublishError>,
    ) -> Result<Vec<PublishedItem>, AskError> {
        let text = mapping.to_owned();
        match self.ask(&Request::Publish { mapping: text }) {
            Err(AskError::LowPort) => {}
            answer => return answer,
        }
        let text = mapping.to_owned();
        let mapping = mapping
            .parse()
            .map_err(|error| AskError::Wrong(format!("{error}")))?;
        let bound = take(mapping)?;
        self.ask::<()>(&Request::PublishTaken { mapping: text })?;
        for sockets in bound.descriptors().chunks(rights::RIGHTS_MAX) {
            rights::send_waiting(self.stream.get_ref(), b"\n", sockets)?;
        }
        self.answer()
    }

    /// Asks that a program may join, by a connection that nothing was asked on. Gives the descriptors of the space's
    /// namespaces, and the connection, which is to stay open as long as the program runs.
    ///
    /// # Errors
    /// If there is no answer, or it is no.
    pub fn join(mut self, mut command: Vec<String>) -> Result<(Vec<OwnedFd>, Joined), AskError> {
        shorten(&mut command);
        let stream = self.stream.get_mut();
        let mut line = serde_json::to_vec(&Request::Join { command }).map_err(io::Error::from)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let (line, namespaces) = rights::receive(stream, REQUEST_MAX)?;
        read::<()>(&line)?;
        stream.set_nonblocking(true)?;
        Ok((namespaces, Joined { stream: self.stream }))
    }

    /// Waits until the space has ended, at most this long; `false` if it has not.
    ///
    /// # Errors
    /// If talking to it fails.
    pub fn wait_for_end(mut self, at_most: Duration) -> io::Result<bool> {
        self.stream.get_mut().set_read_timeout(Some(at_most))?;
        match self.stream.read(&mut [0]) {
            Ok(count) => Ok(count == 0),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The connection of a program that has joined a space.
#[derive(Debug)]
pub struct Joined {
    stream: BufReader<UnixStream>,
}

/// What a space tells a program that has joined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is to end.
    Stop,
    /// It has ended.
    Ended,
}

impl Joined {
    /// Says that the program runs, in this process.
    ///
    /// # Errors
    /// If the space has ended.
    pub fn started(&mut self, pid: i32) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Request::Joined { pid })?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)
    }

    /// What the space says; `None` if it says nothing now. The descriptor ([`AsFd`]) is readable when it does.
    pub fn poll(&mut self) -> Option<News> {
        let mut line = Vec::new();
        match (&mut self.stream)
            .take(REQUEST_MAX as u64)
            .read_until(b'\n', &mut line)
        {
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(Notice::Stop) => Some(News::Stop),
                // At its end the line is empty.
                Err(_) => Some(News::Ended),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(News::Ended),
        }
    }
}

impl AsFd for Joined {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

/// Leaves as many words, from the first, as are to be shown.
fn shorten(command: &mut Vec<String>) {
    let mut bytes = 0;
    let fitting = command.iter().take_while(|word| {
        bytes += word.len();
        bytes <= COMMAND_MAX
    });
    let fitting = fitting.count();
    command.truncate(fitting);
}

/// What a line of a space says.
fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, AskError> {
    match serde_json::from_slice(line).map_err(io::Error::from)? {
        Reply::Done(value) => Ok(serde_json::from_value(value).map_err(io::Error::from)?),
        Reply::Wrong(text) => Err(AskError::Wrong(text)),
        Reply::Refused(text) => Err(AskError::Refused(text)),
        Reply::Taken { protocol, host } => Err(AskError::Taken { protocol, host }),
        Reply::LowPort => Err(AskError::LowPort),
    }
}
