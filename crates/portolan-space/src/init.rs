//! The first process inside: it starts the program, reaps what nobody else does, passes signals on, and takes
//! everything with it when it ends.

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, Mode, OFlags, access, open};
use rustix::io::{Errno, Result, read};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getrlimit,
    kill_process, pidfd_open, set_child_subreaper, set_dumpable_behavior, setpgid, setrlimit, wait,
};
use rustix::thread::CapabilitySet;

use crate::channel::{Channel, Message};
use crate::config::{Execution, Network, ShownFile};
use crate::error::Step;
use crate::holder::Seeker;
use crate::membership::Membership;
use crate::sandbox;
use crate::setup::Plan;
use crate::shortcut;
use crate::signals::SIGNAL_INFO_LEN;
use crate::sys;

/// Readies what only a process inside can, waits for the word, starts the program, and serves it to its end.
pub(crate) fn run(plan: &Plan<'_>, channel: Channel, sockets: Channel) -> ! {
    if !getpid().is_init() {
        match split() {
            Ok(None) => {}
            Ok(Some(init)) => {
                drop((channel, sockets));
                guard(init)
            }
            Err(error) => {
                let _ = channel.send(Message::Failed(Step::Process.number(), error));
                sys::exit_now(1)
            }
        }
    }
    if let Err((step, error)) = ready(plan, &channel, &sockets) {
        let _ = channel.send(Message::Failed(step.number(), error));
        sys::exit_now(1);
    }
    if let Ok(program) = started(plan, &channel, &sockets) {
        let _ = serve(program, &channel, &sockets);
    }
    kill_the_rest();
    sys::exit_now(0)
}

/// Where no PID namespace ends with its first process: makes another process the one that serves, to be the first's child.
fn split() -> Result<Option<Pid>> {
    set_child_subreaper(Some(getpid()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    sys::fork()
}

/// Waits for the process that serves: if it was killed, all that it had started becomes ours, and ends.
fn guard(init: Pid) -> ! {
    let _ = close_all_but(&[]);
    // Signals to the group are not for us.
    let _ = setpgid(None, None);
    leave_streams();
    let _ = sandbox::drop_held_capabilities();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == init => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    kill_the_rest();
    sys::exit_now(0)
}

/// Leaves the standard streams to the program: a reader of its output is to see the end when the program closes it.
fn leave_streams() {
    if let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

fn ready(plan: &Plan<'_>, channel: &Channel, sockets: &Channel) -> std::result::Result<(), (Step, Errno)> {
    let process = |error| (Step::Process, error);
    close_all_but(&[channel.as_fd(), sockets.as_fd()]).map_err(process)?;
    // What nobody waits for becomes ours: at once as process 1, else by this.
    set_child_subreaper(Some(getpid())).map_err(process)?;
    // The program, though it may be root inside, must neither trace us nor read our memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(process)?;
    if matches!(plan.config.network, Network::Space(_)) {
        keep_capabilities_of(plan)?;
        return channel.send(Message::Ready).map_err(process);
    }
    let shown = show_files(&plan.config.files).and_then(|()| hide_directories(&plan.config.hidden));
    if let Err(error) = shown {
        let _ = channel.send(Message::Note(Step::Files.number(), error));
    }
    if getpid().is_init() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None::<&CStr>).map_err(|error| (Step::Proc, error))?;
    }
    Membership::here()
        .and_then(|own| {
            let namespaces: Vec<_> = own.descriptors().iter().map(|fd| fd.as_fd()).collect();
            channel.send_with(Message::Namespaces, &namespaces)
        })
        .map_err(process)?;
    keep_capabilities_of(plan)?;
    channel.send(Message::Ready).map_err(process)
}

/// Gives up every capability but those that the program is to have, and that over a network which was made for it: sockets
/// are marked with it, since the maker gives up all rights.
fn keep_capabilities_of(plan: &Plan<'_>) -> std::result::Result<(), (Step, Errno)> {
    let mut kept = plan.config.capabilities.set();
    if matches!(plan.config.network, Network::New) {
        kept |= CapabilitySet::NET_ADMIN;
    }
    sandbox::keep_held_capabilities(kept).map_err(|error| (Step::Capabilities, error))
}

/// Covers files by others. They lie in a file system in memory, which is mounted on /proc for a moment, since there is
/// always a /proc, and nobody else is in this mount namespace yet.
fn show_files(files: &[ShownFile]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("portolan", "/proc", "tmpfs", flags, None::<&CStr>)?;
    let mut result = Ok(());
    for (number, file) in files.iter().enumerate() {
        let source = format!("/proc/{number}");
        let shown = fs::write(&source, &file.contents)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| mount_bind(&source, &file.path));
        result = result.and(shown);
    }
    unmount("/proc", UnmountFlags::DETACH)?;
    result
}

