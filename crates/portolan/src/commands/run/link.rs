//! The device of a space as a link of a stack.

use std::io;

use portolan_net::Link;
use portolan_net::tun::{FrameLink, TunLink, TunQueue};
use portolan_space::{Device, DeviceKind, INSIDE_MAC, OUTSIDE_MAC};

/// A link over the first queue of the device. Call it in a runtime of tokio with I/O.
pub(super) fn over(device: Device) -> io::Result<Box<dyn Link>> {
    let mtu = device.mtu as usize;
    let queue = device.queues.into_iter().next();
    let queue = queue.ok_or_else(|| io::Error::other("the device of the space has no queue"))?;
    Ok(match device.kind {
        DeviceKind::Tun => Box::new(TunLink::new(TunQueue::from(queue), mtu, device.offloads)?),
        DeviceKind::Veth => Box::new(FrameLink::new(
            queue,
            OUTSIDE_MAC,
            INSIDE_MAC,
            mtu,
            device.offloads,
        )?),
        _ => return Err(io::ErrorKind::Unsupported.into()),
    })
}
