//! The file in which the commands of a script are noted, one a line, instead of being run.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// The file, and how far it was read.
#[derive(Debug)]
pub(crate) struct Control {
    path: Option<PathBuf>,
    read: u64,
}

impl Control {
    /// Nothing was read.
    pub(crate) const fn new(path: Option<PathBuf>) -> Self {
        Self { path, read: 0 }
    }

    /// The lines that were added and are whole. A file that is not there has none.
    pub(crate) fn new_lines(&mut self) -> Vec<String> {
        let added = self.path.as_ref().and_then(|path| {
            let mut file = File::open(path).ok()?;
            if file.metadata().ok()?.len() <= self.read {
                return None;
            }
            file.seek(SeekFrom::Start(self.read)).ok()?;
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            Some(text)
        });
        let Some((whole, _)) = added.as_deref().and_then(|text| text.rsplit_once('\n')) else {
            return Vec::new();
        };
        self.read += whole.len() as u64 + 1;
        whole.lines().map(str::to_owned).collect()
    }
}
