//! The columns of the table, and what stands in them.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use anstyle::{AnsiColor, Style};
use portolan_core::Escaped;
use portolan_core::registry::Services;
use portolan_host::{BindReach, Owner, Ownership, Process, Snapshot, Socket, Space, TcpInfo, Users};

use crate::message::one_line;
use crate::text::address::EndText;
use crate::text::ownerless::OwnerlessText;
use crate::text::service::service_name;
use crate::text::table::{Column, Look, stacked};

/// A column of `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Protocol,
    State,
    Local,
    Remote,
    Service,
    Reach,
    Owner,
    User,
    Unit,
    Space,
    Receive,
    Send,
    Uid,
    Inode,
    Fds,
    Command,
    Exe,
    Cgroup,
    Device,
    Mark,
    Info,
}

/// What decides which columns there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Show {
    /// Connections are among the rows.
    pub(super) connections: bool,
    /// Another space than the host's is among the rows.
    pub(super) spaces: bool,
    /// Everything.
    pub(super) wide: bool,
    /// TCP's internals.
    pub(super) info: bool,
}

impl Cell {
    pub(super) fn columns(show: Show) -> Vec<Self> {
        let all = [
            (Self::Protocol, true),
            (Self::State, show.connections),
            (Self::Local, true),
            (Self::Remote, show.connections),
            (Self::Service, true),
            (Self::Reach, true),
            (Self::Owner, true),
            (Self::User, true),
            (Self::Unit, true),
            (Self::Space, show.spaces),
            (Self::Receive, show.wide),
            (Self::Send, show.wide),
            (Self::Uid, show.wide),
            (Self::Inode, show.wide),
            (Self::Fds, show.wide),
            (Self::Device, show.wide),
            (Self::Mark, show.wide),
            (Self::Cgroup, show.wide),
            (Self::Exe, show.wide),
            (Self::Command, show.wide),
            (Self::Info, show.info),
        ];
        all.into_iter()
            .filter_map(|(cell, shown)| shown.then_some(cell))
            .collect()
    }

    /// How the table is to treat the column. What stays at any width: the protocol, the address, the owner.
    pub(super) fn column(self) -> Column {
        let (header, min, expendable) = match self {
            Self::Protocol => ("PROTO", 5, 0),
            Self::State => ("STATE", 11, 4),
            Self::Local => ("ADDRESS:PORT", 15, 0),
            Self::Remote => ("REMOTE", 15, 2),
            Self::Service => ("SERVICE", 10, 6),
            Self::Reach => ("REACH", 15, 5),
            Self::Owner => ("OWNER", 16, 0),
            Self::User => ("USER", 8, 7),
            Self::Unit => ("UNIT/CONTAINER", 14, 8),
            Self::Space => ("SPACE", 8, 3),
            Self::Receive => ("RECV-Q", 6, 9),
            Self::Send => ("SEND-Q", 6, 10),
            Self::Uid => ("UID", 5, 11),
            Self::Inode => ("INODE", 6, 12),
            Self::Fds => ("FDS", 4, 13),
            Self::Device => ("DEVICE", 6, 14),
            Self::Mark => ("MARK", 4, 15),
            Self::Cgroup => ("CGROUP", 12, 16),
            Self::Exe => ("EXE", 12, 17),
            Self::Command => ("COMMAND", 16, 18),
            Self::Info => ("TCP INFO", 20, 1),
        };
        Column {
            header,
            min,
            expendable,
            right: matches!(self, Self::Receive | Self::Send | Self::Uid | Self::Inode),
            address: matches!(self, Self::Local | Self::Remote),
            style: match self {
                Self::Reach => reach_style,
                Self::State => state_style,
                _ => |_| Style::new(),
            },
        }
    }
}

/// What the cells are made from.
pub(super) struct Source<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) services: &'a Services,
    pub(super) look: Look,
    /// Whether every holder is named, and not only the first of a name.
    every_holder: bool,
    users: RefCell<Users>,
}

