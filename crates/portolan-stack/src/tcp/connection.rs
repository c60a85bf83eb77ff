use bitflags::bitflags;
use bytes::Bytes;
use portolan_core::wire::SeqNum;
use thiserror::Error;

use super::State;
use super::config::TcpConfig;
use super::congestion::{Congestion, Window};
use super::rack::Rack;
use super::receive::{AckSchedule, TIGHT_BUFFER};
use super::recovery::Phase;
use super::rtt::RttEstimator;
use super::scoreboard::Scoreboard;
use super::segment::Segment;
use super::stats::Stats;
use super::timers::{Timer, Timers};
use super::tuning::Tuning;
use super::undo::Undo;
use super::unsent::Unsent;
use super::urgent::Urgent;
use crate::buffer::{Pool, Reassembly, SendQueue};
use crate::{Instant, PathError};

/// RFC 9293, section 3.7.1: what an IPv4 host takes whose SYN does not say.
const DEFAULT_MSS: u16 = 536;
/// What timestamps take of each segment, with their padding.
pub(super) const TIMESTAMPS_LEN: u16 = 12;
/// A peer that names less would make us send mostly headers: Linux's least (TCP_MIN_SND_MSS).
const MIN_MSS: u16 = 48;

/// What a connection borrows from its stack for one call.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a TcpConfig,
    pub(crate) pool: &'a mut Pool,
}

/// What a new connection is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// ISS (RFC 6528).
    pub(crate) iss: SeqNum,
    /// The largest segment that the link takes, without options.
    pub(crate) mss: u16,
    /// The largest segment that the path is known to take, without options; at most that of the link.
    pub(crate) path_mss: u16,
    /// What is added to the clock in timestamps, so that they do not tell how long the host is up.
    pub(crate) timestamp_offset: u32,
}

bitflags! {
    /// What both sides agreed on, and what the program asked for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Traits: u32 {
        const SACK = 1;
        const TIMESTAMPS = 1 << 1;
        const WINDOW_SCALING = 1 << 2;
        const ECN = 1 << 3;
        const NO_DELAY = 1 << 4;
        /// Opened by our SYN, not by the peer's.
        const ACTIVE = 1 << 5;
        /// The program has let go of it.
        const RELEASED = 1 << 6;
        /// The program wants no more to be sent: a FIN stands behind the data.
        const FIN_QUEUED = 1 << 7;
        const FIN_SENT = 1 << 8;
        /// The program wrote more than there was room for.
        const WRITER_WAITS = 1 << 9;
        /// Marks of congestion came that the peer does not know of (RFC 3168: send ECE until CWR).
        const ECHO_CONGESTION = 1 << 10;
        /// The peer is to be told that the window was reduced (RFC 3168: CWR).
        const TELL_REDUCED = 1 << 11;
        /// The peer's FIN came, and everything before it.
        const FIN_RECEIVED = 1 << 13;
        /// The congestion window, not the program or the peer, held the sender back in this window of data.
        const CWND_LIMITED = 1 << 12;
        /// The program said with its last write that more comes: what fills no segment waits for that.
        const MORE_COMES = 1 << 14;
        /// What waits to fill a segment goes now, once.
        const PUSH_ONCE = 1 << 15;
        /// The program answers the peer's keepalive probes.
        const HOLDS_PROBES = 1 << 16;
        /// One waits for an answer that the program has not seen.
        const IS_ASKED = 1 << 17;
    }
}

bitflags! {
    /// What `poll_transmit` is to send beside data.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Wanted: u8 {
        const SYN = 1;
        const ACK = 1 << 1;
        /// A tail loss probe.
        const TAIL_LOSS_PROBE = 1 << 2;
        /// A segment into a shut window, or to an idle peer.
        const PROBE = 1 << 3;
        const RESET = 1 << 4;
        /// Data although less than a segment fits into the window.
        const PARTIAL = 1 << 5;
    }
}

