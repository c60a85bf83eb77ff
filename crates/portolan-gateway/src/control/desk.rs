//! Answering, in the process that serves the space.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portolan_core::{Mapping, PortRange, Protocol};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::members::{Member, Members};
use super::{
    FlowEnd, FlowItem, HostEnd, LinkItem, Notice, PublishedItem, REQUEST_MAX, Reply, Request, SpaceName,
    Status, rights,
};
use crate::Gateway;
use crate::flows::{Flow, FlowState};
use crate::gate::Target;
use crate::inbound::{Bound, PublishError, Published, Refusal};
use crate::links::Offer;

/// What a space says of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub name: SpaceName,
    /// Its program, with its arguments.
    pub command: Vec<String>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// What it takes to join it: the descriptors of its namespaces; none if nobody can.
    pub namespaces: Arc<[OwnedFd]>,
}

/// Answers for one space. Clones are the same.
#[derive(Clone, Debug)]
pub struct Desk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    about: About,
    gateway: Gateway,
    since: Instant,
    pid: AtomicI32,
    clients: AtomicUsize,
    members: Members,
    stop: Notify,
    /// The same for those who have joined, and come later too.
    is_stopping: watch::Sender<bool>,
}

/// More clients at once are turned away.
const CLIENTS_MAX: usize = 32;
/// A client that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

impl Desk {
    /// A desk for what `gateway` serves.
    #[must_use]
    pub fn new(about: About, gateway: Gateway) -> Self {
        let inner = Inner {
            about,
            gateway,
            since: Instant::now(),
            pid: AtomicI32::new(0),
            clients: AtomicUsize::new(0),
            members: Members::default(),
            stop: Notify::new(),
            is_stopping: watch::Sender::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Says that the program runs, in this process.
    pub fn started(&self, pid: i32) {
        self.inner.pid.store(pid, Ordering::Relaxed);
    }

    /// Waits until somebody wants the space ended.
    pub async fn stopped(&self) {
        self.inner.stop.notified().await;
    }

    /// Waits until no program is there that has joined.
    pub async fn left_alone(&self) {
        self.inner.members.none().await;
    }

    /// Answers a client, a connected Unix socket, as long as it asks. Call it in a runtime with time and I/O.
    ///
    /// # Errors
    /// If the runtime cannot wait for it.
    pub fn serve(&self, client: OwnedFd) -> io::Result<()> {
        let inner = Arc::clone(&self.inner);
        if inner.clients.load(Ordering::Relaxed) >= CLIENTS_MAX {
            return Ok(());
        }
        let client = StdUnixStream::from(client);
        client.set_nonblocking(true)?;
        let client = UnixStream::from_std(client)?;
        inner.clients.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // A client that goes away in the middle is no matter.
            let joining = inner.talk(client).await;
            inner.clients.fetch_sub(1, Ordering::Relaxed);
            match joining {
                Ok(Some(Staying::Member(conversation, member))) => {
                    let _ = inner.attend(conversation, &member).await;
                }
                Ok(Some(Staying::Link(conversation, offer))) => inner.link(conversation, offer).await,
                Ok(None) | Err(_) => {}
            }
        });
        Ok(())
    }
}

/// A client, and what it has said and nobody has read.
struct Conversation {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Conversation {
    /// The next line; empty at the end, and without its end if it is too long.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(REQUEST_MAX as u64);
        bounded.read_until(b'\n', &mut line).await?;
        Ok(line)
    }

    async fn say(&mut self, words: &impl Serialize) -> io::Result<()> {
        timeout(PATIENCE, self.writer.write_all(&line(words)?)).await?
    }
}

/// A client that has asked for something that lasts.
enum Staying<'a> {
    /// To join.
    Member(Conversation, Member<'a>),
    /// To be linked with.
    Link(Conversation, Offer),
}

fn line(words: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(words)?;
    text.push(b'\n');
    Ok(text)
}

