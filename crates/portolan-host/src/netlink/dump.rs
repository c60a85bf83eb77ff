use rustix::io::Errno;

use super::{Message, Messages, Transport, u32_at};

/// Whether a dump is one moment's truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Nothing says otherwise.
    Whole,
    /// The kernel changed what it listed while it listed (NLM_F_DUMP_INTR), or some of it was lost: entries
    /// may be missing or doubled.
    Torn,
}

/// Why a request got no full answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DumpError {
    /// The kernel refused the request itself.
    #[error("the kernel answered: {0}")]
    Refused(Errno),
    /// The socket failed.
    #[error("the netlink socket failed: {0}")]
    Socket(Errno),
    /// The answer is not netlink.
    #[error("the answer is damaged")]
    Damaged,
}

/// Sends `request` and hands the payload of each answer to `take`, up to the end of the dump.
///
/// A torn dump is read to its end, so that the socket can take the next request; what to make of it is the
/// caller's business. `buffer` grows, up to [`BUFFER_LIMIT`], when a datagram did not fit.
pub(crate) fn dump(
    transport: &mut impl Transport,
    buffer: &mut Vec<u8>,
    sequence: u32,
    request: &[u8],
    mut take: impl FnMut(&[u8]),
) -> Result<Consistency, DumpError> {
    transport.send(request).map_err(DumpError::Socket)?;
    let mut consistency = Consistency::Whole;
    loop {
        let length = match transport.receive(buffer) {
            Ok(length) => length,
            // The kernel dropped what did not fit in the receive buffer. The dump itself goes on.
            Err(Errno::NOBUFS) => {
                consistency = Consistency::Torn;
                continue;
            }
            Err(errno) => return Err(DumpError::Socket(errno)),
        };
        if length > buffer.len() {
            // The messages that are in the buffer whole are good; one is cut, the others are gone.
            consistency = Consistency::Torn;
        }
        let datagram = &buffer[..length.min(buffer.len())];
        let mut done = false;
        for message in Messages::new(datagram) {
            let Ok(message) = message else {
                if length > buffer.len() {
                    break;
                }
                return Err(DumpError::Damaged);
            };
            if message.sequence != sequence {
                continue;
            }
            if message.flags & Message::INTERRUPTED != 0 {
                consistency = Consistency::Torn;
            }
            match message.kind {
                Message::DONE | Message::ERROR => {
                    refusal(message.payload)?;
                    done = true;
                    break;
                }
                Message::OVERRUN => consistency = Consistency::Torn,
                _ => take(message.payload),
            }
        }
        if length > buffer.len() {
            buffer.resize(length.next_power_of_two().clamp(buffer.len(), BUFFER_LIMIT), 0);
        }
        if done {
            return Ok(consistency);
        }
        if length == 0 {
            return Err(DumpError::Damaged);
        }
    }
}

/// Sends `request`, which asks for an acknowledgement, and waits for it.
pub(crate) fn acknowledge(
    transport: &mut impl Transport,
    sequence: u32,
    request: &[u8],
) -> Result<(), DumpError> {
    let mut buffer = vec![0; 8 << 10];
    dump(transport, &mut buffer, sequence, request, |_| ()).map(drop)
}

/// The error that the end of an answer carries, if it does: a negative errno first in the payload.
fn refusal(payload: &[u8]) -> Result<(), DumpError> {
    let code = u32_at(payload, 0).map_or(0, u32::cast_signed);
    match code.checked_neg() {
        Some(errno) if errno > 0 => Err(DumpError::Refused(Errno::from_raw_os_error(errno))),
        _ => Ok(()),
    }
}

/// A datagram larger than this is not read whole. The kernel's are 32 KiB at most.
const BUFFER_LIMIT: usize = 4 << 20;

#[cfg(test)]
pub(crate) mod script {
    use std::collections::VecDeque;

    use super::*;

    /// A kernel that answers each request with the next list of datagrams.
    #[derive(Debug, Default)]
    pub(crate) struct Script {
        pub(crate) answers: VecDeque<Vec<Result<Vec<u8>, Errno>>>,
        pending: VecDeque<Result<Vec<u8>, Errno>>,
        pub(crate) requests: Vec<Vec<u8>>,
    }

    impl Script {
        pub(crate) fn new(answers: impl IntoIterator<Item = Vec<Result<Vec<u8>, Errno>>>) -> Self {
            Self {
                answers: answers.into_iter().collect(),
                ..Self::default()
            }
        }
    }

    impl Transport for Script {
        fn send(&mut self, request: &[u8]) -> rustix::io::Result<()> {
            self.requests.push(request.to_vec());
            self.pending.extend(self.answers.pop_front().unwrap_or_default());
            Ok(())
        }

