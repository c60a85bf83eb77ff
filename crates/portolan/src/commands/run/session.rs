//! The time in which the program runs: packets, signals, and its end.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use portolan_gateway::control::{About, Desk};
use portolan_gateway::dns::Sources;
use portolan_gateway::gate::Gate;
use portolan_gateway::{Gateway, GatewayConfig};
use portolan_space::{
    AddressWatch, Arrival, Ended, Event, Keeper, ReceivedSignal, Signals, Space, host_addresses,
};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::between::{Around, Between};
use super::code::Code;
use super::delivery::delivered;
use super::foreground::Terminal;
use super::{descriptor, link, links, names, sandbox};
use crate::exit::Failure;
use crate::message;

/// All that serves a space, ready to begin.
pub(super) struct Session {
    /// Who lets clients in; goes first, so that the name is free when they see the end.
    clients: Option<Clients>,
    runtime: Runtime,
    gateway: Gateway,
    failure: portolan_gateway::Failure,
    desk: Desk,
    signals: Signals,
    signalled: AsyncFd<OwnedFd>,
    events: AsyncFd<OwnedFd>,
    terminal: Option<Terminal>,
}

/// Who keeps the control socket, and the files that it looks at.
pub(super) type Keeping = (Keeper, names::Files);

/// Clients of the control socket, as they are let in.
struct Clients {
    keeper: Keeper,
    files: names::Files,
    arrived: AsyncFd<OwnedFd>,
}

impl Clients {
    /// The next one; none ever comes if nobody lets them in.
    async fn next(clients: &mut Option<Self>) -> Arrival {
        loop {
            let Some(Self {
                keeper,
                arrived,
                files,
            }) = clients
            else {
                return std::future::pending().await;
            };
            let found = match arrived.readable().await {
                Err(error) => Err(error),
                Ok(mut ready) => match keeper.poll() {
                    Ok(None) => {
                        ready.clear_ready();
                        continue;
                    }
                    found => found.map_err(io::Error::from),
                },
            };
            match found {
                Ok(Some(Arrival::File(place, file))) => files.changed(place, file),
                Ok(Some(arrival)) => return arrival,
                // Without its keeper the space runs on, and cannot be asked.
                _ => *clients = None,
            }
        }
    }
}

/// Said once, when it first matters.
const NO_PING: &str = "a ping was refused, and all others will be: this host lets this user open no ping socket; its \
                       administrator can: sysctl -w net.ipv4.ping_group_range='0 2147483647' [no-ping]";

/// A program that was told to end has so long to do it.
const GRACE: Duration = Duration::from_secs(10);
/// Of it those that have joined have so long before the first program is told, with whose end they are killed.
const HEAD_START: Duration = Duration::from_secs(2);

/// When the program has ended, the link is served for so many turns of so long at most, and until nothing has passed for
/// some of them.
const SETTLE_TURNS: usize = 50;
const SETTLE_TURN: Duration = Duration::from_millis(2);
const SETTLED: usize = 3;

/// How a session ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The program ran, and ended.
    Ended(Ended),
    /// It could not be run.
    NotRun(Errno),
}

impl Session {
    /// Makes the gateway of the space, and then gives up most rights of this process.
    pub(super) fn new(
        space: &mut Space,
        between: &mut Between,
        config: GatewayConfig,
        names: Sources,
        about: About,
        keeping: Option<Keeping>,
        verbose: bool,
    ) -> Result<Self, Failure> {
        let session = Self::ready(space, between, config, names, about, keeping)
            .map_err(|error| Code::Gateway.failure(format!("cannot serve the port space: {error}")))?;
        sandbox::enter(verbose);
        Ok(session)
    }

