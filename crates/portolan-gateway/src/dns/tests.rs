//! The forwarder between a program on the other end of a wire and a resolver that does as it is told.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use portolan_net::link::{self, Capabilities};
use portolan_net::{Stack, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::gate::{FlowProtocol, HostFacts, Policy};

/// Long enough for anything on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
const GATEWAY: &str = "10.7.0.1";

/// How a question came to the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
}

/// What the resolver sends for a question: any number of datagrams; over TCP the first.
type Script = Box<dyn FnMut(&Message, Over) -> Vec<Vec<u8>> + Send>;

/// A resolver on loopback of the host, and the questions that it heard.
struct Resolver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(Message, SocketAddr)>>>,
}

impl Resolver {
    async fn start(script: impl FnMut(&Message, Over) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The port may be taken for TCP.
            if let Ok(tcp) = tokio::net::TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let (heard_udp, script_udp) = (heard.clone(), script.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (count, asker) = udp.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..count]).unwrap();
                heard_udp.lock().unwrap().push((question.clone(), asker));
                let replies = script_udp.lock().unwrap()(&question, Over::Udp);
                for reply in replies {
                    udp.send_to(&reply, asker).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                let question = Message::from_vec(&question).unwrap();
                let replies = script.lock().unwrap()(&question, Over::Tcp);
                stream.write_u16(replies[0].len() as u16).await.unwrap();
                stream.write_all(&replies[0]).await.unwrap();
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

/// The program's side.
struct Program {
    stack: Stack,
    gate: Gate,
}

fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

impl Program {
    fn start(policy: Policy, servers: &[SocketAddr]) -> Self {
        let facts = HostFacts {
            gateway: vec![GATEWAY.parse().unwrap(), "fd07::1".parse().unwrap()],
            inside: vec!["10.7.0.2".parse().unwrap()],
            host_addresses: vec!["192.168.1.5".parse().unwrap()],
            ..HostFacts::default()
        };
        let gate = Gate::new(policy, facts);
        let conf = ResolvConf {
            servers: servers.to_vec(),
            ..ResolvConf::default()
        };
        let hosts = "192.0.2.77 printer.example\n192.168.1.5 own.example\n";
        let spaces = |name: &str| match name {
            "web" => vec!["10.9.0.2".parse().unwrap()],
            _ => Vec::new(),
        };
        let forwarder = Forwarder {
            gate: gate.clone(),
            local: Local::new(gate.clone(), Box::new(spaces)),
            resolv_conf: Source::fixed(conf),
            hosts: Some(Source::fixed(Hosts::from(hosts))),
            upstreams: Upstreams::default(),
        };
        let (outer, inner) = link::pair(Capabilities::plain(1500));
        let stack = |last: u8, link| {
            let builder = Stack::builder().address([10, 7, 0, last], 24).secret([last; 16]);
            let (stack, driver) = builder.build(link).unwrap();
            tokio::spawn(driver);
            stack
        };
        let gateway = stack(1, outer);
        tokio::spawn(async move {
            let Err(error) = forwarder.run(&gateway, &[GATEWAY.parse().unwrap()]).await;
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
        });
        Self {
            stack: stack(2, inner),
            gate,
        }
    }

    fn server() -> SocketAddr {
        SocketAddr::new(GATEWAY.parse().unwrap(), 53)
    }

    /// Sends a datagram and waits for another.
    async fn exchange(&self, message: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind(&self.stack, "10.7.0.2:0".parse().unwrap()).unwrap();
        let mut buffer = vec![0; 65_535];
        // The forwarder may not have bound its socket yet; and datagrams may be lost.
        loop {
            socket.send_to(message, Self::server()).await.unwrap();
            if let Ok(received) = timeout(Duration::from_secs(20), socket.recv_from(&mut buffer)).await {
                let Ok((count, _)) = received else { continue };
                buffer.truncate(count);
                return buffer;
            }
        }
    }

    async fn udp(&self, question: &Message) -> Message {
        let reply = self.exchange(&question.to_vec().unwrap()).await;
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.id, question.metadata.id);
        assert_eq!(reply.queries, question.queries);
        reply
    }

    async fn ask(&self, name: &str) -> Message {
        self.udp(&question(name, RecordType::A)).await
    }

    /// A connection to the gateway, which may not listen yet.
    async fn connected(&self) -> TcpStream {
        timeout(LONG, async {
            loop {
                if let Ok(stream) = TcpStream::connect(&self.stack, Self::server()).await {
                    break stream;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap()
    }

    async fn tcp(&self, question: &Message) -> Message {
        let mut stream = self.connected().await;
        let question = question.to_vec().unwrap();
        stream
            .write_all(&(question.len() as u16).to_be_bytes())
            .await
            .unwrap();
        stream.write_all(&question).await.unwrap();
        let mut length = [0; 2];
        timeout(LONG, stream.read_exact(&mut length))
            .await
            .unwrap()
            .unwrap();
        let mut reply = vec![0; u16::from_be_bytes(length).into()];
        timeout(LONG, stream.read_exact(&mut reply))
            .await
            .unwrap()
            .unwrap();
        Message::from_vec(&reply).unwrap()
    }

    fn reaches(&self, destination: &str) -> bool {
        self.gate
            .ask(FlowProtocol::Tcp, destination.parse().unwrap())
            .is_ok()
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(hickory_proto::op::Query::query(name(text), kind));
    message
}

fn with_edns(mut question: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    question.edns = Some(edns);
    question
}

fn reply(question: &Message, records: Vec<Record>) -> Message {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.queries = question.queries.clone();
    message.answers = records;
    message
}

fn a(owner: &str, address: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::A(A(address.parse().unwrap())))
}

fn cname(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::CNAME(CNAME(name(target))))
}

fn bytes(message: &Message) -> Vec<Vec<u8>> {
    vec![message.to_vec().unwrap()]
}

/// A resolver that answers every question with these records.
async fn answering(records: Vec<Record>) -> Resolver {
    Resolver::start(move |question, _| bytes(&reply(question, records.clone()))).await
}

fn addresses(message: &Message) -> Vec<String> {
    let answers = message.answers.iter();
    let of = |record: &Record| match record.data {
        RData::A(A(address)) => Some(address.to_string()),
        _ => None,
    };
    answers.filter_map(of).collect()
}

#[tokio::test]
async fn an_allowed_name_is_asked_and_its_addresses_are_pinned() {
    let resolver = answering(vec![
        cname("a.example.", "b.example."),
        a("b.example.", "192.0.2.1"),
    ])
    .await;
    let program = Program::start(policy("allow a.example:443"), &[resolver.address]);
    assert!(!program.reaches("192.0.2.1:443"));
    for over_tcp in [false, true] {
        let question = question("A.Example.", RecordType::A);
        let reply = match over_tcp {
            true => program.tcp(&question).await,
            false => program.udp(&question).await,
        };
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(addresses(&reply), ["192.0.2.1"]);
    }
    assert!(program.reaches("192.0.2.1:443"));
    assert!(!program.reaches("192.0.2.1:80"));
    assert!(!program.reaches("192.0.2.2:443"));
    // The id and the port of each question are its own.
    let heard = resolver.heard.lock().unwrap();
    assert!(heard.iter().any(|(question, _)| question.metadata.id != 4_711));
    assert_eq!(
        heard
            .iter()
            .map(|(_, asker)| asker.port())
            .collect::<HashSet<_>>()
            .len(),
        heard.len()
    );
}

#[tokio::test]
async fn a_name_that_is_not_allowed_is_refused_and_asked_of_nobody() {
    let resolver = answering(vec![a("evil.example.", "192.0.2.1")]).await;
    let program = Program::start(
        policy("allow a.example:443\nallow 192.0.2.0/24:80"),
        &[resolver.address],
    );
    for name in [
        "evil.example.",
        "b.a.example.",
        "xa.example.",
        "x\\.a.example.",
        ".",
    ] {
        let reply = program
            .udp(&with_edns(question(name, RecordType::TXT), 1232))
            .await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "{name}");
        let options = format!("{:?}", reply.edns.unwrap().options());
        // INFO-CODE 18, and the beginning of the reason.
        assert!(
            options.contains("[0, 18, 110, 111, 32, 114, 117, 108, 101"),
            "{options}"
        );
    }
    assert_eq!(resolver.heard(), 0);
    assert!(
        program
            .gate
            .ledger()
            .denied_lines()
            .contains(&"denied: 1 look-up of evil.example (no rule allows it)".to_owned())
    );
}

#[tokio::test]
async fn no_out_closes_dns_too() {
    let resolver = answering(vec![a("a.example.", "192.0.2.1")]).await;
    let program = Program::start(policy("no-out\nallow-host 5432"), &[resolver.address]);
    assert_eq!(
        program.ask("a.example.").await.metadata.response_code,
        ResponseCode::Refused
    );
    assert_eq!(addresses(&program.ask("host.portolan.").await), [GATEWAY]);
    assert_eq!(resolver.heard(), 0);
}

#[tokio::test]
async fn a_name_that_resolves_to_what_is_closed_is_refused() {
    for closed in [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        GATEWAY,
        "10.7.0.2",
        "192.168.1.5",
    ] {
        let resolver = answering(vec![a("a.example.", closed)]).await;
        let program = Program::start(policy("allow a.example"), &[resolver.address]);
        let reply = program.ask("a.example.").await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "{closed}");
        assert!(!program.reaches(&format!("{closed}:80")));
        let denied = program.gate.ledger().denied_lines().join("\n");
        assert!(
            denied.contains(&format!("look-up of a.example (it resolves to {closed}: ")),
            "{denied}"
        );
    }
    // What is open among them is told.
    let mixed = vec![
        a("a.example.", "127.0.0.1"),
        a("a.example.", "192.0.2.1"),
        a("other.example.", "192.0.2.9"),
    ];
    let resolver = answering(mixed).await;
    let program = Program::start(policy("allow a.example"), &[resolver.address]);
    assert_eq!(addresses(&program.ask("a.example.").await), ["192.0.2.1"]);
    assert!(!program.reaches("192.0.2.9:80"));
}

#[tokio::test]
async fn a_lost_question_is_asked_again() {
    let mut lost = 0;
    let resolver = Resolver::start(move |question, _| {
        lost += 1;
        match lost {
            1 => Vec::new(),
            _ => bytes(&reply(question, vec![a("a.example.", "192.0.2.1")])),
        }
    })
    .await;
    let program = Program::start(Policy::default(), &[resolver.address]);
    assert_eq!(addresses(&program.ask("a.example.").await), ["192.0.2.1"]);
    assert!(resolver.heard() >= 2);
}

#[tokio::test]
async fn a_resolver_that_cannot_answer_leaves_it_to_the_next() {
    let failing = Resolver::start(|question, _| {
        let mut message = reply(question, Vec::new());
        message.metadata.response_code = ResponseCode::ServFail;
        bytes(&message)
    })
    .await;
    let nobody = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let good = answering(vec![a("a.example.", "192.0.2.1")]).await;
    let program = Program::start(Policy::default(), &[nobody, failing.address, good.address]);
    assert_eq!(addresses(&program.ask("a.example.").await), ["192.0.2.1"]);
    // The one that answered is asked first from now on.
    let before = failing.heard();
    assert_eq!(addresses(&program.ask("a.example.").await), ["192.0.2.1"]);
    assert_eq!(failing.heard(), before);
    let program = Program::start(Policy::default(), &[nobody]);
    let reply = program.ask("a.example.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn guesses_of_others_are_passed_over() {
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = Resolver::start(move |question, _| {
        let good = reply(question, vec![a("a.example.", "192.0.2.1")]);
        let bad = reply(question, vec![a("a.example.", "192.0.2.66")]);
        let mut wrong_id = bad.clone();
        wrong_id.metadata.id ^= 1;
        let mut wrong_name = bad.clone();
        wrong_name.queries[0].set_name(name("b.example."));
        let mut wrong_type = bad.clone();
        wrong_type.queries[0].set_query_type(RecordType::AAAA);
        let mut a_question = bad.clone();
        a_question.metadata.message_type = MessageType::Query;
        let mut no_question = bad;
        no_question.queries.clear();
        let wrong = [wrong_id, wrong_name, wrong_type, a_question, no_question];
        let mut replies: Vec<_> = wrong.iter().map(|message| message.to_vec().unwrap()).collect();
        replies.extend([vec![], vec![0; 5], vec![0xff; 600], good.to_vec().unwrap()]);
        replies
    })
    .await;
    let program = Program::start(Policy::default(), &[resolver.address]);
    assert_eq!(addresses(&program.ask("a.example.").await), ["192.0.2.1"]);
    // From another port of the same address nothing is heard, be it right or not.
    let slow = Resolver::start(move |question, _| {
        if question.queries[0].name() != &name("c.example.") {
            return Vec::new();
        }
        bytes(&reply(question, vec![a("c.example.", "192.0.2.3")]))
    })
    .await;
    let program = Program::start(Policy::default(), &[slow.address]);
    let ask = program.ask("d.example.");
    let forge = async {
        loop {
            let heard = slow.heard.lock().unwrap().last().cloned();
            if let Some((question, asker)) = heard {
                let forged = reply(&question, vec![a("d.example.", "192.0.2.66")])
                    .to_vec()
                    .unwrap();
                stranger.send_to(&forged, asker).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::select! { answer = ask => answer, () = forge => unreachable!() };
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_is_too_long_for_udp_goes_over_tcp_on_both_sides() {
    let resolver = Resolver::start(|question, over| {
        let records = (0..200).map(|last| a("big.example.", &format!("192.0.2.{last}")));
        let mut message = reply(question, records.collect());
        if over == Over::Udp {
            message.answers.clear();
            message.metadata.truncation = true;
        }
        bytes(&message)
    })
    .await;
    let program = Program::start(policy("allow big.example"), &[resolver.address]);
    for question in [
        question("big.example.", RecordType::A),
        with_edns(question("big.example.", RecordType::A), 4096),
    ] {
        let cut = program.udp(&question).await;
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let whole = program.tcp(&question).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
    }
    assert!(program.reaches("192.0.2.199:80"));
}

/// As many as there may be say nothing: one more is served at once, in the place of the first of them.
#[tokio::test]
async fn idle_connections_keep_nobody_from_asking() {
    let resolver = answering(vec![a("www.example.", "192.0.2.1")]).await;
    let program = Program::start(Policy::default(), &[resolver.address]);
    loop {
        let began = Instant::now();
        let mut idle = Vec::new();
        for _ in 0..64 {
            idle.push(program.connected().await);
        }
        let answer = program.tcp(&question("www.example.", RecordType::A)).await;
        assert_eq!(answer.answers.len(), 1);
        let ended = timeout(LONG, idle[0].read(&mut [0])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "the first gave way");
        let still_there = timeout(Duration::from_millis(50), idle[1].read(&mut [0]))
            .await
            .is_err();
        // After ten seconds all are gone that said nothing: then the machine was too slow to tell.
        if began.elapsed() < Duration::from_secs(8) {
            assert!(still_there, "the second did not");
            break;
        }
    }
}

#[tokio::test]
async fn a_reply_is_as_long_as_the_program_takes() {
    let text = TXT::new(vec!["x".repeat(200); 4]);
    let record = Record::from_rdata(name("long.example."), 300, RData::TXT(text));
    let resolver = answering(vec![record]).await;
    let program = Program::start(Policy::default(), &[resolver.address]);
    let plain = question("long.example.", RecordType::TXT);
    assert!(program.udp(&plain).await.metadata.truncation);
    assert!(
        program
            .udp(&with_edns(plain.clone(), 700))
            .await
            .metadata
            .truncation
    );
    let whole = program.udp(&with_edns(plain.clone(), 1000)).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 1);
    assert_eq!(program.tcp(&plain).await.answers.len(), 1);
}

#[tokio::test]
async fn loops_are_refused_wherever_they_are() {
    // In the question: a label, then a pointer to itself.
    let program = Program::start(Policy::default(), &[]);
    let looped = [
        &[0x12, 0x67, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0xc0, 14][..],
        &[0, 1, 0, 1],
    ]
    .concat();
    let reply_to_loop = program.exchange(&looped).await;
    let reply_to_loop = Message::from_vec(&reply_to_loop).unwrap();
    assert_eq!(reply_to_loop.metadata.response_code, ResponseCode::FormErr);
    // In the reply: names that point to each other.
    let resolver = Resolver::start(|question, _| {
        let mut bytes = reply(question, Vec::new()).to_vec().unwrap();
        bytes[7] = 2;
        let at = bytes.len() as u8;
        let record = |pointer: u8| [0xc0, pointer, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1];
        bytes.extend(record(at + 16));
        bytes.extend(record(at));
        vec![bytes]
    })
    .await;
    let program = Program::start(Policy::default(), &[resolver.address]);
    assert_eq!(
        program.ask("a.example.").await.metadata.response_code,
        ResponseCode::ServFail
    );
    // Aliases in a circle.
    let circle = vec![
        cname("a.example.", "b.example."),
        cname("b.example.", "a.example."),
        a("a.example.", "192.0.2.1"),
    ];
    let resolver = answering(circle).await;
    let program = Program::start(policy("allow a.example"), &[resolver.address]);
    assert_eq!(
        program.ask("a.example.").await.metadata.response_code,
        ResponseCode::ServFail
    );
    assert!(!program.reaches("192.0.2.1:80"));
}

#[tokio::test]
async fn names_of_this_machine_are_answered_here() {
    let resolver = answering(Vec::new()).await;
    let program = Program::start(Policy::default(), &[resolver.address]);
    assert_eq!(addresses(&program.ask("host.portolan.").await), [GATEWAY]);
    assert_eq!(addresses(&program.ask("WEB.portolan.").await), ["10.9.0.2"]);
    assert_eq!(addresses(&program.ask("localhost.").await), ["127.0.0.1"]);
    assert_eq!(addresses(&program.ask("printer.example.").await), ["192.0.2.77"]);
    for unknown in ["db.portolan.", "a.web.portolan."] {
        let reply = program.ask(unknown).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{unknown}");
    }
    let reverse = program
        .udp(&question("1.0.7.10.in-addr.arpa.", RecordType::PTR))
        .await;
    assert_eq!(reverse.answers[0].data.to_string(), "host.portolan.");
    assert_eq!(resolver.heard(), 0);
}

#[tokio::test]
async fn what_is_no_question_is_answered_as_such_or_not_at_all() {
    let program = Program::start(Policy::default(), &[]);
    let mut update = question("a.example.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    let code = |message: Message| message.metadata.response_code;
    let reply_to = async |message: &Message| {
        let reply = program.exchange(&message.to_vec().unwrap()).await;
        code(Message::from_vec(&reply).unwrap())
    };
    assert_eq!(reply_to(&update).await, ResponseCode::NotImp);
    let mut two = question("a.example.", RecordType::A);
    two.queries.push(two.queries[0].clone());
    assert_eq!(reply_to(&two).await, ResponseCode::FormErr);
    assert_eq!(
        code(program.udp(&question("a.example.", RecordType::AXFR)).await),
        ResponseCode::NotImp
    );
    let mut newer = with_edns(question("a.example.", RecordType::A), 1232);
    newer.edns.as_mut().unwrap().set_version(1);
    assert_eq!(
        u16::from(code(program.udp(&newer).await)),
        u16::from(ResponseCode::BADVERS)
    );
    // Replies and rests are not answered: the next datagram is that of the question behind them.
    let socket = UdpSocket::bind(&program.stack, "10.7.0.2:0".parse().unwrap()).unwrap();
    let no_questions = [reply(&two, Vec::new()).to_vec().unwrap(), vec![0; 11], vec![]];
    let last = question("localhost.", RecordType::A).to_vec().unwrap();
    for message in no_questions.iter().chain([&last]) {
        socket.send_to(message, Program::server()).await.unwrap();
    }
    let mut buffer = [0; 512];
    let (count, _) = timeout(LONG, socket.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        addresses(&Message::from_vec(&buffer[..count]).unwrap()),
        ["127.0.0.1"]
    );
}

#[tokio::test]
async fn a_flood_of_questions_is_asked_in_bounded_numbers() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let resolver = Resolver::start(move |question, _| {
        // The test may be over.
        let _ = tell.send((question.queries[0].name().clone(), Instant::now()));
        Vec::new()
    })
    .await;
    let program = Program::start(Policy::default(), &[resolver.address]);
    assert_eq!(addresses(&program.ask("localhost.").await), ["127.0.0.1"]);
    let socket = UdpSocket::bind(&program.stack, "10.7.0.2:0".parse().unwrap()).unwrap();
    let begin = Instant::now();
    for number in 0..600 {
        let message = question(&format!("n{number}.example."), RecordType::A)
            .to_vec()
            .unwrap();
        socket.send_to(&message, Program::server()).await.unwrap();
        // Not faster than the gateway's stack takes them.
        tokio::task::yield_now().await;
    }
    // Each question is asked twice for 2 seconds before it is given up, so until then none makes room for another.
    let (mut early, mut all) = (HashSet::new(), HashSet::new());
    while let Ok(Some((name, at))) = timeout(Duration::from_secs(5), told.recv()).await {
        if at.duration_since(begin) < Duration::from_secs(4) {
            early.insert(name.clone());
        }
        all.insert(name);
    }
    assert!(early.len() <= 256, "{}", early.len());
    assert!(all.len() > 100, "{}", all.len());
}