impl<'a> Source<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, services: &'a Services, look: Look) -> Self {
        Self {
            snapshot,
            services,
            look,
            every_holder: false,
            users: RefCell::new(Users::new()),
        }
    }

    /// The same with every holder of a socket by name and process id.
    pub(super) fn with_every_holder(self) -> Self {
        Self {
            every_holder: true,
            ..self
        }
    }

    /// Writes the cell of the row that holds `sockets`.
    pub(super) fn write(&self, cell: Cell, sockets: &[u32], out: &mut String) -> fmt::Result {
        let Some(index) = sockets.first().map(|index| *index as usize) else {
            return Ok(());
        };
        let socket = &self.snapshot.sockets[index];
        let space = self.snapshot.space(socket.space);
        match cell {
            Cell::Protocol => out.write_str(socket.protocol.name()),
            Cell::State => out.write_str(socket.state.name()),
            Cell::Local => self.write_locals(sockets, space, out),
            Cell::Remote => write!(out, "{}", EndText::remote(socket, space)),
            Cell::Service => out.write_str(service_name(self.services, socket).unwrap_or("")),
            Cell::Reach => self.write_reaches(sockets, space, out),
            Cell::Owner => self.write_owner(index, socket, out),
            Cell::User => self.write_user(index, socket, out),
            Cell::Unit => self.write_unit(index, out),
            Cell::Space => write!(out, "{}", Escaped::new(&space.name.to_string())),
            Cell::Receive => write!(out, "{}", socket.queues.receive),
            Cell::Send => write!(out, "{}", socket.queues.send),
            Cell::Uid => socket.uid.map_or(Ok(()), |uid| write!(out, "{uid}")),
            Cell::Inode => write!(out, "{}", socket.inode),
            Cell::Fds => self.write_fds(index, out),
            Cell::Device => match (socket.device, space.device_name(socket.device)) {
                (0, _) => Ok(()),
                (_, Some(name)) => write!(out, "{}", Escaped::new(name)),
                (index, None) => write!(out, "{index}"),
            },
            Cell::Mark => match socket.mark {
                Some(mark) if mark != 0 => write!(out, "{mark:#x}"),
                Some(_) | None => Ok(()),
            },
            Cell::Cgroup => self.write_of_first(index, out, |process| process.cgroup.as_deref()),
            Cell::Exe => self.write_of_first(index, out, |process| process.exe.as_deref().map(AsRef::as_ref)),
            Cell::Command => self.write_command(index, out),
            Cell::Info => socket
                .tcp_info
                .as_deref()
                .map_or(Ok(()), |info| write_info(info, out)),
        }
    }

    fn each<'s>(&'s self, sockets: &'s [u32]) -> impl Iterator<Item = &'s Socket> {
        sockets
            .iter()
            .map(|index| &self.snapshot.sockets[*index as usize])
    }

    /// Every address once; `×4` where several sockets of the row have it (SO_REUSEPORT).
    fn write_locals(&self, sockets: &[u32], space: &Space, out: &mut String) -> fmt::Result {
        let mut ends = self.each(sockets).map(|socket| EndText::local(socket, space));
        if sockets.len() == 1 {
            return ends.next().map_or(Ok(()), |end| write!(out, "{end}"));
        }
        let mut texts = Vec::<(String, usize)>::new();
        for end in ends {
            let text = end.to_string();
            // Sockets of a row are sorted by address.
            match texts.last_mut() {
                Some((last, count)) if *last == text => *count += 1,
                Some(_) | None => texts.push((text, 1)),
            }
        }
        let parts = texts.into_iter().map(|(text, count)| match count {
            1 => text,
            count if self.look.unicode => format!("{text} ×{count}"),
            count => format!("{text} x{count}"),
        });
        stacked(out, self.look, parts)
    }

    /// One reach if all addresses of the row have the same or share out the families between them, else each
    /// beside its address.
    fn write_reaches(&self, sockets: &[u32], space: &Space, out: &mut String) -> fmt::Result {
        let mut reaches = Vec::<(&Socket, Option<BindReach>)>::new();
        for socket in self.each(sockets) {
            if reaches.last().is_none_or(|(last, _)| last.local != socket.local) {
                reaches.push((socket, BindReach::of(socket, space)));
            }
        }
        if let [(_, Some(first)), (_, Some(second))] = reaches.as_slice()
            && first.completes(second)
        {
            out.push_str("every address");
            return match &first.device {
                Some(device) => write!(out, " of {device}"),
                None => Ok(()),
            };
        }
        let text = |reach: &Option<BindReach>| reach.as_ref().map_or_else(String::new, BindReach::to_string);
        if reaches.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            reaches.truncate(1);
        }
        stacked(out, self.look, reaches.iter().map(|(_, reach)| text(reach)))
    }

    fn owners(&self, socket: usize) -> &'a [Owner] {
        match self.snapshot.ownership.get(socket) {
            Some(Ownership::Held(owners)) => owners,
            Some(Ownership::Nobody(_)) | None => &[],
        }
    }

    fn processes(&self, socket: usize) -> impl Iterator<Item = &'a Process> {
        self.owners(socket)
            .iter()
            .filter_map(|owner| self.snapshot.processes.get(&owner.pid))
    }

    /// `nginx (812)`, `nginx ×5 (812…)`, and several names with commas.
    fn write_owner(&self, index: usize, socket: &Socket, out: &mut String) -> fmt::Result {
        match self.snapshot.ownership.get(index) {
            Some(Ownership::Held(owners)) => {
                self.write_owners(owners, out)?;
                match self.snapshot.published.get(&index) {
                    Some(by) => write!(out, " in {}", by.space),
                    None => Ok(()),
                }
            }
            Some(Ownership::Nobody(ownerless)) => {
                let mut users = self.users.borrow_mut();
                let uid = socket.uid;
                let user = uid.and_then(|uid| users.name(uid));
                write!(out, "{}", OwnerlessText { ownerless, uid, user })
            }
            None => Ok(()),
        }
    }

    fn write_owners(&self, owners: &[Owner], out: &mut String) -> fmt::Result {
        let name = |owner: &Owner| {
            let process = self.snapshot.processes.get(&owner.pid);
            process.map_or_else(|| OsStr::new("(gone)"), |process| process.name.as_os_str())
        };
        if let [owner] = owners {
            return write!(out, "{} ({})", Escaped::new(name(owner).as_bytes()), owner.pid);
        }
        if self.every_holder {
            for (position, owner) in owners.iter().enumerate() {
                let comma = if position > 0 { ", " } else { "" };
                write!(
                    out,
                    "{comma}{} ({})",
                    Escaped::new(name(owner).as_bytes()),
                    owner.pid
                )?;
            }
            return Ok(());
        }
        let mut names = Vec::<(&OsStr, i32, usize)>::new();
        for owner in owners {
            let of = name(owner);
            match names.iter_mut().find(|(known, ..)| *known == of) {
                Some((_, first, count)) => {
                    *first = owner.pid.min(*first);
                    *count += 1;
                }
                None => names.push((of, owner.pid, 1)),
            }
        }
        for (position, (name, pid, count)) in names.into_iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            let name = Escaped::new(name.as_bytes());
            match count {
                1 => write!(out, "{comma}{name} ({pid})")?,
                count if self.look.unicode => write!(out, "{comma}{name} ×{count} ({pid}…)")?,
                count => write!(out, "{comma}{name} x{count} ({pid}...)")?,
            }
        }
        Ok(())
    }

    /// The users of the holders; without a holder, the one that made the socket.
    fn write_user(&self, index: usize, socket: &Socket, out: &mut String) -> fmt::Result {
        let mut users = self
            .processes(index)
            .map(|process| (process.user.as_deref(), process.uid));
        let Some(first) = users.next() else {
            return match socket.uid {
                Some(uid) => match self.users.borrow_mut().name(uid) {
                    Some(name) => write!(out, "{}", Escaped::new(name)),
                    None => write!(out, "{uid}"),
                },
                None => Ok(()),
            };
        };
        let mut seen = vec![first];
        for user in users {
            if !seen.contains(&user) {
                seen.push(user);
            }
        }
        for (position, (name, uid)) in seen.into_iter().enumerate() {
            if position > 0 {
                out.write_str(", ")?;
            }
            match name {
                Some(name) => write!(out, "{}", Escaped::new(name))?,
                None => write!(out, "{uid}")?,
            }
        }
        Ok(())
    }

    /// The container if there is one, since a unit around it only says who runs it; else the unit.
    fn write_unit(&self, index: usize, out: &mut String) -> fmt::Result {
        let mut seen = Vec::<&Process>::new();
        for process in self.processes(index) {
            let known = |other: &&Process| {
                other.container == process.container
                    && (process.container.is_some() || other.unit == process.unit)
            };
            if !seen.iter().any(known) && (process.container.is_some() || process.unit.is_some()) {
                if !seen.is_empty() {
                    out.write_str(", ")?;
                }
                seen.push(process);
                match (&process.container, &process.unit) {
                    (Some(container), _) => {
                        let id = container.id.get(..SHORT_ID).unwrap_or(&container.id);
                        write!(out, "{} {}", container.engine, Escaped::new(id))?;
                    }
                    // What a unit is called may be typed again: its own backslash stays one.
                    (None, Some(unit)) => out.write_str(&one_line(unit))?,
                    (None, None) => {}
                }
            }
        }
        Ok(())
    }

    /// `3,4` of one holder, `812:3,813:3` of several: the process and its descriptor.
    fn write_fds(&self, index: usize, out: &mut String) -> fmt::Result {
        let owners = self.owners(index);
        let descriptors = owners
            .iter()
            .flat_map(|owner| owner.fds.iter().map(move |fd| (owner.pid, fd)));
        for (position, (pid, descriptor)) in descriptors.enumerate() {
            if position > 0 {
                out.write_char(',')?;
            }
            if owners.len() > 1 {
                write!(out, "{pid}:")?;
            }
            write!(out, "{descriptor}")?;
        }
        Ok(())
    }

    /// What belongs to one process: that of the first owner.
    fn write_of_first(
        &self,
        index: usize,
        out: &mut String,
        part: impl Fn(&Process) -> Option<&OsStr>,
    ) -> fmt::Result {
        match self.processes(index).next().and_then(part) {
            Some(text) => write!(out, "{}", Escaped::new(text.as_bytes())),
            None => Ok(()),
        }
    }

    fn write_command(&self, index: usize, out: &mut String) -> fmt::Result {
        let Some(process) = self.processes(index).next() else {
            return Ok(());
        };
        for (position, argument) in process.command_line.iter().enumerate() {
            if position > 0 {
                out.write_char(' ')?;
            }
            write!(out, "{}", Escaped::new(argument.as_bytes()))?;
        }
        Ok(())
    }
}

