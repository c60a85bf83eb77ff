//! Two hosts, and a program on each.

use std::net::{IpAddr, SocketAddr};

use portolan_core::table::{Device, Host};
use portolan_stack::{
    ConnectionId, Duration, Event, Instant, ListenerId, Offload, Packet, Pieces, ReadError, Stack,
    StackConfig, WriteError,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::link::{Flying, Impairment, Link};

/// What one end does with its connection.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How many bytes to write, then to finish.
    pub(crate) bytes: u64,
    /// How many to write or read in one call, at most.
    pub(crate) step: usize,
    /// How long to wait between reads, so that windows fill; zero reads at once.
    pub(crate) read_pause: Duration,
    /// To finish only after the peer has.
    pub(crate) finish_last: bool,
}

impl Plan {
    pub(crate) const fn send(bytes: u64) -> Self {
        Self {
            bytes,
            step: 16 * 1024,
            read_pause: Duration::ZERO,
            finish_last: false,
        }
    }
}

/// A connection with its plan, and how far it has come.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) id: ConnectionId,
    plan: Plan,
    /// Tells the bytes of one stream from those of others.
    salt: u64,
    peer_salt: u64,
    written: u64,
    pub(crate) read: u64,
    finished: bool,
    pub(crate) peer_finished: bool,
    pub(crate) error: Option<ReadError>,
    read_from: Instant,
    /// What events have told: there may be something to read, or room to write.
    readable: bool,
    writable: bool,
}

/// A host.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) stack: Stack,
    pub(crate) address: SocketAddr,
    pub(crate) listener: Option<ListenerId>,
    pub(crate) conversations: Vec<Conversation>,
    accept_plan: Plan,
    accept_salts: (u64, u64),
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    pub(crate) links: [Link; 2],
    pub(crate) segments: u64,
    pub(crate) events: Vec<(usize, Event)>,
    buffer: Vec<u8>,
    /// When each end sent something last, and its longest timeout since.
    last_sent: [(Instant, Duration); 2],
    /// How much each end has had to send or to be acknowledged since it sent something last, and since when so much.
    queued: [Option<(usize, Instant)>; 2],
    /// Whether super-segments are cut before the link, as a device would.
    pub(crate) cuts_segments: bool,
}

