//! A port space, seen from its maker.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use portolan_net::tun::Offloads;
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, pidfd_open, pidfd_send_signal, waitid,
    waitpid,
};

use crate::channel::{Channel, Message, Received};
use crate::config::{Execution, Network, SpaceConfig};
use crate::device::{Device, DeviceKind};
use crate::error::{Obstacle, SpaceError, Step};
use crate::facts::Facts;
use crate::id_map;
use crate::membership::Membership;
use crate::setup::{self, Plan};
use crate::sockets::Sockets;
use crate::sys::{self, SignalMask};

/// A port space, and the program in it. Dropping it ends everything inside.
#[derive(Debug)]
pub struct Space {
    channel: Channel,
    sockets: Sockets,
    init: OwnedFd,
    init_pid: Pid,
    program: Option<Pid>,
    /// The same, of a space that was joined.
    joined_program: Option<OwnedFd>,
    device: Option<Device>,
    membership: Option<Membership>,
    notes: Vec<Obstacle>,
    has_pid_namespace: bool,
    has_shortcut: bool,
    is_over: bool,
    is_lost: bool,
}

/// What happens in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The program's process is there, and becomes the program now.
    Started {
        /// Its number out here.
        pid: i32,
    },
    /// It could not become the program; [`Event::Ended`] follows, with code 126 or 127.
    NotRun(Errno),
    /// The program was stopped by this signal, and waits for SIGCONT.
    Stopped(i32),
    /// The program ended, and nothing else is left of the space.
    Ended(Ended),
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal of this number; also when the space was ended from outside.
    Killed(i32),
}

impl Ended {
    /// The exit code that says the same in shells: the program's own, or 128 and the number of the signal.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

impl Space {
    /// Makes the namespaces and the device, up to where the program could start; [`Space::go`] starts it.
    ///
    /// Takes milliseconds, in which the calling thread waits. It forks this process: better before there are other
    /// threads. The space and its program inherit the directory, the standard streams, limits and the like of this
    /// process, and no other descriptor.
    ///
    /// # Errors
    /// The step that the system forbids, with reason and remedy; what was made before is gone again. Steps that can be
    /// done without are in [`Space::notes`].
    pub fn start(config: &SpaceConfig) -> Result<Self, SpaceError> {
        let execution = Execution::new(&config.program)?;
        match Self::attempt(config, &execution, true) {
            // In containers /proc is often covered in parts, and then nobody may mount a new one. One that shows
            // other processes than there are would mislead programs more than seeing those of the host.
            Err(Failure(Some((step @ (Step::Proc | Step::PidNamespace | Step::MountNamespace), errno)))) => {
                let mut space = Self::attempt(config, &execution, false).map_err(Failure::into_error)?;
                if space.notes.iter().all(|note| note.step() != step) {
                    space.notes.insert(0, Obstacle::new(step, errno, &Facts::read()));
                }
                Ok(space)
            }
            other => other.map_err(Failure::into_error),
        }
    }

    fn attempt(config: &SpaceConfig, execution: &Execution, pid_namespace: bool) -> Result<Self, Failure> {
        let (channel, inner) = Channel::pair()?;
        let (sockets, inner_sockets) = Channel::pair()?;
        channel.tell_senders()?;
        // A handler of this process must not run in its copies; the program gets the mask back.
        let signals = SignalMask::full().apply();
        let plan = Plan {
            config,
            execution,
            pid_namespace,
            signals,
            directory: std::env::current_dir().ok(),
        };
        let forked = sys::fork();
        if let Ok(None) = forked {
            setup::run(&plan, inner, inner_sockets);
        }
        signals.apply();
        drop((inner, inner_sockets));
        let Some(builder) = forked? else {
            return Err(Failure::from(Errno::INVAL));
        };
        let answers = Answers::collect(&channel, builder, config);
        if answers.is_err() {
            // Whoever still waits for a word of ours ends when there can be none.
            let _ = rustix::net::shutdown(&channel, Shutdown::Both);
        }
        while let Err(Errno::INTR) = waitpid(Some(builder), WaitOptions::empty()) {}
        let answers = answers?;
        let is_joined = matches!(config.network, Network::Space(_));
        let init_pid = answers.init.ok_or(Failure(None))?;
        let init = pidfd_open(init_pid, PidfdFlags::empty())?;
        let mut space = Self {
            channel,
            sockets: Sockets::new(sockets),
            init,
            init_pid,
            program: None,
            joined_program: None,
            device: answers.device,
            membership: answers.membership,
            notes: Vec::new(),
            has_pid_namespace: pid_namespace && !is_joined,
            has_shortcut: matches!(config.network, Network::New)
                && !answers.notes.iter().any(|(step, _)| *step == Step::Shortcut),
            is_over: false,
            is_lost: false,
        };
        if let Some(failed) = answers.failed {
            space.end();
            return Err(failed.into());
        }
        if !answers.notes.is_empty() {
            let facts = Facts::read();
            let notes = answers.notes.into_iter();
            space.notes = notes
                .map(|(step, errno)| Obstacle::new(step, errno, &facts))
                .collect();
        }
        Ok(space)
    }