/// As many digits of a container's id as its engine prints.
const SHORT_ID: usize = 12;

/// `rtt 0.031/0.015 ms, cwnd 10, …`: what is zero is left out.
fn write_info(info: &TcpInfo, out: &mut String) -> fmt::Result {
    let milliseconds = |micros: u32| f64::from(micros) / 1000.0;
    write!(
        out,
        "rtt {}/{} ms, rto {} ms, cwnd {}, mss {}",
        milliseconds(info.rtt_us),
        milliseconds(info.rttvar_us),
        milliseconds(info.rto_us),
        info.snd_cwnd,
        info.snd_mss
    )?;
    // The kernel's "no threshold yet" (TCP_INFINITE_SSTHRESH).
    if info.snd_ssthresh < 0x7fff_ffff && info.snd_ssthresh != 0 {
        write!(out, ", ssthresh {}", info.snd_ssthresh)?;
    }
    let counters = [
        ("in flight", u64::from(info.unacked)),
        ("retransmitted", u64::from(info.total_retrans)),
        ("acked", info.bytes_acked),
        ("received", info.bytes_received),
    ];
    for (name, value) in counters {
        if value > 0 {
            write!(out, ", {name} {value}")?;
        }
    }
    if info.delivery_rate > 0 {
        write!(out, ", {} B/s", info.delivery_rate)?;
    }
    Ok(())
}

fn reach_style(text: &str) -> Style {
    if text.starts_with("this machine") {
        AnsiColor::Green.on_default()
    } else {
        AnsiColor::Yellow.on_default()
    }
}

fn state_style(text: &str) -> Style {
    match text {
        "listen" | "established" | "unconnected" => Style::new(),
        _ => Style::new().dimmed(),
    }
}