/// The byte at this place of the stream `salt`.
fn byte(salt: u64, place: u64) -> u8 {
    let mixed = (place ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

impl World {
    pub(crate) fn new(
        seed: u64,
        configs: [StackConfig; 2],
        impairments: [Impairment; 2],
        start: Instant,
    ) -> Self {
        let addresses = [1, 2].map(|number| IpAddr::from([10, 0, 0, number]));
        Self::between(addresses, seed, configs, impairments, start)
    }

    /// A world of hosts with these addresses.
    pub(crate) fn between(
        addresses: [IpAddr; 2],
        seed: u64,
        configs: [StackConfig; 2],
        impairments: [Impairment; 2],
        start: Instant,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut end = |address: IpAddr, config| {
            let mut host = Host::new();
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            let address = SocketAddr::from((address, 80));
            host.add_address(Device::new(1).unwrap(), address.ip(), Some(prefix));
            End {
                stack: Stack::new(config, host, rng.random()),
                address,
                listener: None,
                conversations: Vec::new(),
                accept_plan: Plan::send(0),
                accept_salts: (0, 0),
            }
        };
        let ends = [end(addresses[0], configs[0]), end(addresses[1], configs[1])];
        let links = impairments.map(|impairment| Link::new(impairment, ChaCha8Rng::from_rng(&mut rng)));
        Self {
            now: start,
            ends,
            links,
            segments: 0,
            events: Vec::new(),
            buffer: vec![0; 65_535],
            last_sent: [(start, Duration::ZERO); 2],
            queued: [None; 2],
            cuts_segments: false,
        }
    }

    /// End 1 listens; its program follows `plan` with each connection.
    pub(crate) fn listen(&mut self, plan: Plan) {
        let end = &mut self.ends[1];
        end.listener = Some(end.stack.listen(end.address, 128).unwrap());
        end.accept_plan = plan;
        end.accept_salts = (2, 1);
    }

    /// End `from` connects to the other.
    pub(crate) fn connect(&mut self, from: usize, local_port: u16, plan: Plan) -> ConnectionId {
        let remote = self.ends[1 - from].address;
        let local = SocketAddr::new(self.ends[from].address.ip(), local_port);
        let end = &mut self.ends[from];
        let id = end.stack.connect(self.now, local, remote).unwrap();
        let salts = if from == 0 { (1, 2) } else { (2, 1) };
        end.conversations.push(Conversation::new(id, plan, salts));
        id
    }

    /// Runs until both programs are done with every connection, or nothing happens any more. Says whether they
    /// are done.
    ///
    /// # Panics
    /// If it takes longer than `limit`, or the streams differ.
    pub(crate) fn run(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        loop {
            self.exchange();
            if self.is_done() {
                return true;
            }
            let Some(next) = self.next_moment() else {
                return false;
            };
            assert!(next <= end, "not done at {}: {:#?}", self.now, self.state());
            self.check_for_stalls(next);
            self.now = next;
            self.step();
        }
    }

    /// Runs for `time`, whatever happens.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            match self.next_moment() {
                Some(next) if next <= end => self.now = next,
                _ => break,
            }
            self.step();
        }
        self.now = end;
    }

    /// Whoever has something to send, or to be acknowledged, must let the peer hear from it: at the latest when
    /// the retransmission timer or that of a shut window fires. While acknowledgments come one by one on a slow link for
    /// what was sent all at once, each starts that timer anew (RFC 6298, rule 5.3), and there is nothing to send.
    ///
    /// # Panics
    /// If an end is silent for more than three times its timeout, and nothing of it was acknowledged in that time,
    /// `next` being when something happens next.
    fn check_for_stalls(&mut self, next: Instant) {
        for from in 0..2 {
            let (at, mut timeout) = self.last_sent[from];
            // Three times the least timeout there is.
            if next.since(at) <= Duration::from_millis(600) {
                continue;
            }
            let end = &self.ends[from];
            let mut queued = 0;
            for info in end.conversations.iter().filter_map(|it| end.stack.info(it.id)) {
                // An acknowledgment may shorten it, and what it lets go may still be paced.
                timeout = timeout.max(info.rto);
                queued += info.send_queue;
            }
            let since = match self.queued[from] {
                None => at,
                Some((before, since)) if before == queued => since,
                Some(_) => self.now,
            };
            self.queued[from] = Some((queued, since));
            let silence = next.since(since);
            assert!(
                queued == 0 || silence <= timeout * 3,
                "end {from} is silent for {silence:?} at {}: {:#?}",
                self.now,
                self.state()
            );
            self.last_sent[from].1 = timeout;
        }
    }

    /// What a failed test prints.
    pub(crate) fn state(&self) -> Vec<String> {
        let of = |end: &End| {
            let infos: Vec<_> = end
                .conversations
                .iter()
                .map(|it| (it, end.stack.info(it.id)))
                .collect();
            format!("{infos:#?} {:?}", end.stack.counters())
        };
        self.ends.iter().map(of).collect()
    }

    fn is_done(&self) -> bool {
        let done = |it: &Conversation| it.error.is_some() || (it.finished && it.peer_finished);
        self.ends.iter().all(|end| end.conversations.iter().all(done))
            && self.ends.iter().any(|end| !end.conversations.is_empty())
            && (self.ends[0].conversations.len() == self.ends[1].conversations.len())
    }

    fn next_moment(&self) -> Option<Instant> {
        let stacks = self.ends.iter().map(|end| end.stack.poll_timeout());
        let links = self.links.iter().map(Link::next_arrival);
        let programs = self.ends.iter().map(|end| end.next_read(self.now));
        let next = stacks.chain(links).chain(programs).flatten().min()?;
        Some(next.max(self.now))
    }

    fn step(&mut self) {
        for to in 0..2 {
            while let Some(Flying { bytes, offload }) = self.links[1 - to].receive(self.now) {
                self.segments += 1;
                let packet = Packet {
                    bytes: &bytes,
                    offload,
                };
                self.ends[to].stack.handle_packet(self.now, packet);
                self.transmit(to);
            }
            self.ends[to].stack.handle_timeout(self.now);
        }
    }

    /// Lets programs work and packets leave until neither has more to do.
    pub(crate) fn exchange(&mut self) {
        for from in 0..2 {
            loop {
                while let Some(event) = self.ends[from].stack.poll_event() {
                    self.events.push((from, event));
                    self.ends[from].hear(event);
                }
                let worked = self.ends[from].work(self.now);
                if !self.transmit(from) && !worked {
                    break;
                }
            }
        }
    }

    fn transmit(&mut self, from: usize) -> bool {
        let mut any = false;
        while let Some(transmit) = self.ends[from].stack.poll_transmit(self.now, &mut self.buffer) {
            any = true;
            self.last_sent[from] = (self.now, Duration::ZERO);
            self.queued[from] = None;
            let bytes = self.buffer[..transmit.len].to_vec();
            let offload = transmit.offload;
            if !self.cuts_segments {
                self.links[from].send(self.now, Flying { bytes, offload });
                continue;
            }
            let packet = Packet {
                bytes: &bytes,
                offload,
            };
            let mut pieces = Pieces::new(packet).expect("the stack writes whole packets");
            while let Some(len) = pieces.write_next(&mut self.buffer) {
                let piece = Flying {
                    bytes: self.buffer[..len].to_vec(),
                    offload: Offload::default(),
                };
                self.links[from].send(self.now, piece);
            }
        }
        any
    }
}