/// Covers directories by empty ones of this user.
fn hide_directories(directories: &[PathBuf]) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    directories
        .iter()
        .try_for_each(|directory| mount("portolan", directory, "tmpfs", flags, Some(c"mode=0700")))
}

/// Waits for the word, and makes the program's process. The maker may want sockets before.
fn started(plan: &Plan<'_>, channel: &Channel, sockets: &Channel) -> Result<Pid> {
    let mut seeker = Seeker::default();
    loop {
        let mut fds = [
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(sockets, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready = fds.each_ref().map(|fd| !fd.revents().is_empty());
        if ready[1] {
            let received = sockets.receive()?.ok_or(Errno::PIPE)?;
            answer(received.message, sockets, &mut seeker)?;
        }
        if ready[0] {
            match channel.receive()?.map(|received| received.message) {
                Some(Message::Go) => break,
                Some(_) => {}
                None => return Err(Errno::PIPE),
            }
        }
    }
    match sys::fork()? {
        None => become_program(plan, channel),
        Some(program) => {
            // We stay in the group, so as to see what the whole of it is sent.
            leave_streams();
            Ok(program)
        }
    }
}

/// In the program's process: gives up what it is not to have, and becomes it.
fn become_program(plan: &Plan<'_>, channel: &Channel) -> ! {
    let error = match prepare_program(plan, channel) {
        Err(error) => error,
        Ok(()) => {
            sys::default_sigpipe();
            plan.signals.apply();
            exec(plan.execution)
        }
    };
    let _ = channel.send(Message::NotRun(error));
    // What shells say: 127 for a program that is not there, 126 for one that is none.
    sys::exit_now(if error == Errno::NOENT { 127 } else { 126 })
}

/// Tries each place where the program may be. What is there and may not be run says more than what is not there; a
/// directory that may not be searched says nothing.
fn exec(execution: &Execution) -> Errno {
    let mut said = Errno::NOENT;
    for path in &execution.candidates {
        match sys::exec(path, &execution.arguments, &execution.environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS if access(path, Access::EXISTS).is_err() => {}
            Errno::ACCESS => said = Errno::ACCESS,
            error => return error,
        }
    }
    said
}

fn prepare_program(plan: &Plan<'_>, channel: &Channel) -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    if let Some(count) = plan.config.descriptors {
        let limit = Rlimit {
            current: Some(count),
            ..getrlimit(Resource::Nofile)
        };
        // A limit above the highest that is allowed is refused, and then the highest holds.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    // No set-uid program inside gains anything by being one.
    rustix::thread::set_no_new_privs(true)?;
    sandbox::hand_down_capabilities(plan.config.capabilities.set())?;
    if matches!(plan.config.network, Network::Space(_)) {
        // Its maker may have no right to open one any more.
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        channel.send_with(Message::Started, &[own.as_fd()])
    } else {
        channel.send(Message::Started)
    }
    // What is open from 3 on closes at exec: `close_all_but` left our own alone, and those are marked so.
}

/// Serves until the program has ended, or the maker is gone.
fn serve(program: Pid, channel: &Channel, sockets: &Channel) -> Result<()> {
    let signals = sys::signal_descriptor()?;
    let mut seeker = Seeker::default();
    let mut sent = Sent::default();
    loop {
        if reap(program, channel)? {
            return Ok(());
        }
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(sockets, PollFlags::IN),
        ];
        let patience = sent.is_waiting().then_some(&TURN);
        match poll(&mut fds, patience) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready = fds.each_ref().map(|fd| !fd.revents().is_empty());
        if ready[0] {
            sent.read(&signals)?;
        }
        sent.pass_on(program);
        if ready[1] {
            match channel.receive()? {
                None => return Ok(()),
                Some(received) => {
                    // What the maker was sent as one of the group was sent to us by the same call, and to the program.
                    sent.read(&signals)?;
                    if let Message::Signal(number) = received.message
                        && !sent.was_to_all(number)
                        && let Some(signal) = sys::signal(number)
                    {
                        let _ = kill_process(program, signal);
                    }
                }
            }
        }
        if ready[2] {
            match sockets.receive()? {
                None => return Ok(()),
                Some(received) => answer(received.message, sockets, &mut seeker)?,
            }
        }
    }
}

/// Takes leave of every process that has ended; tells of the program. `true` if it has ended.
fn reap(program: Pid, channel: &Channel) -> Result<bool> {
    loop {
        let status = match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == program => status,
            Ok(Some(_)) => continue,
            Ok(None) | Err(Errno::CHILD) => return Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        if let Some(message) = told(status) {
            channel.send(message)?;
        }
        if !status.stopped() {
            return Ok(true);
        }
    }
}

fn told(status: WaitStatus) -> Option<Message> {
    if let Some(signal) = status.stopping_signal() {
        return Some(Message::Stopped(signal));
    }
    let (code, signal) = (status.exit_status(), status.terminating_signal());
    (code.is_some() || signal.is_some()).then(|| Message::Exited {
        code: code.unwrap_or(0),
        signal: signal.unwrap_or(0),
    })
}

/// Signals that some process has sent us. If the maker tells of the same, its whole group was sent them, the program
/// too; else they were for us alone, and are meant for the program.
struct Sent {
    /// When each came last, by number.
    last: [Option<Instant>; 65],
    /// Those of which the maker has not told yet.
    untold: u64,
}

/// The maker tells within this time.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same, to wait for.
const TURN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

impl Default for Sent {
    fn default() -> Self {
        Self {
            last: [None; 65],
            untold: 0,
        }
    }
}

impl Sent {
    /// Reads what has come. What the kernel sends, as for a key of the terminal, the program has got by itself.
    fn read(&mut self, signals: &OwnedFd) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); SIGNAL_INFO_LEN * 8];
        loop {
            let bytes = match read(signals, &mut buffer[..]) {
                Ok((bytes, _)) => bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            for info in bytes.chunks_exact(SIGNAL_INFO_LEN) {
                let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                let code = i32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
                if code <= 0
                    && let Some(last) = self.last.get_mut(number as usize)
                {
                    *last = Some(Instant::now());
                    self.untold |= bit(number as usize);
                }
            }
        }
    }

    const fn is_waiting(&self) -> bool {
        self.untold != 0
    }

    /// Whether one that the maker tells of has come to us too, just now: several may have become one on the way.
    fn was_to_all(&mut self, number: i32) -> bool {
        let number = usize::try_from(number).unwrap_or(0);
        self.untold &= !bit(number);
        self.is_fresh(number)
    }

    fn is_fresh(&self, number: usize) -> bool {
        let last = self.last.get(number).copied().flatten();
        last.is_some_and(|last| last.elapsed() < PATIENCE)
    }

    /// Passes on what was for us alone.
    fn pass_on(&mut self, program: Pid) {
        if !self.is_waiting() {
            return;
        }
        for number in 1..self.last.len() {
            if self.untold & bit(number) == 0 || self.is_fresh(number) {
                continue;
            }
            self.untold &= !bit(number);
            if let Some(signal) = sys::signal(number as i32)
                && ![Signal::CHILD, Signal::PIPE].contains(&signal)
            {
                let _ = kill_process(program, signal);
            }
        }
    }
}

