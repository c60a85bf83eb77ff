//! Standard output: buffered, coloured only where a person looks, and honest about write errors.

use std::io::{self, BufWriter, Write};

use anstream::{AutoStream, ColorChoice};

/// Where a command prints.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<io::Stdout>,
    colour: bool,
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let colour = match AutoStream::choice(&stdout) {
            ColorChoice::Never => false,
            ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => true,
        };
        Self {
            writer: BufWriter::with_capacity(64 * 1024, stdout),
            colour,
        }
    }

    /// Whether styles may be written: to a terminal, unless `NO_COLOR` forbids it.
    ///
    /// What is written is passed on as it is, so that long lists to a pipe are not searched for styles.
    pub(crate) fn colour(&self) -> bool {
        self.colour
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