impl End {
    fn hear(&mut self, event: Event) {
        let (id, readable, writable) = match event {
            Event::Acceptable(listener) => return self.accept(listener),
            Event::Readable(id) => (id, true, false),
            Event::Writable(id) => (id, false, true),
            Event::Closed(id, _) => (id, true, true),
            _ => return,
        };
        for conversation in self.conversations.iter_mut().filter(|it| it.id == id) {
            conversation.readable |= readable;
            conversation.writable |= writable;
        }
    }

    fn accept(&mut self, listener: ListenerId) {
        while let Some(id) = self.stack.accept(listener) {
            let conversation = Conversation::new(id, self.accept_plan.clone(), self.accept_salts);
            self.conversations.push(conversation);
        }
    }

    fn work(&mut self, now: Instant) -> bool {
        let mut any = false;
        for conversation in &mut self.conversations {
            any |= conversation.write(&mut self.stack, now);
            any |= conversation.read(&mut self.stack, now);
            any |= conversation.finish(&mut self.stack, now);
        }
        any
    }

    fn next_read(&self, now: Instant) -> Option<Instant> {
        let waits = |it: &&Conversation| !it.peer_finished && it.error.is_none() && it.read_from > now;
        self.conversations
            .iter()
            .filter(waits)
            .map(|it| it.read_from)
            .min()
    }
}

impl Conversation {
    fn new(id: ConnectionId, plan: Plan, (salt, peer_salt): (u64, u64)) -> Self {
        Self {
            id,
            plan,
            salt,
            peer_salt,
            written: 0,
            read: 0,
            finished: false,
            peer_finished: false,
            error: None,
            read_from: Instant::START,
            readable: true,
            writable: true,
        }
    }

    fn write(&mut self, stack: &mut Stack, now: Instant) -> bool {
        let left = (self.plan.bytes - self.written).min(self.plan.step as u64);
        if left == 0 || self.error.is_some() || !self.writable {
            return false;
        }
        let bytes: Vec<u8> = (self.written..self.written + left)
            .map(|place| byte(self.salt, place))
            .collect();
        match stack.write(now, self.id, &bytes) {
            Ok(len) => {
                self.written += len as u64;
                self.writable = len as u64 == left;
                true
            }
            Err(WriteError::WouldBlock) => {
                self.writable = false;
                false
            }
            Err(WriteError::Closed(reason)) => {
                self.error = Some(ReadError::Closed(reason));
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self, stack: &mut Stack, now: Instant) -> bool {
        if self.peer_finished || self.error.is_some() || now < self.read_from || !self.readable {
            return false;
        }
        let mut bytes = vec![0; self.plan.step];
        match stack.read(now, self.id, &mut bytes) {
            Ok(0) => self.peer_finished = true,
            Ok(len) => {
                for (place, got) in (self.read..).zip(&bytes[..len]) {
                    assert_eq!(*got, byte(self.peer_salt, place), "byte {place} of the stream");
                }
                self.read += len as u64;
                self.read_from = now + self.plan.read_pause;
            }
            Err(ReadError::WouldBlock) => {
                self.readable = false;
                return false;
            }
            Err(error) => self.error = Some(error),
        }
        true
    }

    fn finish(&mut self, stack: &mut Stack, now: Instant) -> bool {
        let may = self.written == self.plan.bytes && (self.peer_finished || !self.plan.finish_last);
        if self.finished || !may || self.error.is_some() {
            return false;
        }
        self.finished = true;
        stack.finish(now, self.id).unwrap();
        true
    }
}