bitflags! {
    /// What the program is to be told.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Happened: u8 {
        /// The connection is established.
        const CONNECTED = 1;
        /// There is something to read, or the end.
        const READABLE = 1 << 1;
        /// There is room to write again.
        const WRITABLE = 1 << 2;
        /// The connection is gone.
        const CLOSED = 1 << 3;
        /// The peer has acknowledged all that was written, and our FIN.
        const FINISHED = 1 << 4;
        /// The peer asks whether somebody is there, and the program answers.
        const PROBED = 1 << 5;
    }
}

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both sides were done.
    #[error("both sides have closed")]
    Finished,
    /// The peer answered the SYN with a RST, or with ICMP port unreachable.
    #[error("connection refused: nobody listens on that port")]
    Refused,
    /// The peer sent a RST.
    #[error("connection reset by the peer")]
    Reset,
    /// The peer did not answer.
    #[error("connection timed out: the peer does not answer")]
    TimedOut,
    /// The network said so, when connecting, or of a peer that then did not answer.
    #[error(transparent)]
    Unreachable(PathError),
    /// The program gave it up.
    #[error("connection aborted on this side")]
    Aborted,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing is there yet; wait for [`Event::Readable`](crate::Event::Readable).
    #[error("nothing to read yet")]
    WouldBlock,
    /// The connection ended before the peer's data did.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The handle is of no connection.
    #[error("no such connection")]
    NoConnection,
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The send buffer is full; wait for [`Event::Writable`](crate::Event::Writable).
    #[error("no room in the send buffer yet")]
    WouldBlock,
    /// The program has said that it sends no more.
    #[error("this side has finished sending")]
    Finished,
    /// The connection is gone.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The handle is of no connection.
    #[error("no such connection")]
    NoConnection,
}

/// The transmission control block.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) state: State,
    pub(super) reason: Option<CloseReason>,
    /// The program wants to read no more (`SHUT_RD`).
    pub(super) reads_shut: bool,
    pub(super) traits: Traits,
    pub(super) wanted: Wanted,
    pub(super) happened: Happened,

    pub(super) iss: SeqNum,
    pub(super) snd_una: SeqNum,
    pub(super) snd_nxt: SeqNum,
    pub(super) snd_wnd: u32,
    pub(super) snd_wl1: SeqNum,
    pub(super) snd_wl2: SeqNum,
    /// The largest window the peer ever offered (RFC 9293, section 3.8.6.2.1).
    pub(super) max_snd_wnd: u32,
    pub(super) snd_shift: u8,
    /// The data of a full segment, timestamps taken off (Eff.snd.MSS).
    pub(super) snd_mss: u16,
    /// What the link takes, which our SYN says.
    pub(super) link_mss: u16,
    /// What the peer takes, and the link.
    pub(super) peer_mss: u16,
    /// What the path takes.
    pub(super) path_mss: u16,
    /// What the network said of it since it last answered.
    pub(super) soft_error: Option<PathError>,
    pub(super) queue: SendQueue,
    pub(super) unsent: Unsent,
    /// The end of the last segment that was not full (Minshall's variant of Nagle's algorithm).
    pub(super) snd_sml: SeqNum,
    pub(super) board: Scoreboard,
    pub(super) rtt: RttEstimator,
    pub(super) rack: Rack,
    pub(super) phase: Phase,
    pub(super) window: Window,
    pub(super) congestion: Congestion,
    /// What there was before the window was last reduced.
    pub(super) undo: Option<Box<Undo>>,
    /// Duplicate acknowledgments, of a peer without SACK.
    pub(super) duplicates: u16,
    /// The end of the tail loss probe, and whether it was a retransmission (RFC 8985, section 7.3).
    pub(super) tail_probe: Option<(SeqNum, bool)>,
    /// Retransmission timeouts, or window probes, since the peer last answered.
    pub(super) attempts: u8,
    /// Keepalive probes without an answer.
    pub(super) keepalive_probes: u8,
    /// The most bytes that were outstanding in this window of data, and where it ends.
    pub(super) most_outstanding: u32,
    pub(super) usage_until: SeqNum,
    /// When data was sent last.
    pub(super) last_sent: Instant,
    /// When the peer was heard last.
    pub(super) last_heard: Instant,
    /// Since when the first unacknowledged segment waits.
    pub(super) progress_at: Instant,
    /// When pacing lets the next segment go.
    pub(super) pace_until: Instant,
    pub(super) bytes_retransmitted: u64,

    /// RCV.NXT and what came.
    pub(super) reassembly: Reassembly,
    /// The right edge of the window that was offered: RCV.NXT + RCV.WND.
    pub(super) rcv_edge: SeqNum,
    pub(super) rcv_shift: u8,
    /// Where the peer's FIN stands, once it came.
    pub(super) fin_at: Option<SeqNum>,
    pub(super) irs: SeqNum,
    /// Where urgent data stands, if there is any.
    pub(super) urgent: Option<Box<Urgent>>,
    pub(super) acks: AckSchedule,
    pub(super) tuning: Tuning,
    pub(super) timestamp_offset: u32,
    /// TS.Recent, and when it was taken.
    pub(super) ts_recent: u32,
    pub(super) ts_recent_at: Instant,
    pub(super) timers: Timers,
    /// How this connection behaves, if it was told other than its stack.
    pub(super) own_config: Option<Box<TcpConfig>>,
    /// What is counted, if anything is.
    pub(super) stats: Option<Box<Stats>>,
}

