//! The operations of a replay, on a table.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_core::demux::{Delivery, Packet, Reply, Segment};
use portolan_core::table::{
    Accepted, BindError, Close, ConnectError, Device, Errno, Family, Host, InUse, ListenError, Owner,
    PortChoice, PortTable, SocketId, SocketOption, Transport,
};
use portolan_core::{Port, PortRange};
use serde_json::{Map, Value, json};

/// A table, and the names that the caller gives to its sockets and devices.
pub(crate) struct Session {
    table: PortTable,
    devices: HashMap<String, Device>,
    sockets: HashMap<u64, SocketId>,
    ids: HashMap<SocketId, u64>,
    now: Duration,
}

/// The answer to an operation that failed.
pub(crate) struct Refusal {
    errno: String,
    message: String,
    in_the_way: Vec<SocketId>,
    rule: Option<String>,
}

type Fields = Map<String, Value>;
type Answer = Result<Value, Refusal>;

impl Session {
    pub(crate) fn new() -> Self {
        let mut session = Self {
            table: PortTable::new(Host::new(), SECRET),
            devices: HashMap::new(),
            sockets: HashMap::new(),
            ids: HashMap::new(),
            now: Duration::ZERO,
        };
        session.configure(Host::new());
        session
    }

    /// The answer to one line.
    pub(crate) fn answer(&mut self, line: &[u8]) -> Value {
        let answer = match serde_json::from_slice(line) {
            Ok(Value::Object(fields)) => self.operate(&fields),
            Ok(_) => Err(invalid("a line is one JSON object")),
            Err(error) => Err(invalid(&format!("this line is no JSON: {error}"))),
        };
        answer.unwrap_or_else(|refusal| self.refusal(refusal))
    }

    fn operate(&mut self, fields: &Fields) -> Answer {
        match text(fields, "op")? {
            "config" => self.config(fields),
            "socket" => self.socket(fields),
            "set" => self.set(fields),
            "bind" => self.bind(fields),
            "listen" => self.listen(fields),
            "connect" => self.connect(fields),
            "disconnect" => {
                self.table
                    .disconnect(self.id(fields)?)
                    .map_err(|error| plain(Errno::EBADF, &error))?;
                ok()
            }
            "shutdown" => self.shutdown(fields),
            "accept" => self.accept(fields),
            "close" => self.close(fields),
            "join" => self.join(fields),
            "advance" => self.advance(fields),
            "deliver" => self.deliver(fields),
            unknown => Err(Refusal {
                errno: "ENOSYS".to_owned(),
                message: format!("there is no operation {unknown:?}"),
                in_the_way: Vec::new(),
                rule: None,
            }),
        }
    }

    fn config(&mut self, fields: &Fields) -> Answer {
        let mut host = Host::new();
        let mut devices = HashMap::new();
        if let Some(addresses) = fields.get("addresses") {
            let addresses = addresses
                .as_object()
                .ok_or_else(|| invalid("addresses are an object of lists by device"))?;
            for (name, list) in addresses {
                let device = named(&mut devices, name);
                host.add_device(device);
                let list = list
                    .as_array()
                    .ok_or_else(|| invalid("the addresses of a device are a list"))?;
                for address in list {
                    let (address, bits) = with_prefix(address)?;
                    host.add_address(device, address, bits);
                }
            }
        }
        host.add_device(named(&mut devices, "lo"));
        if let Some(range) = fields.get("ephemeral") {
            host.set_ephemeral(port_range(range)?);
        }
        if let Some(first) = fields.get("unprivileged_start") {
            let first = first
                .as_u64()
                .and_then(|first| u32::try_from(first).ok())
                .filter(|&first| first <= 65_536)
                .ok_or_else(|| invalid("unprivileged_start is 0 to 65536"))?;
            host.set_unprivileged_start(first);
        }
        if let Some(reserved) = fields.get("reserved") {
            let reserved = reserved
                .as_array()
                .ok_or_else(|| invalid("reserved is a list of ports"))?;
            for port in reserved {
                host.reserve(PortRange::single(as_port(port)?));
            }
        }
        self.configure(host);
        self.devices = devices;
        ok()
    }

    fn configure(&mut self, host: Host) {
        self.table = PortTable::new(host, SECRET);
        self.devices = HashMap::new();
        self.sockets = HashMap::new();
        self.ids = HashMap::new();
        self.now = Duration::ZERO;
    }

