use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

/// A question of the program, with what the reply must know of it.
#[derive(Clone, Debug)]
pub(super) struct Query {
    id: u16,
    question: hickory_proto::op::Query,
    text: Box<str>,
    recursion_desired: bool,
    checking_disabled: bool,
    authentic_data: bool,
    edns: Option<Extension>,
}

/// What EDNS says of the asker (RFC 6891).
#[derive(Clone, Copy, Debug)]
struct Extension {
    /// The longest datagram that it takes.
    size: u16,
    dnssec_ok: bool,
}

/// Why a message is no question to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It is a reply, or too short to reply to.
    Silently,
    /// With this reply.
    With(Vec<u8>),
}

/// Bytes of the header of a message (RFC 1035, section 4.1.1).
pub(super) const HEADER_LEN: usize = 12;
/// What is taken over UDP without EDNS (RFC 1035, section 2.3.4).
const PLAIN_UDP_MAX: u16 = 512;
/// What we take over UDP from upstream.
const OWN_UDP_MAX: u16 = 1_232;
/// Extended error code *Prohibited* (RFC 8914, section 4.19), and *Network Error* (section 4.24).
const PROHIBITED: u16 = 18;
const NETWORK_ERROR: u16 = 23;
const EXTENDED_ERROR: u16 = 15;

/// A message, if its header says that it holds one question: others have none to be answered, and the count is what a
/// decoder makes room for.
pub(super) fn decode(message: &[u8]) -> Option<Message> {
    let counts_one = message.get(4..6) == Some(&[0, 1]);
    counts_one.then(|| Message::from_vec(message).ok()).flatten()
}

