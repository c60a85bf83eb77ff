use super::{ALIGNMENT, u16_at, u32_at};

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// What it is: NLMSG_ERROR, NLMSG_DONE, or a type of the family.
    pub(crate) kind: u16,
    /// NLM_F_MULTI, NLM_F_DUMP_INTR, …
    pub(crate) flags: u16,
    /// The sequence number of the request that it answers.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// An answer to a request: an errno, or 0 for "done as asked".
    pub(crate) const ERROR: u16 = 2;
    /// The end of a dump.
    pub(crate) const DONE: u16 = 3;
    /// The kernel lost messages.
    pub(crate) const OVERRUN: u16 = 4;

    /// NLM_F_DUMP_INTR: what is dumped changed during the dump.
    pub(crate) const INTERRUPTED: u16 = 0x10;

    /// Bytes before the payload.
    pub(crate) const HEADER: usize = 16;
}

/// A datagram that does not split into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

/// The messages of one datagram, in order; after a fault nothing more.
#[derive(Clone, Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, BadFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let message = split(bytes);
        if let Some((_, rest)) = message {
            self.rest = rest;
        }
        Some(message.map(|(message, _)| message).ok_or(BadFrame))
    }
}

fn split(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        payload: bytes.get(Message::HEADER..length)?,
    };
    // The padding of the last message may be missing.
    let rest = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
    Some((message, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Request;

    #[test]
    fn a_datagram_splits_into_its_messages() {
        let mut datagram = Request::new(20, 0x301, 7).bytes(b"abcde").finish();
        datagram.resize(datagram.len().next_multiple_of(4), 0);
        datagram.extend(
            Request::new(Message::DONE, 2, 7)
                .bytes(&0_i32.to_ne_bytes())
                .finish(),
        );
        let messages: Vec<_> = Messages::new(&datagram).map(|message| message.unwrap()).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].kind, messages[0].sequence, messages[0].payload),
            (20, 7, &b"abcde"[..])
        );
        assert_eq!((messages[1].kind, messages[1].flags), (Message::DONE, 2));
    }

    #[test]
    fn a_length_beyond_the_datagram_or_below_a_header_ends_it_with_a_fault() {
        for length in [0_u32, 15, 21, u32::MAX] {
            let mut datagram = Request::new(20, 0, 1).bytes(b"abcd").finish();
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            let messages: Vec<_> = Messages::new(&datagram).collect();
            assert_eq!(messages, [Err(BadFrame)], "length {length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Messages::new(&bytes).count() <= bytes.len() / Message::HEADER + 1);
        }
    }
}
