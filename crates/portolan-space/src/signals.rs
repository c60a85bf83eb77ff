//! Signals to the maker, which are meant for the program.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result, read};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::sys::{self, SignalMask};

/// Every signal to this process, held back and to be read instead, so that the program can be told of them.
///
/// Dropping it does not let them through again.
#[derive(Debug)]
pub struct Signals {
    descriptor: OwnedFd,
    process: OwnedFd,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub number: i32,
    /// It is of the kernel, as when a key is pressed; then the whole foreground group of the terminal has got it.
    pub from_kernel: bool,
}

/// struct signalfd_siginfo, 128 bytes: signal, errno and code, 4 bytes each.
pub(crate) const SIGNAL_INFO_LEN: usize = 128;

impl Signals {
    /// Holds back all signals of the calling thread and of those that it starts from now on. Call it after
    /// [`Space::start`](crate::Space::start), which hands the present mask to the program, and before there are other
    /// threads.
    ///
    /// # Errors
    /// If there are too few descriptors.
    pub fn hold() -> Result<Self> {
        let process = pidfd_open(getpid(), PidfdFlags::empty())?;
        let descriptor = sys::signal_descriptor()?;
        SignalMask::full().apply();
        Ok(Self { descriptor, process })
    }

    /// The next signal; `None` if there is none now. The descriptor ([`AsFd`]) is readable when there is.
    ///
    /// # Errors
    /// If the system fails.
    pub fn poll(&self) -> Result<Option<Received>> {
        let mut buffer = [MaybeUninit::uninit(); SIGNAL_INFO_LEN];
        let info = loop {
            match read(&self.descriptor, &mut buffer[..]) {
                Ok((info, _)) => break info,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        };
        let Some((numbers, _)) = info.split_first_chunk::<12>() else {
            return Ok(None);
        };
        let number =
            |at: usize| i32::from_ne_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
        Ok(Some(Received {
            number: number(0),
            from_kernel: number(8) > 0,
        }))
    }

    /// Stops this process, as the terminal stops a job; returns when it is continued.
    ///
    /// # Errors
    /// If the system fails.
    pub fn stop(&self) -> Result<()> {
        pidfd_send_signal(&self.process, Signal::STOP)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