impl Connection {
    /// A connection that is to send a SYN.
    pub(crate) fn connect(cx: &Cx<'_>, opening: Opening) -> Self {
        let mut connection = Self::new(cx, opening, State::SynSent);
        connection.traits |= Traits::ACTIVE;
        connection.traits.set(Traits::SACK, cx.config.sack);
        connection.traits.set(Traits::TIMESTAMPS, cx.config.timestamps);
        connection
            .traits
            .set(Traits::WINDOW_SCALING, cx.config.window_scaling);
        connection.traits.set(Traits::ECN, cx.config.ecn);
        connection
    }

    /// A connection that is to answer the SYN `syn`, which came to a listener.
    pub(crate) fn accept(cx: &Cx<'_>, opening: Opening, syn: &Segment<'_>) -> Self {
        let mut connection = Self::new(cx, opening, State::SynReceived);
        let asks_ecn = syn
            .flags
            .contains(portolan_core::wire::TcpFlags::ECE | portolan_core::wire::TcpFlags::CWR);
        connection.traits.set(Traits::SACK, cx.config.sack);
        connection.traits.set(Traits::TIMESTAMPS, cx.config.timestamps);
        connection
            .traits
            .set(Traits::WINDOW_SCALING, cx.config.window_scaling);
        connection
            .traits
            .set(Traits::ECN, asks_ecn && cx.config.accept_ecn);
        connection.learn_from_syn(cx, syn);
        connection
    }

    fn new(cx: &Cx<'_>, opening: Opening, state: State) -> Self {
        let Opening {
            iss,
            mss,
            path_mss,
            timestamp_offset,
        } = opening;
        let mut traits = Traits::empty();
        traits.set(Traits::NO_DELAY, cx.config.no_delay);
        Self {
            state,
            reason: None,
            reads_shut: false,
            traits,
            wanted: Wanted::SYN,
            happened: Happened::empty(),
            iss,
            snd_una: iss,
            snd_nxt: iss,
            snd_wnd: 0,
            snd_wl1: iss,
            snd_wl2: iss,
            max_snd_wnd: 0,
            snd_shift: 0,
            snd_mss: mss.min(DEFAULT_MSS),
            link_mss: mss,
            peer_mss: mss.min(DEFAULT_MSS),
            path_mss,
            soft_error: None,
            queue: SendQueue::default(),
            unsent: Unsent::new(iss + 1),
            snd_sml: iss,
            board: Scoreboard::default(),
            rtt: RttEstimator::new(),
            rack: Rack::new(),
            phase: Phase::Open,
            window: Window::initial(u32::from(mss)),
            congestion: Congestion::new(cx.config.congestion_control),
            undo: None,
            duplicates: 0,
            tail_probe: None,
            attempts: 0,
            keepalive_probes: 0,
            most_outstanding: 0,
            usage_until: iss,
            last_sent: cx.now,
            last_heard: cx.now,
            progress_at: cx.now,
            pace_until: Instant::START,
            bytes_retransmitted: 0,
            reassembly: Reassembly::new(SeqNum::new(0)),
            rcv_edge: SeqNum::new(0),
            rcv_shift: cx.config.window_shift(),
            fin_at: None,
            irs: SeqNum::new(0),
            urgent: None,
            acks: AckSchedule::new(),
            tuning: Tuning::new(0, SeqNum::new(0)),
            timestamp_offset,
            ts_recent: 0,
            ts_recent_at: cx.now,
            timers: Timers::new(),
            own_config: None,
            stats: cx.config.statistics.then(Box::default),
        }
    }

