//! A connection among the others: awake in a box of working memory, or asleep in a quarter of it.
//!
//! ```text
//!   a segment, a call, a timer ──▶ awake ──▶ quiet, one of the latest StackConfig::awake_connections
//!              ▲                                       │ a later one became quiet
//!              └──────────────────── asleep ◀──────────┘
//! ```
//!
//! Boxes go round: what falls asleep leaves its box to what wakes, so that neither allocates.

use portolan_core::demux::FourTuple;
use portolan_core::table::SocketId;

use super::filtering::Judged;
use super::tally::Tally;
use super::{ConnectionId, ListenerId, Stack};
use crate::Instant;
use crate::buffer::Pool;
use crate::tcp::{CloseReason, Connection, Happened, Rest, State};

/// A connection and what the stack knows of it.
#[derive(Debug)]
pub(super) struct Entry {
    body: Body,
    pub(super) tuple: FourTuple,
    /// Its socket in the table, until it is closed.
    pub(super) socket: Option<SocketId>,
    /// The listener that it came to, until the program accepts it.
    pub(super) listener: Option<ListenerId>,
    pub(super) is_ready: bool,
    pub(super) is_noticed: bool,
    /// Whether it stands in [`Stack::quiet`], and whether anything happened to it since it came there.
    is_quiet: bool,
    is_touched: bool,
    /// Under which filter its packets may pass without a look at the rules.
    pub(super) judged: Judged,
    pub(super) pending: Happened,
    pub(super) tally: Tally,
}

#[derive(Debug)]
enum Body {
    Awake(Box<Connection>),
    Asleep(Rest),
}

impl Entry {
    pub(super) fn new(
        now: Instant,
        connection: Box<Connection>,
        tuple: FourTuple,
        socket: SocketId,
        listener: Option<ListenerId>,
    ) -> Self {
        Self {
            body: Body::Awake(connection),
            tuple,
            socket: Some(socket),
            listener,
            is_ready: false,
            is_noticed: false,
            is_quiet: false,
            is_touched: false,
            judged: Judged::default(),
            pending: Happened::empty(),
            tally: Tally::new(now),
        }
    }

    /// The connection, awake from now on.
    pub(super) fn wake(&mut self, spares: &mut Spares) -> &mut Connection {
        if let Body::Asleep(rest) = &self.body {
            self.body = Body::Awake(Connection::wake(rest).boxed(spares.take()));
        }
        match &mut self.body {
            Body::Awake(connection) => connection,
            Body::Asleep(_) => unreachable!("it was just woken"),
        }
    }

    /// The connection, if it is awake. One that is asleep is established, has nothing to send, and nobody let
    /// go of it.
    pub(super) fn awake(&self) -> Option<&Connection> {
        match &self.body {
            Body::Awake(connection) => Some(connection),
            Body::Asleep(_) => None,
        }
    }

    /// The connection, if it is awake.
    pub(super) fn awake_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.body {
            Body::Awake(connection) => Some(connection),
            Body::Asleep(_) => None,
        }
    }

    /// Looks at the connection without waking it.
    pub(super) fn look<R>(&self, see: impl FnOnce(&Connection) -> R) -> R {
        match &self.body {
            Body::Awake(connection) => see(connection),
            Body::Asleep(rest) => see(&Connection::wake(rest)),
        }
    }

    /// Reads of every cache line that a packet will need one word; what they say does not matter.
    pub(super) fn touch(&self) -> u64 {
        let own = u64::from(self.is_ready) ^ u64::from(self.tuple.remote().port());
        let own = own ^ self.tally.touch() ^ u64::from(self.socket.is_some());
        own ^ match &self.body {
            Body::Awake(connection) => connection.touch(),
            Body::Asleep(rest) => rest.touch(),
        }
    }

    /// When something is to be done for the connection.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match &self.body {
            Body::Awake(connection) => connection.next_timeout(),
            Body::Asleep(rest) => rest.next_timeout(),
        }
    }

    /// Why the connection is no more.
    pub(super) fn reason(&self) -> Option<CloseReason> {
        self.awake().and_then(Connection::reason)
    }

    /// Whether the program has let go of it.
    pub(super) fn is_released(&self) -> bool {
        self.awake().is_some_and(Connection::is_released)
    }

    /// Whether the program is to be told something, and does not know that yet.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        !self.pending.is_empty() && !self.is_noticed && self.listener.is_none() && !self.is_released()
    }

    /// Makes an entry that was dropped, and is awake, one of another connection.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        connection: Connection,
        tuple: FourTuple,
        socket: SocketId,
        listener: Option<ListenerId>,
    ) {
        let Body::Awake(spare) = &mut self.body else {
            unreachable!("only entries that are awake are kept");
        };
        connection.replace(spare);
        let Self {
            body: _,
            tuple: _,
            socket: _,
            listener: _,
            is_ready: _,
            is_noticed: _,
            is_quiet: _,
            is_touched: _,
            judged: _,
            pending: _,
            tally: _,
        } = self;
        self.tuple = tuple;
        self.socket = Some(socket);
        self.listener = listener;
        self.is_ready = false;
        self.is_noticed = false;
        self.is_quiet = false;
        self.is_touched = false;
        self.judged = Judged::default();
        self.pending = Happened::empty();
        self.tally = Tally::new(now);
    }
}