/// That of a signal in a set; none for what is no signal.
const fn bit(number: usize) -> u64 {
    match number {
        1..=64 => 1 << (number - 1),
        _ => 0,
    }
}

/// Does what only somebody inside can.
fn answer(message: Message, sockets: &Channel, seeker: &mut Seeker) -> Result<()> {
    match message {
        Message::Who(inode) => sockets.send(Message::HeldBy(seeker.find(inode))),
        other => open_sockets(other, sockets),
    }
}

/// Opens sockets here for the maker, who is in another network namespace: a socket stays where it was opened.
fn open_sockets(message: Message, sockets: &Channel) -> Result<()> {
    let Message::Open {
        domain,
        kind,
        protocol,
        count,
        is_marked,
    } = message
    else {
        return Ok(());
    };
    let protocol = std::num::NonZeroU32::new(protocol).map(Protocol::from_raw);
    let mut opened = Vec::new();
    let mut refusal = Errno::INVAL;
    for _ in 0..count {
        let socket = socket_with(
            AddressFamily::from_raw(domain),
            SocketType::from_raw(kind),
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            protocol,
        );
        let socket = socket.and_then(|socket| {
            if is_marked {
                shortcut::mark(&socket)?;
            }
            Ok(socket)
        });
        match socket {
            Ok(socket) => opened.push(socket),
            Err(error) => {
                refusal = error;
                break;
            }
        }
    }
    if opened.is_empty() {
        return sockets.send(Message::OpenRefused(refusal));
    }
    let fds: Vec<_> = opened.iter().map(|socket| socket.as_fd()).collect();
    sockets.send_with(Message::Opened, &fds)
}

/// Closes whatever this process was forked with, but its standard streams and those named, which close at exec.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<u32> = kept
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if first < number {
            sys::close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    sys::close_range(first, u32::MAX)
}

/// Where there is no PID namespace that ends with us: ends every process that was started inside. Each that dies makes
/// its children ours, until there are none.
fn kill_the_rest() {
    if getpid().is_init() {
        return;
    }
    loop {
        for pid in children() {
            let _ = kill_process(pid, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The processes whose parent we are.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent(*pid) == Some(own))
        .filter_map(|pid| Pid::from_raw(pid.max(0)))
        .collect()
}

/// The parent of a process: the second field behind its name, which stands in brackets and may hold anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