impl Inner {
    /// Answers until the client has gone, or is to stay.
    async fn talk(&self, client: UnixStream) -> io::Result<Option<Staying<'_>>> {
        let (reader, writer) = client.into_split();
        let mut client = Conversation {
            reader: BufReader::new(reader),
            writer,
        };
        loop {
            let line = timeout(PATIENCE, client.line()).await??;
            if line.last() != Some(&b'\n') {
                return Ok(None);
            }
            let request = match serde_json::from_slice(&line) {
                Ok(request) => request,
                Err(error) => {
                    client
                        .say(&Reply::Wrong(format!("no such question: {error}")))
                        .await?;
                    continue;
                }
            };
            match request {
                Request::Join { command } => {
                    if let Some(member) = self.join(&mut client, command).await? {
                        return Ok(Some(Staying::Member(client, member)));
                    }
                }
                Request::Link { name } => match self.gateway.links().offer(&name) {
                    Err(why) => client.say(&Reply::Refused(why)).await?,
                    Ok(offer) => {
                        client.say(&Reply::Done(serde_json::Value::Null)).await?;
                        return Ok(Some(Staying::Link(client, offer)));
                    }
                },
                Request::PublishTaken { mapping } => self.publish_taken(&mut client, &mapping).await?,
                Request::Stop => {
                    client.say(&Reply::Done(serde_json::Value::Null)).await?;
                    self.is_stopping.send_replace(true);
                    self.stop.notify_one();
                    // The end of this process is the end of the connection, which the client waits for.
                    std::future::pending::<()>().await;
                }
                request => client.say(&self.answer(&request)).await?,
            }
        }
    }

    /// Hands the namespaces to a program that joins.
    async fn join(&self, client: &mut Conversation, command: Vec<String>) -> io::Result<Option<Member<'_>>> {
        let member = match (&*self.about.namespaces, self.members.enter(command)) {
            ([], _) => {
                let why = "this space cannot be joined: its namespaces could not be had";
                client.say(&Reply::Refused(why.to_owned())).await?;
                return Ok(None);
            }
            (_, None) => {
                let why = "no more programs can join this space";
                client.say(&Reply::Refused(why.to_owned())).await?;
                return Ok(None);
            }
            (_, Some(member)) => member,
        };
        let text = line(&Reply::Done(serde_json::Value::Null))?;
        let sent = rights::send(client.writer.as_ref(), &text, &self.about.namespaces);
        timeout(PATIENCE, sent).await??;
        Ok(Some(member))
    }

    /// Publishes ports by sockets that the client has taken.
    async fn publish_taken(&self, client: &mut Conversation, mapping: &str) -> io::Result<()> {
        let mapping: Mapping = match mapping.parse() {
            Err(error) => return client.say(&Reply::Wrong(format!("{error}"))).await,
            Ok(mapping) => mapping,
        };
        if let Err(error) = Bound::check_descriptors(&mapping) {
            return client.say(&refused(&error)).await;
        }
        client.say(&Reply::Done(serde_json::Value::Null)).await?;
        // Nobody speaks before that answer is there: nothing was read that came with a socket.
        let stream = client.reader.get_ref().as_ref();
        let sockets = timeout(PATIENCE, rights::receive_all(stream, Bound::count(&mapping))).await??;
        let published = self.gateway.publisher().publish_taken(&mapping, sockets);
        client.say(&published_or_not(published)).await
    }

    /// Listens to a program that has joined until it has ended, and tells it of the end.
    async fn attend(&self, mut client: Conversation, member: &Member<'_>) -> io::Result<()> {
        let mut is_stopping = self.is_stopping.subscribe();
        tokio::select! {
            gone = follow(&mut client, member) => return gone,
            _ = is_stopping.wait_for(|is_stopping| *is_stopping) => {}
        }
        client.say(&Notice::Stop).await?;
        follow(&mut client, member).await
    }

    /// Has a link carried by this connection, or keeps it until the other side closes it.
    async fn link(&self, mut client: Conversation, offer: Offer) {
        match offer {
            // Nobody speaks before the answer is there: nothing was read that is of the link.
            Offer::Carry(link) => {
                if let Ok(stream) = client.reader.into_inner().reunite(client.writer) {
                    self.gateway.links().carry(link, stream).await;
                }
            }
            Offer::Wait => drop(client.line().await),
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        match request {
            Request::Status => done(&self.status()),
            Request::Flows => {
                let flows = self.gateway.flows().list_with(self.gateway.stack());
                done(&flows.iter().map(FlowItem::from).collect::<Vec<_>>())
            }
            Request::Publish { mapping } => self.with_mapping(mapping, |mapping| {
                self.gateway.publisher().publish(mapping, &|_, _| None)
            }),
            Request::Unpublish { mapping } => match ports(mapping) {
                Some((ports, protocol)) => {
                    published_or_not(self.gateway.publisher().unpublish_ports(ports, protocol))
                }
                None => self.with_mapping(mapping, |mapping| self.gateway.publisher().unpublish(mapping)),
            },
            Request::Allow { target } => self.with_target(target, |target| self.gateway.gate().allow(target)),
            Request::Deny { target } => self.with_target(target, |target| self.gateway.gate().deny(target)),
            Request::PublishTaken { .. }
            | Request::Join { .. }
            | Request::Joined { .. }
            | Request::Link { .. }
            | Request::Stop => Reply::Wrong("this is asked in another place".to_owned()),
        }
    }

    fn status(&self) -> Status {
        let totals = self.gateway.flows().totals();
        Status {
            name: self.about.name.as_str().to_owned(),
            pid: self.pid.load(Ordering::Relaxed),
            gateway_pid: std::process::id(),
            command: self.about.command.clone(),
            published: self
                .gateway
                .publisher()
                .list()
                .iter()
                .map(PublishedItem::from)
                .collect(),
            flows: totals.open,
            bytes_in: totals.traffic.bytes_in,
            bytes_out: totals.traffic.bytes_out,
            age: self.since.elapsed().as_secs(),
            addresses: self.about.addresses.clone(),
            joined: self.members.list(),
            links: self.links(),
        }
    }

    fn links(&self) -> Vec<LinkItem> {
        let links = self.gateway.links().list().into_iter();
        links
            .map(|(name, up)| LinkItem {
                name: name.as_str().to_owned(),
                up,
            })
            .collect()
    }

    fn with_mapping(
        &self,
        text: &str,
        work: impl FnOnce(&Mapping) -> Result<Vec<Published>, PublishError>,
    ) -> Reply {
        match text.parse() {
            Err(error) => Reply::Wrong(format!("{error}")),
            Ok(mapping) => published_or_not(work(&mapping)),
        }
    }

    fn with_target(&self, text: &str, work: impl FnOnce(Target)) -> Reply {
        match text.parse() {
            Err(error) => Reply::Wrong(format!("{error}")),
            Ok(target) => {
                work(target);
                Reply::Done(serde_json::Value::Null)
            }
        }
    }
}

