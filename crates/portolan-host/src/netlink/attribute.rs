use super::{ALIGNMENT, u16_at};

/// The attributes behind a message's fixed part, as (type, value); a damaged one ends them.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.rest);
        let length = usize::from(u16_at(bytes, 0)?);
        // The two highest bits are flags: nested, and network byte order.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(HEADER..length)?;
        self.rest = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// Bytes before the value.
pub(super) const HEADER: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::{Message, Request};

    #[test]
    fn attributes_come_back_as_they_were_written() {
        let request = Request::new(20, 0, 1)
            .attribute(3, b"eth0\0")
            .attribute(11, &[1])
            .finish();
        let attributes: Vec<_> = Attributes::new(&request[Message::HEADER..]).collect();
        assert_eq!(attributes, [(3, &b"eth0\0"[..]), (11, &[1][..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Attributes::new(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