impl Stack {
    /// The connection has sent all there is. If it is over it may go; if it is quiet it may fall asleep, or another
    /// that is quiet for longer.
    pub(super) fn settle_down(&mut self, now: Instant, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        let Some(connection) = entry.awake() else {
            return;
        };
        if matches!(connection.state(), State::Closed | State::TimeWait) {
            self.drop_if_done(id);
            return;
        }
        if entry.is_quiet {
            entry.is_touched = true;
        } else {
            if !connection.is_quiet(now) {
                return;
            }
            entry.is_quiet = true;
            entry.is_touched = false;
            self.quiet.push_back(id);
        }
        // Two for each call keep up: each call adds one at most, or one second chance.
        for _ in 0..2 {
            if self.quiet.len() <= self.config.awake_connections {
                break;
            }
            self.put_longest_quiet_to_sleep(now);
        }
    }

    fn put_longest_quiet_to_sleep(&mut self, now: Instant) {
        let Some(id) = self.quiet.pop_front() else {
            return;
        };
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        if entry.is_touched {
            entry.is_touched = false;
            self.quiet.push_back(id);
            return;
        }
        entry.is_quiet = false;
        let Body::Awake(connection) = &mut entry.body else {
            return;
        };
        if entry.is_ready || !connection.is_quiet(now) {
            return;
        }
        let rest = connection.rest();
        let timeout = rest.next_timeout();
        let body = std::mem::replace(&mut entry.body, Body::Asleep(rest));
        if let Some(socket) = entry.socket {
            let place = socket.place() as u32;
            match timeout {
                Some(deadline) => self.wheel.arm(place, deadline),
                None => self.wheel.cancel(place),
            }
        }
        if let Body::Awake(connection) = body {
            self.spares.give(connection);
        }
    }
}

/// How many boxes are kept for connections that wake or begin, of some 1 to 3 KiB.
const SPARE_BOXES: usize = 1024;

/// Working memory that no connection needs now.
#[derive(Debug, Default)]
pub(super) struct Spares {
    #[expect(
        clippy::vec_box,
        reason = "the boxes go round as they are, with what their queues hold"
    )]
    boxes: Vec<Box<Connection>>,
    /// Entries of connections that are gone, with their boxes.
    #[expect(
        clippy::vec_box,
        reason = "entries do not move while they are in use, nor from here to there"
    )]
    entries: Vec<Box<Entry>>,
    /// How many are out: those of connections that are awake.
    lent: usize,
}

impl Spares {
    /// A box, whose content is without meaning; `None` if there is none, and the connection is to make its own.
    pub(super) fn take(&mut self) -> Option<Box<Connection>> {
        self.lent += 1;
        self.boxes.pop()
    }

    /// An entry with its box, for [`Entry::renew`].
    pub(super) fn take_entry(&mut self) -> Option<Box<Entry>> {
        let entry = self.entries.pop()?;
        self.lent += 1;
        Some(entry)
    }

    /// How many boxes there are, here and with connections.
    pub(super) const fn count(&self) -> usize {
        self.boxes.len() + self.entries.len() + self.lent
    }

    /// How many entries are kept.
    pub(super) const fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Keeps the entry of a connection that is gone, with its box, or frees it if there are enough.
    pub(super) fn give_entry(&mut self, mut entry: Box<Entry>, pool: &mut Pool) {
        let Some(connection) = entry.awake_mut() else {
            return;
        };
        connection.clear(pool);
        self.lent -= 1;
        if self.boxes.len() + self.entries.len() < SPARE_BOXES {
            self.entries.push(entry);
        }
    }

    /// Gives up what is kept.
    pub(super) fn trim(&mut self) {
        self.boxes = Vec::new();
        self.entries = Vec::new();
    }

    /// Keeps the box of a connection that needs it no more, or frees it if there are enough.
    pub(super) fn give(&mut self, connection: Box<Connection>) {
        self.lent -= 1;
        if self.boxes.len() + self.entries.len() < SPARE_BOXES {
            self.boxes.push(connection);
        }
    }
}
