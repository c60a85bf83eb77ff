//! Standard output: buffered, coloured only where a person looks, and honest about write errors.

use std::io::{self, BufWriter, Write};

use anstream::AutoStream;

/// Where a command prints.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<AutoStream<io::Stdout>>,
}

impl Output {
    /// Standard output. `NO_COLOR` and pipes get plain text.
    pub(crate) fn stdout() -> Self {
        Self {
            writer: BufWriter::with_capacity(64 * 1024, AutoStream::auto(io::stdout())),
        }
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