    fn socket(&mut self, fields: &Fields) -> Answer {
        let id = number(fields, "id")?;
        let transport = transport(fields)?;
        let family = match text(fields, "family")? {
            "ipv4" => Family::Ipv4,
            "ipv6" => Family::Ipv6,
            _ => return Err(invalid("family is ipv4 or ipv6")),
        };
        let uid = match fields.get("uid") {
            None => 0,
            Some(uid) => uid
                .as_u64()
                .and_then(|uid| u32::try_from(uid).ok())
                .ok_or_else(|| invalid("uid is a number below 2^32"))?,
        };
        self.name(id, |table| Ok(table.socket(transport, family, Owner::user(uid))))?;
        ok()
    }

    fn set(&mut self, fields: &Fields) -> Answer {
        let id = self.id(fields)?;
        let value = fields.get("value").ok_or_else(|| invalid("set needs a value"))?;
        let flag = || {
            value
                .as_bool()
                .ok_or_else(|| invalid("the value of this option is true or false"))
        };
        let option = match text(fields, "option")? {
            "reuse_address" => SocketOption::ReuseAddress(flag()?),
            "reuse_port" => SocketOption::ReusePort(flag()?),
            "v6_only" => SocketOption::V6Only(flag()?),
            "bind_address_no_port" => SocketOption::BindAddressNoPort(flag()?),
            "multicast_all" => SocketOption::MulticastAll(flag()?),
            "port_range" => SocketOption::PortRange(match value {
                Value::Null => None,
                range => Some(own_port_range(range)?),
            }),
            "device" => SocketOption::Device(match value.as_str() {
                Some("") => None,
                Some(name) => Some(self.device(name)?),
                None => return Err(invalid("a device is a name")),
            }),
            unknown => return Err(invalid(&format!("there is no option {unknown:?}"))),
        };
        self.table
            .set(id, option)
            .map_err(|error| plain(error.errno(), &error))?;
        ok()
    }

    fn bind(&mut self, fields: &Fields) -> Answer {
        let local = SocketAddr::new(address(fields, "address")?, port(fields)?.get());
        let port = self
            .table
            .bind(self.id(fields)?, local, choice(fields)?)
            .map_err(|error| match error {
                BindError::InUse(in_use) => held(&in_use),
                error => plain(error.errno(), &error),
            })?;
        ok_port(port)
    }

    fn listen(&mut self, fields: &Fields) -> Answer {
        let port = self
            .table
            .listen(self.id(fields)?, choice(fields)?)
            .map_err(|error| match error {
                ListenError::InUse(in_use) => held(&in_use),
                error => plain(error.errno(), &error),
            })?;
        ok_port(port)
    }

    fn connect(&mut self, fields: &Fields) -> Answer {
        let id = self.id(fields)?;
        let remote = SocketAddr::new(address(fields, "address")?, port(fields)?.get());
        let source = match fields.get("source") {
            None | Some(Value::Null) => remote.ip(),
            Some(_) => address(fields, "source")?,
        };
        let port = self
            .table
            .connect(id, remote, source, choice(fields)?)
            .map_err(|error| match error {
                ConnectError::FlowExists { holder, .. } => Refusal {
                    in_the_way: vec![holder],
                    rule: Some(error.to_string()),
                    ..plain(error.errno(), &error)
                },
                error => plain(error.errno(), &error),
            })?;
        match fields.get("outcome").and_then(Value::as_str) {
            Some("refused") => {
                self.table
                    .disconnect(id)
                    .map_err(|error| plain(Errno::EBADF, &error))?;
                Err(plain(Errno::ECONNREFUSED, "the peer refused the connection"))
            }
            Some(_) => Err(invalid("the only other outcome is refused")),
            None => ok_port(port),
        }
    }

    fn shutdown(&mut self, fields: &Fields) -> Answer {
        let id = self.id(fields)?;
        if text(fields, "how")? != "read" {
            return Err(invalid("shutdown is of the read half"));
        }
        self.table
            .shutdown_read(id)
            .map_err(|error| plain(error.errno(), &error))?;
        ok()
    }