/// `8081`, `8081-8089/udp`: ports of the host alone, and which protocol's; `None` for either.
fn ports(text: &str) -> Option<(PortRange, Option<Protocol>)> {
    let (ports, protocol) = match text.split_once('/').unwrap_or((text, "both")) {
        (ports, "both") => (ports, None),
        (ports, "tcp") => (ports, Some(Protocol::Tcp)),
        (ports, "udp") => (ports, Some(Protocol::Udp)),
        _ => return None,
    };
    Some((ports.parse().ok()?, protocol))
}

/// Hears the number of a program that has joined, until it has gone.
async fn follow(client: &mut Conversation, member: &Member<'_>) -> io::Result<()> {
    loop {
        let line = client.line().await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        if let Ok(Request::Joined { pid }) = serde_json::from_slice(&line) {
            member.started(pid);
        }
    }
}

/// Which ports were published, or are no longer, or why not.
fn published_or_not(result: Result<Vec<Published>, PublishError>) -> Reply {
    match result {
        Err(PublishError::Refused {
            place,
            refusal: Refusal::InUse { .. },
        }) => Reply::Taken {
            protocol: place.protocol.to_string(),
            host: HostEnd {
                address: place.address,
                port: place.port.get(),
            },
        },
        Err(PublishError::Refused {
            refusal: Refusal::LowPort { .. },
            ..
        }) => Reply::LowPort,
        Err(error) => refused(&error),
        Ok(published) => done(&published.iter().map(PublishedItem::from).collect::<Vec<_>>()),
    }
}

fn refused(error: &PublishError) -> Reply {
    Reply::Refused(format!("{error} [{}]", error.code()))
}

fn done(value: &impl Serialize) -> Reply {
    match serde_json::to_value(value) {
        Ok(value) => Reply::Done(value),
        Err(error) => Reply::Refused(error.to_string()),
    }
}

impl From<&Flow> for FlowItem {
    fn from(flow: &Flow) -> Self {
        let end = |end: std::net::SocketAddr| FlowEnd {
            address: end.ip(),
            port: end.port(),
        };
        let state = match (&flow.tcp, flow.state) {
            (Some(figures), FlowState::Open) => figures.state.name(),
            (_, FlowState::Open) => "open",
            (_, FlowState::Opening) => "opening",
        };
        Self {
            protocol: flow.info.protocol.name().to_owned(),
            direction: flow.info.direction.name().to_owned(),
            state: state.to_owned(),
            inside: end(flow.info.inside),
            outside: end(flow.info.outside),
            rule: flow.info.rule.to_string(),
            age: flow.age.as_secs_f64(),
            bytes_in: flow.traffic.bytes_in,
            bytes_out: flow.traffic.bytes_out,
            packets_in: flow.traffic.packets_in,
            packets_out: flow.traffic.packets_out,
            rtt_us: flow
                .tcp
                .and_then(|figures| u64::try_from(figures.rtt?.as_micros()).ok()),
            bytes_retransmitted: flow.tcp.map(|figures| figures.bytes_retransmitted),
        }
    }
}