impl Query {
    pub(super) fn read(message: &[u8]) -> Result<Self, Rejected> {
        let Some(header) = message.first_chunk::<HEADER_LEN>() else {
            return Err(Rejected::Silently);
        };
        // The highest bit of the flags: a reply.
        if header[2] & 0x80 != 0 {
            return Err(Rejected::Silently);
        }
        let id = u16::from_be_bytes([header[0], header[1]]);
        let op_code = OpCode::from_u8(header[2] >> 3 & 0x0f);
        let reject = |code| {
            let reply = Message::error_msg(id, op_code, code);
            Rejected::With(encode(&reply).unwrap_or_default())
        };
        if op_code != OpCode::Query {
            return Err(reject(ResponseCode::NotImp));
        }
        let Some(mut decoded) = decode(message) else {
            return Err(reject(ResponseCode::FormErr));
        };
        let Some(question) = decoded.queries.pop() else {
            return Err(reject(ResponseCode::FormErr));
        };
        let edns = decoded.edns.as_ref().map(|edns| Extension {
            size: edns.max_payload().max(PLAIN_UDP_MAX),
            dnssec_ok: edns.flags().dnssec_ok,
        });
        let query = Self {
            id,
            text: text_of(question.name()),
            question,
            recursion_desired: decoded.metadata.recursion_desired,
            checking_disabled: decoded.metadata.checking_disabled,
            authentic_data: decoded.metadata.authentic_data,
            edns,
        };
        if decoded.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Err(Rejected::With(query.coded(ResponseCode::BADVERS)));
        }
        if query.question.query_class() != DNSClass::IN {
            return Err(Rejected::With(query.coded(ResponseCode::Refused)));
        }
        match query.kind() {
            // Whole zones, and signatures that only a neighbour may ask for.
            RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::TSIG => {
                Err(Rejected::With(query.coded(ResponseCode::NotImp)))
            }
            _ => Ok(query),
        }
    }

    /// The name in lower case, without a dot at its end; bytes that no host name holds are escaped.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn name(&self) -> &Name {
        self.question.name()
    }

    pub(super) fn kind(&self) -> RecordType {
        self.question.query_type()
    }

    /// Whether it asks for SVCB or HTTPS records.
    pub(super) fn is_service_binding(&self) -> bool {
        matches!(self.kind(), RecordType::SVCB | RecordType::HTTPS)
    }

    /// The longest reply that the asker takes over UDP.
    pub(super) fn udp_size(&self) -> u16 {
        self.edns.map_or(PLAIN_UDP_MAX, |edns| edns.size)
    }

    /// The same question for somebody else, with another id. Options of the program stay here.
    pub(super) fn for_upstream(&self, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.authentic_data = self.authentic_data;
        message.add_query(self.question.clone());
        message.edns = self.own_edns();
        encode(&message)
    }

    fn own_edns(&self) -> Option<Edns> {
        self.edns.map(|asker| {
            let mut edns = Edns::new();
            edns.set_max_payload(OWN_UDP_MAX);
            edns.set_dnssec_ok(asker.dnssec_ok);
            edns
        })
    }

    /// The reply of an upstream with the id of the program's question.
    pub(super) fn adopt(&self, mut reply: Vec<u8>) -> Vec<u8> {
        if let Some(id) = reply.first_chunk_mut() {
            *id = self.id.to_be_bytes();
        }
        reply
    }

    /// The reply, or if it is longer than `most` bytes one that sends the program to TCP.
    pub(super) fn fit(&self, reply: Vec<u8>, most: usize) -> Vec<u8> {
        if reply.len() <= most {
            return reply;
        }
        let mut message = self.empty();
        message.metadata.truncation = true;
        self.encode_or_fail(&message)
    }

    /// A reply with records.
    pub(super) fn answers(&self, records: Vec<Record>) -> Vec<u8> {
        let mut message = self.empty();
        message.answers = records;
        self.encode_or_fail(&message)
    }

    /// There is such a name, and no such record.
    pub(super) fn nothing(&self) -> Vec<u8> {
        self.coded(ResponseCode::NoError)
    }

    /// There is no such name.
    pub(super) fn no_such_name(&self) -> Vec<u8> {
        self.coded(ResponseCode::NXDomain)
    }

    /// It may not be asked.
    pub(super) fn refused(&self, reason: &str) -> Vec<u8> {
        self.explained(ResponseCode::Refused, PROHIBITED, reason)
    }

    /// Nobody could be asked.
    pub(super) fn failed(&self, reason: &str) -> Vec<u8> {
        self.explained(ResponseCode::ServFail, NETWORK_ERROR, reason)
    }

    fn coded(&self, code: ResponseCode) -> Vec<u8> {
        let mut message = self.empty();
        message.metadata.response_code = code;
        self.encode_or_fail(&message)
    }

    fn explained(&self, code: ResponseCode, extended: u16, reason: &str) -> Vec<u8> {
        let mut message = self.empty();
        message.metadata.response_code = code;
        if let Some(edns) = &mut message.edns {
            let text = reason.bytes().take(200);
            let option = extended.to_be_bytes().into_iter().chain(text).collect();
            edns.options_mut()
                .insert(EdnsOption::Unknown(EXTENDED_ERROR, option));
        }
        self.encode_or_fail(&message)
    }

    /// A reply to this question without anything in it.
    fn empty(&self) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.question.clone());
        message.edns = self.own_edns();
        message
    }

    /// The message as bytes; one that cannot be written is SERVFAIL, in a header alone.
    pub(super) fn encode_or_fail(&self, message: &Message) -> Vec<u8> {
        encode(message).unwrap_or_else(|| {
            let [high, low] = self.id.to_be_bytes();
            vec![high, low, 0x80, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]
        })
    }
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

/// A name as the gate knows names.
pub(super) fn text_of(name: &Name) -> Box<str> {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).into()
}

/// Reads any bytes as a question, as a reply to one and as what the forwarder makes of both: for the fuzzer.
#[doc(hidden)]
pub fn fuzz_messages(gate: &crate::gate::Gate, question: &[u8], reply: &[u8]) {
    let Ok(query) = Query::read(question) else { return };
    let made = super::answer::judge(gate, &query, reply.to_vec());
    let most = super::Most::Udp.bytes(&query);
    assert!(query.fit(made, most).len() <= most);
    if let Some(asked) = query.for_upstream(7) {
        let _ = super::upstream::answers(&asked, reply);
    }
}