    fn ready(
        space: &mut Space,
        between: &mut Between,
        config: GatewayConfig,
        names: Sources,
        about: About,
        keeping: Option<Keeping>,
    ) -> io::Result<Self> {
        let signals = Signals::hold()?;
        let device = space
            .take_device()
            .ok_or_else(|| io::Error::other("the space has no device"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let guard = runtime.enter();
        let around = Around {
            space,
            name: about.name.as_str(),
        };
        let link = between.wrap(link::over(device)?, around)?;
        let (gateway, failure) = Gateway::start(link, config, names)?;
        // Without it the addresses are those that there were at the start.
        if let Ok(watch) = AddressWatch::new() {
            let changed = descriptor::watch(&watch)?;
            runtime.spawn(follow_addresses(watch, changed, gateway.gate().clone()));
        }
        let signalled = descriptor::watch(&signals)?;
        let events = descriptor::watch(space)?;
        let clients = match keeping {
            None => None,
            Some((keeper, files)) => Some(Clients {
                arrived: descriptor::watch(&keeper)?,
                keeper,
                files,
            }),
        };
        drop(guard);
        Ok(Self {
            clients,
            runtime,
            desk: Desk::new(about, gateway.clone()),
            gateway,
            failure,
            signals,
            signalled,
            events,
            terminal: Terminal::open(),
        })
    }

    /// What serves the space.
    pub(super) const fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The runtime in which all of it runs, for what is to be added.
    pub(super) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Starts the program, and serves it until it has ended and what it had sent is delivered. Whoever signals in that last
    /// time wants no more of it.
    pub(super) fn run(&mut self, space: &mut Space) -> Result<End, Failure> {
        let Self {
            clients,
            runtime,
            gateway,
            failure,
            desk,
            signals,
            signalled,
            events,
            terminal,
        } = self;
        let failed = |error: io::Error| Code::Gateway.failure(format!("the port space failed: {error}"));
        space.go().map_err(|error| failed(error.into()))?;
        runtime.block_on(async {
            let mut not_run = None;
            let mut tell_at = None;
            let mut end_at = None;
            let mut end = None;
            let mut delivery = pin!(delivered(gateway));
            loop {
                tokio::select! {
                    (end, done) = last(end, &mut delivery) => {
                        if let Err(undelivered) = done {
                            message::say(&undelivered.to_string());
                        }
                        return Ok(end);
                    }
                    // After the end there is none.
                    ready = events.readable(), if end.is_none() => {
                        let mut ready = ready.map_err(failed)?;
                        match space.poll().map_err(|error| failed(error.into()))? {
                            None => ready.clear_ready(),
                            Some(Event::Started { pid }) => desk.started(pid),
                            Some(Event::NotRun(errno)) => not_run = Some(errno),
                            Some(Event::Ended(ended)) => {
                                end = Some(not_run.map_or(End::Ended(ended), End::NotRun));
                            }
                            // The terminal's other processes wait for us, so we stop with it.
                            Some(Event::Stopped(_)) if let Some(terminal) = terminal => {
                                signals.stop().map_err(|error| failed(error.into()))?;
                                terminal.look();
                                let _ = space.signal(Signal::CONT.as_raw());
                            }
                            Some(_) => {}
                        }
                    }
                    ready = signalled.readable() => {
                        let mut ready = ready.map_err(failed)?;
                        match signals.poll().map_err(|error| failed(error.into()))? {
                            None => ready.clear_ready(),
                            Some(signal) => match end {
                                Some(end) if is_to_end(signal) => return Ok(end),
                                _ => pass_on(signal, space),
                            },
                        }
                    }
                    arrival = Clients::next(clients) => match arrival {
                        // One that cannot be served sees its connection closed.
                        Arrival::Client(client) => drop(desk.serve(client)),
                        Arrival::Peer(place, peer) => links::reach(gateway.links(), place, peer),
                        _ => {}
                    },
                    () = desk.stopped() => {
                        if let Some(end) = end {
                            return Ok(end);
                        }
                        let now = Instant::now();
                        tell_at = Some(now + HEAD_START);
                        end_at = end_at.or(Some(now + GRACE));
                    }
                    () = alone(desk, tell_at) => {
                        let _ = space.signal(Signal::TERM.as_raw());
                        tell_at = None;
                    }
                    () = reached(end_at) => {
                        space.end();
                        return Ok(End::Ended(Ended::Killed(Signal::KILL.as_raw())));
                    }
                    () = gateway.ping_refused() => message::say(NO_PING),
                    error = failure.wait() => return Err(failed(error)),
                }
            }
        })
    }

    /// Serves on until what the program sent last, and the answers to that, have passed; `passed` says how many packets
    /// have.
    pub(super) fn settle(&self, passed: impl Fn() -> u64) {
        self.runtime.block_on(async {
            let mut before = passed();
            let mut quiet = 0;
            for _ in 0..SETTLE_TURNS {
                sleep(SETTLE_TURN).await;
                let now = passed();
                quiet = if now == before { quiet + 1 } else { 0 };
                if quiet == SETTLED {
                    break;
                }
                before = now;
            }
        });
    }
}

/// Waits for what the program has left behind, when it has ended.
async fn last<T>(end: Option<End>, delivery: impl Future<Output = T>) -> (End, T) {
    match end {
        Some(end) => (end, delivery.await),
        None => std::future::pending().await,
    }
}

/// Tells the gate of the host's addresses whenever they change.
async fn follow_addresses(watch: AddressWatch, changed: AsyncFd<OwnedFd>, gate: Gate) {
    while let Ok(mut ready) = changed.readable().await {
        ready.clear_ready();
        if watch.poll()
            && let Ok(addresses) = host_addresses()
        {
            gate.set_host_addresses(&addresses);
        }
    }
}

/// Waits for a time, if there is one.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until nobody is there any more who has joined, at most until a time; for ever, if there is none.
async fn alone(desk: &Desk, at_most: Option<Instant>) {
    match at_most {
        Some(time) => drop(timeout_at(time, desk.left_alone()).await),
        None => std::future::pending().await,
    }
}

/// Whether a process that is sent this is to end.
fn is_to_end(signal: ReceivedSignal) -> bool {
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM]
        .map(Signal::as_raw)
        .contains(&signal.number)
}

/// Sends the program a signal that was sent to us. Those of the terminal it has got by itself, being of our group.
pub(super) fn pass_on(signal: ReceivedSignal, space: &Space) {
    let ours = [Signal::CHILD, Signal::PIPE].map(Signal::as_raw);
    if !signal.from_kernel && !ours.contains(&signal.number) {
        // If it has ended meanwhile, the next event says so.
        let _ = space.signal(signal.number);
    }
}
