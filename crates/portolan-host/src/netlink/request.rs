use super::ALIGNMENT;
use super::attribute;

/// A netlink request being written.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// NLM_F_REQUEST.
    pub(crate) const REQUEST: u16 = 0x1;
    /// NLM_F_ACK.
    pub(crate) const ACKNOWLEDGE: u16 = 0x4;
    /// NLM_F_DUMP.
    pub(crate) const DUMP: u16 = 0x300;

    /// The header of a request of this type.
    pub(crate) fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // The sender's port: the kernel fills in our own.
        bytes.extend([0; 4]);
        Self { bytes }
    }

    /// Appends the fixed part.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// Appends an attribute. `value` is shorter than 64 KiB less its header.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(attribute::HEADER + value.len()).expect("an attribute is below 64 KiB");
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// The datagram.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a request is small");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}
