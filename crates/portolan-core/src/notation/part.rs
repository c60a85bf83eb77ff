use super::error::{NotationError, NotationErrorKind};

/// A part of the input that knows its place in the whole, so that faults found in it do too.
///
/// All offsets lie on the borders of characters: parts are cut at ASCII characters only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    whole: &'a str,
    start: usize,
    end: usize,
}

impl<'a> Part<'a> {
    pub(super) fn whole(text: &'a str) -> Self {
        Self {
            whole: text,
            start: 0,
            end: text.len(),
        }
    }

    pub(super) fn text(self) -> &'a str {
        &self.whole[self.start..self.end]
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// What follows the first `offset` bytes.
    pub(super) fn from(self, offset: usize) -> Self {
        Self {
            start: self.start + offset,
            ..self
        }
    }

    /// The first `offset` bytes.
    pub(super) fn until(self, offset: usize) -> Self {
        Self {
            end: self.start + offset,
            ..self
        }
    }

    /// What stands before and after the first `separator`, which is ASCII.
    pub(super) fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let at = self.text().find(separator)?;
        Some((self.until(at), self.from(at + 1)))
    }

    /// What stands before and after the last `separator`, which is ASCII.
    pub(super) fn rsplit_once(self, separator: char) -> Option<(Self, Self)> {
        let at = self.text().rfind(separator)?;
        Some((self.until(at), self.from(at + 1)))
    }

    /// The parts between `separator`s, which are ASCII; at least one.
    pub(super) fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let part = rest?;
            let (first, others) = match part.split_once(separator) {
                Some((first, others)) => (first, Some(others)),
                None => (part, None),
            };
            rest = others;
            Some(first)
        })
    }

    /// A fault `offset` bytes from the beginning of the part.
    pub(super) fn fault(self, kind: NotationErrorKind, offset: usize) -> NotationError {
        NotationError::new(kind, self.start + offset, self.whole)
    }

    /// A fault at the end of the part.
    pub(super) fn fault_at_end(self, kind: NotationErrorKind) -> NotationError {
        NotationError::new(kind, self.end, self.whole)
    }

    /// The fault that `char`, `offset` bytes from the beginning, has no business there.
    pub(super) fn unexpected(self, char: char, offset: usize) -> NotationError {
        let kind = if char.is_whitespace() {
            NotationErrorKind::Blank
        } else if char.is_numeric() && !char.is_ascii() {
            NotationErrorKind::ForeignDigit(char)
        } else {
            NotationErrorKind::Unexpected(char)
        };
        self.fault(kind, offset)
    }
}
