//! Why there was no space, in a word for programs: what `portolan run` itself can fail at, beside the steps of
//! portolan-space and the ports of portolan-gateway, which have words of their own.

use std::fmt::Display;

use crate::exit::Failure;

/// Each stays the same for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// What the kernel says of routes and addresses cannot be read.
    HostNetwork,
    /// There is no randomness.
    Randomness,
    /// A file that was named cannot be read or written.
    File,
    /// The socket for `portolan spaces` cannot be made, or its name is taken.
    ControlSocket,
    /// A space cannot be joined.
    Join,
    /// A space that runs wants no link with this one.
    NotLinked,
    /// What the program listens on cannot be followed.
    Auto,
    /// What serves the space cannot be started, or failed.
    Gateway,
}

impl Code {
    #[cfg(test)]
    pub(super) const ALL: [Self; 8] = [
        Self::HostNetwork,
        Self::Randomness,
        Self::File,
        Self::ControlSocket,
        Self::Join,
        Self::NotLinked,
        Self::Auto,
        Self::Gateway,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::HostNetwork => "host-network",
            Self::Randomness => "randomness",
            Self::File => "file",
            Self::ControlSocket => "control-socket",
            Self::Join => "join",
            Self::NotLinked => "not-linked",
            Self::Auto => "auto",
            Self::Gateway => "gateway",
        }
    }

    /// The failure that has this word.
    pub(super) fn failure(self, text: impl Display) -> Failure {
        failure(text, self.word())
    }
}

/// A failure with the word for programs at the end.
pub(super) fn failure(text: impl Display, word: &str) -> Failure {
    Failure::Run(format!("{text} [{word}]"))
}