    fn accept(&mut self, fields: &Fields) -> Answer {
        let listener = self.id(fields)?;
        let connection = Accepted {
            local: endpoint(fields, "destination")?,
            remote: endpoint(fields, "source")?,
            device: self.arrival(fields)?,
        };
        self.name(number(fields, "new")?, |table| {
            table
                .accept(listener, connection)
                .map_err(|error| plain(error.errno(), &error))
        })?;
        ok()
    }

    fn close(&mut self, fields: &Fields) -> Answer {
        let id = self.id(fields)?;
        let how = match fields.get("how").and_then(Value::as_str) {
            None | Some("reset") => Close::Gone,
            Some("passive") => Close::Passive,
            Some("time_wait") => Close::TimeWait,
            Some(_) => return Err(invalid("close is time_wait, passive or reset")),
        };
        self.table
            .close(id, how)
            .map_err(|error| plain(Errno::EBADF, &error))?;
        self.sockets.remove(&number(fields, "id")?);
        ok()
    }

    fn join(&mut self, fields: &Fields) -> Answer {
        let id = self.id(fields)?;
        let device = self.device(text(fields, "device")?)?;
        self.table
            .join(id, address(fields, "group")?, device)
            .map_err(|error| plain(error.errno(), &error))?;
        ok()
    }

    fn advance(&mut self, fields: &Fields) -> Answer {
        let seconds = fields
            .get("seconds")
            .and_then(Value::as_f64)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|passed| self.now.checked_add(passed))
            .ok_or_else(|| invalid("seconds are a number from 0 up"))?;
        self.now = seconds;
        self.table.advance(self.now);
        ok()
    }

    fn deliver(&self, fields: &Fields) -> Answer {
        let segment = match fields.get("segment").and_then(Value::as_str) {
            None | Some("syn") => Segment::Syn,
            Some("ack") => Segment::Other,
            Some("rst") => Segment::Reset,
            Some(_) => return Err(invalid("a segment is syn, ack or rst")),
        };
        let delivery = self.table.deliver(&Packet {
            transport: transport(fields)?,
            source: endpoint(fields, "source")?,
            destination: endpoint(fields, "destination")?,
            device: self.arrival(fields)?,
            segment,
        });
        let to: Vec<_> = delivery.sockets().iter().map(|id| self.ids[id]).collect();
        let because = delivery.because().to_string();
        Ok(match delivery {
            Delivery::Socket { .. } | Delivery::Sockets { .. } => {
                json!({"to": to, "because": because})
            }
            Delivery::Nobody { reply, .. } => match reply {
                Reply::Nothing => json!({"to": to, "because": because}),
                Reply::Reset => json!({"to": to, "because": because, "reply": "rst"}),
                Reply::PortUnreachable => {
                    json!({"to": to, "because": because, "reply": "icmp-port-unreachable"})
                }
            },
        })
    }

    /// Makes a socket and gives it the caller's id.
    fn name(
        &mut self,
        id: u64,
        make: impl FnOnce(&mut PortTable) -> Result<SocketId, Refusal>,
    ) -> Result<(), Refusal> {
        if self.sockets.contains_key(&id) {
            return Err(invalid(&format!("socket {id} exists already")));
        }
        let socket = make(&mut self.table)?;
        self.sockets.insert(id, socket);
        self.ids.insert(socket, id);
        Ok(())
    }

    fn id(&self, fields: &Fields) -> Result<SocketId, Refusal> {
        let id = number(fields, "id")?;
        self.sockets
            .get(&id)
            .copied()
            .ok_or_else(|| plain(Errno::EBADF, &format!("there is no socket {id}")))
    }

    fn device(&self, name: &str) -> Result<Device, Refusal> {
        self.devices
            .get(name)
            .copied()
            .ok_or_else(|| plain(Errno::ENODEV, &format!("there is no device {name:?}")))
    }

    fn arrival(&self, fields: &Fields) -> Result<Option<Device>, Refusal> {
        match fields.get("device") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => self.device(name).map(Some),
            Some(_) => Err(invalid("a device is a name")),
        }
    }

    fn refusal(&self, refusal: Refusal) -> Value {
        let mut answer = json!({"error": refusal.errno, "message": refusal.message});
        if !refusal.in_the_way.is_empty() {
            let ids: Vec<_> = refusal.in_the_way.iter().map(|id| self.ids[id]).collect();
            answer["in_the_way"] = json!(ids);
        }
        if let Some(rule) = refusal.rule {
            answer["rule"] = json!(rule);
        }
        answer
    }
}