    /// Calls `act` with the configuration that holds for this connection: its own, or that of its stack.
    pub(crate) fn with_config<R>(
        &mut self,
        stack: &TcpConfig,
        act: impl FnOnce(&mut Self, &TcpConfig) -> R,
    ) -> R {
        let Some(own) = self.own_config.take() else {
            return act(self, stack);
        };
        let result = act(self, &own);
        // Unless it was given another just now.
        self.own_config.get_or_insert(own);
        result
    }

    /// Behaves by `config` from now on, and no more as its stack does.
    pub(crate) fn configure(&mut self, config: &TcpConfig) {
        // Linux sends what waits when TCP_NODELAY is set, be it set already, and when TCP_CORK is taken away.
        let was_corked = self.own_config.as_ref().is_some_and(|own| own.cork);
        let uncorked = was_corked && !config.cork;
        let no_delay = config.no_delay && !self.traits.contains(Traits::NO_DELAY);
        if uncorked || no_delay {
            self.push_what_waits();
        }
        self.own_config = Some(Box::new(*config));
        if config.statistics {
            self.stats.get_or_insert_default();
        }
        self.traits.set(Traits::NO_DELAY, config.no_delay);
        // A peer that was silent before is asked as well; while the handshake goes on it is not idle.
        if let Some(keepalive) = config.keepalive
            && !matches!(self.state, State::SynSent | State::SynReceived | State::Closed)
        {
            self.timers
                .arm(Timer::Keepalive, self.last_heard + keepalive.idle);
        }
    }

    /// What holds for this connection: its own configuration, or that of its stack.
    pub(crate) fn config(&self, stack: &TcpConfig) -> TcpConfig {
        TcpConfig {
            no_delay: self.traits.contains(Traits::NO_DELAY),
            ..*self.own_config.as_deref().unwrap_or(stack)
        }
    }

    /// Takes the peer's initial sequence number, window and options.
    pub(super) fn learn_from_syn(&mut self, cx: &Cx<'_>, syn: &Segment<'_>) {
        self.irs = syn.seq;
        self.reassembly = Reassembly::new(syn.seq + 1);
        self.tuning = Tuning::new(0, syn.seq + 1);
        // The window of a SYN is never scaled (RFC 7323, section 2.2), and neither is what we offer in one.
        self.rcv_edge = self.reassembly.next() + cx.config.first_receive_limit().min(65_535);
        self.snd_wnd = u32::from(syn.window);
        self.max_snd_wnd = self.snd_wnd;
        self.snd_wl1 = syn.seq;
        self.snd_wl2 = syn.ack;

        let options = &syn.options;
        if !options.sack_permitted {
            self.traits -= Traits::SACK;
        }
        match options.window_scale {
            Some(shift) if self.traits.contains(Traits::WINDOW_SCALING) => self.snd_shift = shift,
            Some(_) | None => {
                self.traits -= Traits::WINDOW_SCALING;
                self.snd_shift = 0;
                self.rcv_shift = 0;
            }
        }
        let own = cx.config.max_segment.unwrap_or(u16::MAX).min(self.link_mss);
        self.peer_mss = options.mss.unwrap_or(DEFAULT_MSS).max(MIN_MSS).min(own);
        let mut mss = self.peer_mss.min(self.path_mss);
        match options.timestamps {
            Some((value, _)) if self.traits.contains(Traits::TIMESTAMPS) => {
                self.ts_recent = value;
                self.ts_recent_at = cx.now;
                mss -= TIMESTAMPS_LEN;
            }
            Some(_) | None => self.traits -= Traits::TIMESTAMPS,
        }
        self.snd_mss = mss;
        self.window = Window::initial(u32::from(mss));
    }