        fn receive(&mut self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
            let datagram = self.pending.pop_front().unwrap_or(Err(Errno::AGAIN))?;
            let length = datagram.len().min(buffer.len());
            buffer[..length].copy_from_slice(&datagram[..length]);
            Ok(datagram.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::script::Script;
    use super::*;
    use crate::netlink::Request;

    const SEQUENCE: u32 = 9;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        Request::new(kind, flags, SEQUENCE).bytes(payload).finish()
    }

    fn done(code: i32) -> Vec<u8> {
        message(Message::DONE, 2, &code.to_ne_bytes())
    }

    fn run(
        datagrams: Vec<Result<Vec<u8>, Errno>>,
        buffer: usize,
    ) -> (Result<Consistency, DumpError>, Vec<Vec<u8>>) {
        let mut taken = Vec::new();
        let result = dump(
            &mut Script::new([datagrams]),
            &mut vec![0; buffer],
            SEQUENCE,
            b"",
            |payload| taken.push(payload.to_vec()),
        );
        (result, taken)
    }

    #[test]
    fn payloads_are_handed_over_until_the_end() {
        let mut first = message(20, 2, b"aaaa");
        first.extend(message(20, 2, b"bbbb"));
        let (result, taken) = run(vec![Ok(first), Ok(message(20, 2, b"cccc")), Ok(done(0))], 4096);
        assert_eq!(result, Ok(Consistency::Whole));
        assert_eq!(taken, [b"aaaa", b"bbbb", b"cccc"]);
    }

    #[test]
    fn an_interrupted_dump_is_read_to_its_end_and_called_torn() {
        let datagrams = vec![
            Ok(message(20, 2 | Message::INTERRUPTED, b"aaaa")),
            Ok(message(20, 2, b"bbbb")),
            Ok(done(0)),
        ];
        let (result, taken) = run(datagrams, 4096);
        assert_eq!((result, taken.len()), (Ok(Consistency::Torn), 2));
    }

    #[test]
    fn lost_datagrams_make_it_torn() {
        for loss in [Err(Errno::NOBUFS), Ok(message(Message::OVERRUN, 0, b""))] {
            let (result, taken) = run(vec![loss, Ok(message(20, 2, b"bbbb")), Ok(done(0))], 4096);
            assert_eq!((result, taken.len()), (Ok(Consistency::Torn), 1));
        }
    }

    #[test]
    fn a_datagram_that_does_not_fit_makes_it_torn_and_the_buffer_larger() {
        let mut long = message(20, 2, b"aaaa");
        long.extend(message(20, 2, &[7; 64]));
        let mut buffer = vec![0; 32];
        let mut script = Script::new([vec![Ok(long.clone()), Ok(done(0))], vec![Ok(long), Ok(done(0))]]);
        let mut taken = 0;
        let result = dump(&mut script, &mut buffer, SEQUENCE, b"", |_| taken += 1);
        assert_eq!((result, taken, buffer.len()), (Ok(Consistency::Torn), 1, 128));
        let result = dump(&mut script, &mut buffer, SEQUENCE, b"", |_| taken += 1);
        assert_eq!((result, taken), (Ok(Consistency::Whole), 3));
    }

    #[test]
    fn a_refusal_is_told_by_its_errno() {
        let no_entry = Errno::NOENT.raw_os_error();
        for end in [
            message(Message::ERROR, 0, &(-no_entry).to_ne_bytes()),
            done(-no_entry),
        ] {
            let (result, _) = run(vec![Ok(end)], 4096);
            assert_eq!(result, Err(DumpError::Refused(Errno::NOENT)));
        }
    }

    #[test]
    fn silence_and_nonsense_end_it() {
        assert_eq!(run(vec![], 4096).0, Err(DumpError::Socket(Errno::AGAIN)));
        assert_eq!(run(vec![Ok(vec![1, 2, 3])], 4096).0, Err(DumpError::Damaged));
        assert_eq!(run(vec![Ok(vec![])], 4096).0, Err(DumpError::Damaged));
    }

    #[test]
    fn answers_to_another_request_are_passed_over() {
        let other = Request::new(20, 2, SEQUENCE - 1).bytes(b"old!").finish();
        let (result, taken) = run(vec![Ok(other), Ok(done(0))], 4096);
        assert_eq!((result, taken.len()), (Ok(Consistency::Whole), 0));
    }

    proptest! {
        #[test]
        fn any_datagrams_end(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..6),
        ) {
            let _ = run(datagrams.into_iter().map(Ok).collect(), 64);
        }
    }
}
