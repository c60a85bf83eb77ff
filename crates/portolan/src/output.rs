//! Standard output: buffered, coloured only where a person looks, and honest about write errors.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use anstream::AutoStream;

/// Where a command prints.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<AutoStream<io::Stdout>>,
    is_terminal: bool,
}

impl Output {
    /// Standard output. `NO_COLOR` and pipes get plain text.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self {
            writer: BufWriter::with_capacity(64 * 1024, AutoStream::auto(stdout)),
            is_terminal,
        }
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes out what is still buffered.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