    /// Takes bytes to send, as many as there is room for.
    pub(crate) fn write(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Result<usize, WriteError> {
        let len = self.room_to_write(cx, bytes.len())?;
        self.note_written(len, false);
        self.queue.push(cx.pool, &bytes[..len]);
        Ok(len)
    }

    /// Takes bytes to send off the front of `chunk`, by reference.
    pub(crate) fn write_chunk(&mut self, cx: &Cx<'_>, chunk: &mut Bytes) -> Result<usize, WriteError> {
        let len = self.room_to_write(cx, chunk.len())?;
        self.note_written(len, false);
        self.queue.push_shared(chunk.split_to(len));
        Ok(len)
    }

    /// How many of `wanted` bytes can be written.
    pub(crate) fn room_to_write(&mut self, cx: &Cx<'_>, wanted: usize) -> Result<usize, WriteError> {
        if let Some(reason) = self.reason {
            return Err(reason.into());
        }
        if !self.state.may_send() || self.traits.contains(Traits::FIN_QUEUED) {
            return Err(WriteError::Finished);
        }
        let limit = self.send_buffer(cx.config);
        let limit = match self.queue.len() {
            _ if !cx.pool.is_tight() => limit,
            // With nothing on its way no acknowledgment would say that there is room again.
            0 => limit.min(TIGHT_BUFFER as usize),
            _ if cx.pool.is_full() => 0,
            _ => limit.min(TIGHT_BUFFER as usize),
        };
        let len = limit.saturating_sub(self.queue.len()).min(wanted);
        if len < wanted {
            self.traits |= Traits::WRITER_WAITS;
        }
        if len == 0 && wanted > 0 {
            return Err(WriteError::WouldBlock);
        }
        Ok(len)
    }

    /// Gives bytes that came in order; none at all after the peer's FIN.
    pub(crate) fn read(&mut self, cx: &mut Cx<'_>, out: &mut [u8]) -> Result<usize, ReadError> {
        if out.is_empty() || self.reassembly.ready() == 0 {
            self.nothing_to_read(out.is_empty())?;
            return Ok(0);
        }
        let len = self.reassembly.read(cx.pool, out);
        self.after_read(cx);
        Ok(len)
    }

    /// Gives at most `max` bytes that came in order, as many as lie together, by reference if the packet came so.
    pub(crate) fn read_chunk(&mut self, cx: &mut Cx<'_>, max: usize) -> Result<Bytes, ReadError> {
        if max == 0 || self.reassembly.ready() == 0 {
            self.nothing_to_read(max == 0)?;
            return Ok(Bytes::new());
        }
        let chunk = self.reassembly.take(cx.pool, max);
        self.after_read(cx);
        Ok(chunk)
    }

    /// The bytes that came in order, as many as lie together; none at all after the peer's FIN.
    pub(crate) fn peek(&self) -> Result<&[u8], ReadError> {
        if self.reassembly.ready() == 0 {
            self.nothing_to_read(false)?;
        }
        Ok(self.reassembly.peek())
    }

    /// Drops bytes that were seen.
    pub(crate) fn consume(&mut self, cx: &mut Cx<'_>, len: usize) {
        self.reassembly.consume(cx.pool, len);
        self.after_read(cx);
    }

    /// Whether it is fine that nothing is read: the peer has finished, or no byte was asked for.
    fn nothing_to_read(&self, wants_nothing: bool) -> Result<(), ReadError> {
        match self.reason {
            _ if self.at_end() => Ok(()),
            Some(reason) if self.reassembly.ready() == 0 => Err(reason.into()),
            _ if wants_nothing || self.reads_shut => Ok(()),
            _ => Err(ReadError::WouldBlock),
        }
    }

    /// Says that nothing more will be written: a FIN follows the data.
    pub(crate) fn finish(&mut self) {
        if self.state.may_send() {
            self.traits |= Traits::FIN_QUEUED;
            self.advance_to_fin_wait();
        }
    }

    /// Says that nothing more will be read, but for what came and what comes until our FIN goes.
    pub(crate) fn shut_reads(&mut self) {
        self.reads_shut = true;
        self.happened |= Happened::READABLE;
    }

    /// The program lets go. What it wrote is still sent; what it did not read makes it a RST (RFC 9293, section
    /// 3.6.1).
    pub(crate) fn release(&mut self, cx: &mut Cx<'_>) {
        self.traits |= Traits::RELEASED;
        match self.state {
            // Nothing was agreed on: nothing needs to be said.
            State::SynSent => self.end(cx, CloseReason::Aborted),
            _ if self.reassembly.ready() > 0 => self.abort(cx),
            _ => {
                self.finish();
                if self.state == State::FinWait2 {
                    self.timers.arm(Timer::Linger, cx.now + cx.config.fin_wait);
                }
            }
        }
    }

    /// Ends the connection with a RST.
    pub(crate) fn abort(&mut self, cx: &mut Cx<'_>) {
        let tells = match self.state {
            State::SynSent | State::TimeWait | State::Closed => false,
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => true,
        };
        self.end(cx, CloseReason::Aborted);
        if tells {
            self.wanted |= Wanted::RESET;
        }
    }

    /// There is no connection any more.
    pub(crate) fn end(&mut self, cx: &mut Cx<'_>, reason: CloseReason) {
        self.state = State::Closed;
        self.reason.get_or_insert(reason);
        self.wanted = Wanted::empty();
        self.timers.cancel_all();
        self.queue.clear(cx.pool);
        self.board = Scoreboard::default();
        self.unsent.clear();
        // As in Linux what came before a RST is read before that is told. Who ends it himself wants no more.
        if reason == CloseReason::Aborted {
            self.reassembly.clear(cx.pool);
        }
        self.happened |= Happened::CLOSED;
    }

    /// Gives all buffers back, before the connection is dropped.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.board.clear();
        self.unsent.clear();
        self.queue.clear(pool);
        self.reassembly.clear(pool);
    }