    /// What the system forbade and could be done without.
    #[must_use]
    pub fn notes(&self) -> &[Obstacle] {
        &self.notes
    }

    /// The device's side out here; `None` the second time, and in a space that was joined.
    pub const fn take_device(&mut self) -> Option<Device> {
        self.device.take()
    }

    /// What it takes to join the space; `None` for one that was joined itself.
    #[must_use]
    pub const fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// Whether its first process ended without a word of the program: it was killed, and all with it. Of a space that was
    /// joined it says that the space itself has ended.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The number out here of the first process inside.
    #[must_use]
    pub const fn init(&self) -> i32 {
        self.init_pid.as_raw_nonzero().get()
    }

    /// The number out here of the program's process, once it has started.
    #[must_use]
    pub fn program(&self) -> Option<i32> {
        self.program.map(|pid| pid.as_raw_nonzero().get())
    }

    /// Starts the program.
    ///
    /// # Errors
    /// If the space has ended.
    pub fn go(&self) -> Result<(), Errno> {
        self.channel.send(Message::Go)
    }

    /// Waits for what happens next. After [`Event::Ended`] nothing more will.
    ///
    /// # Errors
    /// If the system fails.
    pub fn wait(&mut self) -> Result<Event, Errno> {
        loop {
            let received = self.channel.receive()?;
            if let Some(event) = self.event(received) {
                return Ok(event);
            }
        }
    }

    /// The same without waiting: `None` if nothing happened. The space's descriptor ([`AsFd`]) is readable when
    /// something did.
    ///
    /// # Errors
    /// If the system fails.
    pub fn poll(&mut self) -> Result<Option<Event>, Errno> {
        match self.channel.try_receive() {
            Err(Errno::AGAIN) => Ok(None),
            received => Ok(self.event(received?)),
        }
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// If the system fails.
    pub fn wait_for_end(&mut self) -> Result<Ended, Errno> {
        loop {
            if let Event::Ended(ended) = self.wait()? {
                return Ok(ended);
            }
        }
    }

    fn event(&mut self, received: Option<Received>) -> Option<Event> {
        let Some(received) = received else {
            // Init is gone without a word: it was killed, and all with it.
            self.is_lost = true;
            if let Some(program) = &self.joined_program {
                // Whoever killed init and its guard has made the program a child of the space's own first process.
                let _ = pidfd_send_signal(program, Signal::KILL);
            }
            self.wait_for_init();
            return Some(Event::Ended(Ended::Killed(Signal::KILL.as_raw())));
        };
        match received.message {
            Message::Started => {
                self.program = received.sender;
                let pid = self.program()?;
                self.joined_program = received.fds.into_iter().next();
                Some(Event::Started { pid })
            }
            Message::NotRun(errno) => Some(Event::NotRun(errno)),
            Message::Stopped(signal) => Some(Event::Stopped(signal)),
            Message::Exited { code, signal } => {
                // Whatever else ran inside ends with init.
                self.wait_for_init();
                Some(Event::Ended(if signal == 0 {
                    Ended::Exited(code)
                } else {
                    Ended::Killed(signal)
                }))
            }
            _ => None,
        }
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// If the space has ended.
    pub fn signal(&self, number: i32) -> Result<(), Errno> {
        self.channel.send(Message::Signal(number))
    }

    /// Opens a socket inside, which does not wait; see [`Sockets::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open_socket(&self, domain: u16, kind: u32, protocol: u32) -> Result<OwnedFd, Errno> {
        let sockets = self.sockets.open(domain, kind, protocol, 1)?;
        sockets.into_iter().next().ok_or(Errno::MFILE)
    }

    /// The same for those who do not have the space itself.
    #[must_use]
    pub fn sockets(&self) -> Sockets {
        self.sockets.clone()
    }

    /// Whether marked sockets ([`Sockets::open_marked`]) reach the program from the gateway's address.
    #[must_use]
    pub const fn has_shortcut(&self) -> bool {
        self.has_shortcut
    }

    /// Ends everything inside, at once, and waits until it has ended.
    pub fn end(&mut self) {
        // Init takes this for the death of its maker.
        let _ = rustix::net::shutdown(&self.channel, Shutdown::Both);
        if self.has_pid_namespace {
            // The kernel ends the rest.
            let _ = pidfd_send_signal(&self.init, Signal::KILL);
        }
        self.wait_for_init();
    }

    fn wait_for_init(&mut self) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        // An error says that somebody else has taken leave of it.
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(self.init.as_fd()), WaitIdOptions::EXITED) {}
    }
}

