//! TUN devices: the link between a stack and the kernel of a Linux host.
//!
//! A [`Tun`] is an interface of the kernel whose other side is this program. What is left undone of a packet (its
//! checksum, its cutting into pieces) is told in the virtio-net header before it, and becomes the stack's
//! [`Offload`](portolan_stack::Offload): a super-segment of 64 KiB crosses in one system call.
//!
//! The descriptor moves one packet in a call: `readv` and `writev` of a TUN device take one packet however many buffers
//! they are given, and there is no `recvmmsg` for it. So what makes it fast is the size of super-segments, and
//! draining it until it would block at each wake-up.
//!
//! This is our own code, and not the crate `tun-rs`: five ioctls and the header are all that is needed, the header must
//! be checked against the packet in any case, and the interface is set up by three netlink messages.

mod device;
mod frames;
pub(crate) mod header;
mod interface;
mod link;
mod readiness;
mod sys;

pub use device::{Offloads, RECV_BUFFER_LEN, Tun, TunConfig, TunCounters, TunError, TunQueue};
pub use frames::FrameLink;
pub use link::TunLink;