    /// What the program is to be told since it was last asked.
    pub(crate) fn take_happened(&mut self) -> Happened {
        std::mem::replace(&mut self.happened, Happened::empty())
    }

    /// RCV.NXT.
    pub(crate) const fn rcv_nxt(&self) -> SeqNum {
        self.reassembly.next()
    }

    /// SND.NXT.
    pub(crate) const fn snd_nxt(&self) -> SeqNum {
        self.snd_nxt
    }

    /// The window as the last segment had it in its header.
    pub(crate) fn last_window(&self) -> u16 {
        let window = self.rcv_edge.since(self.reassembly.next()).max(0) as u32;
        (window >> self.rcv_shift).min(65_535) as u16
    }

    /// TS.Recent and TSval, if timestamps were agreed on.
    pub(crate) fn timestamps(&self, now: Instant) -> Option<(u32, u32)> {
        let agreed = self.traits.contains(Traits::TIMESTAMPS);
        agreed.then(|| (self.ts_recent, self.timestamp(now)))
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    pub(crate) const fn reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// Whether our SYN opened it.
    pub(crate) const fn is_active(&self) -> bool {
        self.traits.contains(Traits::ACTIVE)
    }

    /// Whether the program has let go of it.
    pub(crate) const fn is_released(&self) -> bool {
        self.traits.contains(Traits::RELEASED)
    }

    /// When [`Connection::expire`] is to be called.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The first deadline, if it comes before the stack would look at the connection; from here on it does so then.
    #[inline]
    pub(crate) fn take_sooner(&mut self) -> Option<Instant> {
        self.timers.take_sooner()
    }

    /// The stack looks at the connection now, and not again before it is told a time.
    pub(crate) const fn look(&mut self) {
        self.timers.look();
    }

    /// Sends small segments at once, or lets Nagle's algorithm hold them back.
    pub(crate) fn set_no_delay(&mut self, no_delay: bool) {
        if no_delay {
            self.push_what_waits();
        }
        self.traits.set(Traits::NO_DELAY, no_delay);
    }

    /// The number of the first byte in the send queue.
    pub(super) fn data_start(&self) -> SeqNum {
        if self.snd_una == self.iss && matches!(self.state, State::SynSent | State::SynReceived) {
            self.iss + 1
        } else {
            self.snd_una
        }
    }

    /// The number after the last byte in the send queue: that of our FIN.
    pub(super) fn data_end(&self) -> SeqNum {
        self.data_start() + self.queue.len() as u32
    }

    /// Whether our FIN was acknowledged.
    pub(super) fn is_fin_acknowledged(&self) -> bool {
        self.traits.contains(Traits::FIN_SENT) && self.snd_una == self.snd_nxt
    }

    /// Bytes in the network. Each duplicate acknowledgment of a peer without SACK says that one segment left
    /// it.
    pub(super) fn in_flight(&self) -> u32 {
        let left = u32::from(self.duplicates) * u32::from(self.snd_mss);
        self.board.in_flight().saturating_sub(left)
    }

    /// Whether the program has read everything that will ever come.
    pub(super) fn at_end(&self) -> bool {
        self.reassembly.ready() == 0 && self.traits.contains(Traits::FIN_RECEIVED)
    }

    /// The state after the program said that it is done. The FIN itself may have to wait for a window.
    fn advance_to_fin_wait(&mut self) {
        self.state = match self.state {
            State::Established | State::SynReceived if self.snd_una != self.iss => State::FinWait1,
            State::CloseWait => State::LastAck,
            // Before the handshake is done the FIN waits; the state follows with the acknowledgment.
            other => other,
        };
    }
}
