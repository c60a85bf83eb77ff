//! Files of the host that change while the gateway runs, and after it has left the host's file system.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reads a file of the host as it is now.
pub type Reader = Box<dyn Fn() -> io::Result<String> + Send + Sync>;

/// What a file says, read again as it changes.
pub(super) struct Source<T> {
    read: Reader,
    state: Mutex<State<T>>,
}

struct State<T> {
    text: Option<String>,
    value: Arc<T>,
    read_at: Option<Instant>,
}

/// How long what was read counts as current.
const CURRENT: Duration = Duration::from_secs(1);

impl<T: for<'a> From<&'a str>> Source<T> {
    /// A source that has not been read yet.
    pub(super) fn new(read: Reader) -> Self {
        let state = State {
            text: None,
            value: Arc::new(T::from("")),
            read_at: None,
        };
        Self {
            read,
            state: Mutex::new(state),
        }
    }

    /// A source that says the same for ever.
    #[cfg(test)]
    pub(super) fn fixed(value: T) -> Self {
        let mut source = Self::new(Box::new(|| Err(io::ErrorKind::NotFound.into())));
        source.state.get_mut().unwrap().value = Arc::new(value);
        source
    }

    /// What the file says. If it cannot be read, what it said last.
    pub(super) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.read_at.is_none_or(|at| now.duration_since(at) >= CURRENT) {
            state.read_at = Some(now);
            if let Ok(text) = (self.read)()
                && state.text.as_deref() != Some(&*text)
            {
                state.value = Arc::new(T::from(&text));
                state.text = Some(text);
            }
        }
        Arc::clone(&state.value)
    }
}

/// What a file of the host says, as told by whoever still sees it: the gateway has left the host's file system. Clones
/// are the same.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    text: Arc<Mutex<String>>,
}

impl Feed {
    /// A feed that begins with this text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self {
            text: Arc::new(Mutex::new(text)),
        }
    }

    /// The file says this now. It is seen within a second.
    pub fn set(&self, text: String) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// A reader of what was told last.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let text = Arc::clone(&self.text);
        Box::new(move || Ok(text.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(String);

    impl From<&str> for Text {
        fn from(text: &str) -> Self {
            Self(text.to_owned())
        }
    }

    #[test]
    fn what_is_fed_is_read_and_read_again() {
        let feed = Feed::new("one".to_owned());
        let source = Source::<Text>::new(feed.reader());
        assert_eq!(source.current().0, "one");
        feed.set("two".to_owned());
        source.state.lock().unwrap().read_at = None;
        assert_eq!(source.current().0, "two");
    }

    #[test]
    fn what_cannot_be_read_is_what_it_was() {
        let results = Mutex::new(vec![Err(io::ErrorKind::NotFound.into()), Ok("one".to_owned())]);
        let reader = move || results.lock().unwrap().pop().unwrap();
        let source = Source::<Text>::new(Box::new(reader));
        assert_eq!(source.current().0, "one");
        // Within a second nothing is read.
        assert_eq!(source.current().0, "one");
        source.state.lock().unwrap().read_at = None;
        assert_eq!(source.current().0, "one");
    }
}