/// A replay is to give the same answers each time.
const SECRET: [u8; 16] = *b"portolan replay.";

fn ok() -> Answer {
    Ok(json!({"ok": true}))
}

fn ok_port(port: Port) -> Answer {
    Ok(json!({"ok": true, "port": port.get()}))
}

fn plain(errno: Errno, message: &(impl ToString + ?Sized)) -> Refusal {
    Refusal {
        errno: errno.to_string(),
        message: message.to_string(),
        in_the_way: Vec::new(),
        rule: None,
    }
}

fn invalid(message: &str) -> Refusal {
    plain(Errno::EINVAL, message)
}

fn held(in_use: &InUse) -> Refusal {
    Refusal {
        in_the_way: in_use.in_the_way.clone(),
        rule: Some(in_use.to_string()),
        ..plain(Errno::EADDRINUSE, "another socket is in the way")
    }
}

fn named(devices: &mut HashMap<String, Device>, name: &str) -> Device {
    let next = u32::try_from(devices.len()).expect("fewer devices than 2^32") + 1;
    *devices
        .entry(name.to_owned())
        .or_insert_with(|| Device::new(next).expect("counted from one"))
}

fn text<'a>(fields: &'a Fields, name: &str) -> Result<&'a str, Refusal> {
    fields
        .get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| invalid(&format!("{name} is missing, or no text")))
}

fn number(fields: &Fields, name: &str) -> Result<u64, Refusal> {
    fields
        .get(name)
        .and_then(Value::as_u64)
        .ok_or_else(|| invalid(&format!("{name} is missing, or no number from 0 up")))
}

fn as_port(value: &Value) -> Result<Port, Refusal> {
    value
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
        .map(Port::new)
        .ok_or_else(|| invalid("a port is 0 to 65535"))
}

fn port(fields: &Fields) -> Result<Port, Refusal> {
    as_port(fields.get("port").unwrap_or(&Value::Null))
}

fn choice(fields: &Fields) -> Result<PortChoice, Refusal> {
    match fields.get("choose") {
        None | Some(Value::Null) => Ok(PortChoice::Any),
        Some(port) => Ok(PortChoice::Exactly(as_port(port)?)),
    }
}

/// A range of a socket's own: to Linux a last port of 0 is no end. A port above the host's range is none either.
fn own_port_range(value: &Value) -> Result<PortRange, Refusal> {
    match value.as_array().map(Vec::as_slice) {
        Some([first, last]) if last.as_u64() == Some(0) => {
            Ok(PortRange::new(as_port(first)?, Port::MAX).unwrap_or(PortRange::ALL))
        }
        _ => port_range(value),
    }
}

fn port_range(value: &Value) -> Result<PortRange, Refusal> {
    let ends = value.as_array().map(Vec::as_slice);
    let Some([first, last]) = ends else {
        return Err(invalid("a range is two ports"));
    };
    PortRange::new(as_port(first)?, as_port(last)?)
        .ok_or_else(|| invalid("the first port of a range is the lower one"))
}

fn transport(fields: &Fields) -> Result<Transport, Refusal> {
    match text(fields, "protocol")? {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => Err(invalid("protocol is tcp or udp")),
    }
}

fn address(fields: &Fields, name: &str) -> Result<IpAddr, Refusal> {
    text(fields, name)?
        .parse()
        .map_err(|_| invalid(&format!("{name} is no address")))
}

fn endpoint(fields: &Fields, name: &str) -> Result<SocketAddr, Refusal> {
    text(fields, name)?
        .parse()
        .map_err(|_| invalid(&format!("{name} is no address and port")))
}

fn with_prefix(value: &Value) -> Result<(IpAddr, Option<u8>), Refusal> {
    let wrong = || invalid("an address is 10.8.0.1 or 10.8.0.1/24");
    let text = value.as_str().ok_or_else(wrong)?;
    let (address, bits) = match text.split_once('/') {
        None => (text, None),
        Some((address, bits)) => (address, Some(bits.parse().map_err(|_| wrong())?)),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match bits {
        Some(bits) if bits > longest => Err(wrong()),
        bits => Ok((address, bits)),
    }
}
