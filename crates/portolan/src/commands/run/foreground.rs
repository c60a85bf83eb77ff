//! The terminal, if there is one, and whose keys it gives to whom.

use std::fs::File;

use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal of this process. Dropped when the program has ended, it is given back to the group that had it before: a
/// shell that was the program cannot do that, since it does not see our group from its PID namespace.
#[derive(Debug)]
pub(super) struct Terminal {
    file: File,
    group: Pid,
    /// Our group is the one that may read from it, or the program has given it to one of its own.
    is_ours: bool,
}

impl Terminal {
    /// The terminal, whose keys stop and continue jobs. To be opened before files are given up.
    pub(super) fn open() -> Option<Self> {
        let file = File::open("/dev/tty").ok()?;
        let mut terminal = Self {
            file,
            group: getpgrp(),
            is_ours: false,
        };
        terminal.look();
        Some(terminal)
    }

    /// To be called when this process goes on after a stop: whoever continued it has said who has the terminal.
    pub(super) fn look(&mut self) {
        self.is_ours = tcgetpgrp(&self.file) == Ok(self.group);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // From the background it takes SIGTTOU held back, as all signals are.
        if self.is_ours && tcgetpgrp(&self.file) != Ok(self.group) {
            let _ = tcsetpgrp(&self.file, self.group);
        }
    }
}