/// What the processes inside said until all was ready.
struct Answers {
    init: Option<Pid>,
    device: Option<Device>,
    membership: Option<Membership>,
    notes: Vec<(Step, Errno)>,
    /// Init itself failed, and must be taken leave of.
    failed: Option<(Step, Errno)>,
}

impl Answers {
    fn collect(channel: &Channel, builder: Pid, config: &SpaceConfig) -> Result<Self, Failure> {
        let mut answers = Self {
            init: None,
            device: None,
            membership: None,
            notes: Vec::new(),
            failed: None,
        };
        let mut is_ready = false;
        // Init and its number come from two processes, in any order.
        while !is_ready || answers.init.is_none() {
            let Some(received) = channel.receive()? else {
                return match answers.init {
                    None => Err(Failure(None)),
                    Some(_) => Ok(answers.failing(Step::Process, Errno::SRCH)),
                };
            };
            match received.message {
                Message::NeedMaps => {
                    match id_map::write(builder, config.identity, config.sub_ids) {
                        // Root without CAP_SETFCAP, as in a space, may map nobody, and do all else.
                        Err((Step::IdMap, Errno::PERM)) if id_map::may_be_nobody(config.identity) => {
                            answers.notes.push((Step::IdMap, Errno::PERM));
                        }
                        written => written?,
                    }
                    channel.send(Message::MapsWritten)?;
                }
                Message::Note(step, errno) => {
                    answers
                        .notes
                        .extend(Step::from_number(step).map(|step| (step, errno)));
                }
                Message::Device { kind, offloads } => {
                    answers.device = DeviceKind::from_number(kind).map(|kind| Device {
                        kind,
                        queues: received.fds,
                        mtu: config.mtu,
                        offloads: Offloads::from_number(offloads).unwrap_or(Offloads::None),
                    });
                }
                Message::Namespaces => {
                    answers.membership = Some(Membership::from_descriptors(received.fds)?);
                }
                Message::Init(pid) => answers.init = Pid::from_raw(pid.max(0)),
                Message::Ready => is_ready = true,
                Message::Failed(step, errno) => {
                    let step = Step::from_number(step).unwrap_or(Step::Process);
                    if received.sender == Some(builder) {
                        return Err((step, errno).into());
                    }
                    answers = answers.failing(step, errno);
                    is_ready = true;
                }
                _ => return Err(Errno::PROTO.into()),
            }
        }
        Ok(answers)
    }

    fn failing(self, step: Step, errno: Errno) -> Self {
        Self {
            failed: self.failed.or(Some((step, errno))),
            ..self
        }
    }
}

/// Why an attempt failed; `None` is a process that ended early.
struct Failure(Option<(Step, Errno)>);

impl Failure {
    fn into_error(self) -> SpaceError {
        match self.0 {
            None => SpaceError::Vanished,
            Some((step, errno)) => SpaceError::Refused(Obstacle::new(step, errno, &Facts::read())),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self(Some((Step::Process, errno)))
    }
}

impl From<(Step, Errno)> for Failure {
    fn from(failure: (Step, Errno)) -> Self {
        Self(Some(failure))
    }
}

impl AsFd for Space {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.end();
    }
}
