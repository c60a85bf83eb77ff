//! A host to try single facts on: short words for sockets, binds and packets, through the replay session.

use serde_json::{Value, json};

use crate::session::Session;

/// v0 and d1 are plain devices; packets come in on tun0 and tun1.
pub(crate) struct Host {
    session: Session,
    next: u64,
}

const ADDRESSES: &str = r#"{"v0":["10.9.0.1/24","10.9.0.2/24","fd09::1/64","fd09::2/64","fe80::1/64"],
"d1":["10.10.0.1/24"],"tun0":["10.8.0.1/24","fd08::1/64"],"tun1":["10.11.0.1/24"]}"#;

impl Host {
    pub(crate) fn new() -> Self {
        Self::with_range(32_768, 60_999)
    }

    pub(crate) fn with_range(first: u16, last: u16) -> Self {
        Self::configured(first, last, 1024, &[])
    }

    pub(crate) fn configured(first: u16, last: u16, unprivileged: u32, reserved: &[u16]) -> Self {
        let mut host = Self {
            session: Session::new(),
            next: 1,
        };
        let addresses: Value = serde_json::from_str(ADDRESSES).unwrap();
        let answer = host.ask(json!({"op": "config", "addresses": addresses,
            "ephemeral": [first, last], "unprivileged_start": unprivileged, "reserved": reserved}));
        assert_eq!(answer, json!({"ok": true}));
        host
    }

    pub(crate) fn ask(&mut self, line: Value) -> Value {
        self.session.answer(line.to_string().as_bytes())
    }

    /// `OK` or the name of the error.
    pub(crate) fn word(&mut self, line: Value) -> String {
        let answer = self.ask(line);
        answer["error"].as_str().unwrap_or("OK").to_owned()
    }

    /// A socket from words: `tcp4`, `udp6`; `A` and `P`; `only` for V6ONLY; `uid5`; `dev:v0`; `late`.
    pub(crate) fn socket(&mut self, words: &str) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut words = words.split(' ');
        let kind = words.next().unwrap();
        let (protocol, family) = kind.split_at(3);
        let options: Vec<_> = words.collect();
        let uid = options
            .iter()
            .find_map(|option| option.strip_prefix("uid")?.parse().ok())
            .unwrap_or(0);
        let answer = self.ask(json!({"op": "socket", "id": id, "protocol": protocol,
            "family": format!("ipv{family}"), "uid": uid}));
        assert_eq!(answer, json!({"ok": true}));
        for option in options {
            let (name, value) = match option {
                "A" => ("reuse_address", json!(true)),
                "P" => ("reuse_port", json!(true)),
                "only" => ("v6_only", json!(true)),
                "late" => ("bind_address_no_port", json!(true)),
                other => match other.strip_prefix("dev:") {
                    Some(device) => ("device", json!(device)),
                    None => continue,
                },
            };
            assert_eq!(self.set(id, name, value), "OK");
        }
        id
    }

    pub(crate) fn set(&mut self, id: u64, option: &str, value: Value) -> String {
        self.word(json!({"op": "set", "id": id, "option": option, "value": value}))
    }

    pub(crate) fn bind(&mut self, id: u64, address: &str, port: u16) -> String {
        self.word(json!({"op": "bind", "id": id, "address": address, "port": port}))
    }

    /// A socket that was bound, which must succeed.
    pub(crate) fn bound(&mut self, words: &str, address: &str, port: u16) -> u64 {
        let id = self.socket(words);
        assert_eq!(self.bind(id, address, port), "OK", "{words} {address}:{port}");
        id
    }

    /// Whether a new socket could be bound.
    pub(crate) fn try_bind(&mut self, words: &str, address: &str, port: u16) -> String {
        let id = self.socket(words);
        self.bind(id, address, port)
    }

    /// Binds to port 0; the port, or nothing if there is none left.
    pub(crate) fn automatic(&mut self, words: &str, address: &str) -> Option<u16> {
        let id = self.socket(words);
        let answer = self.ask(json!({"op": "bind", "id": id, "address": address, "port": 0}));
        answer["port"].as_u64().map(|port| u16::try_from(port).unwrap())
    }

    pub(crate) fn listen(&mut self, id: u64) -> String {
        self.word(json!({"op": "listen", "id": id}))
    }

    pub(crate) fn listener(&mut self, words: &str, address: &str, port: u16) -> u64 {
        let id = self.bound(words, address, port);
        assert_eq!(self.listen(id), "OK", "{words} {address}:{port}");
        id
    }

    /// Connects; the source is what routing would pick for the peer's network.
    pub(crate) fn connect_answer(&mut self, id: u64, address: &str, port: u16) -> Value {
        let peer = address.trim_start_matches("::ffff:");
        let source = match peer.split(['.', ':']).nth(1) {
            _ if peer.starts_with("fd08") => "fd08::1",
            _ if peer.contains(':') => "fd09::1",
            _ if peer.starts_with("127") => "127.0.0.1",
            Some("8") => "10.8.0.1",
            _ => "10.9.0.1",
        };
        self.ask(json!({"op": "connect", "id": id, "address": address, "port": port, "source": source}))
    }

    pub(crate) fn connect(&mut self, id: u64, address: &str, port: u16) -> String {
        let answer = self.connect_answer(id, address, port);
        answer["error"].as_str().unwrap_or("OK").to_owned()
    }

    pub(crate) fn disconnect(&mut self, id: u64) -> String {
        self.word(json!({"op": "disconnect", "id": id}))
    }

    pub(crate) fn close(&mut self, id: u64) {
        assert_eq!(self.word(json!({"op": "close", "id": id})), "OK");
    }

    pub(crate) fn close_into_time_wait(&mut self, id: u64) {
        assert_eq!(
            self.word(json!({"op": "close", "id": id, "how": "time_wait"})),
            "OK"
        );
    }

    pub(crate) fn deliver(&mut self, protocol: &str, from: &str, to: &str, device: &str) -> Value {
        self.ask(
            json!({"op": "deliver", "protocol": protocol, "source": from, "destination": to,
            "device": device}),
        )
    }

    /// Who gets a packet on tun0: the names of the sockets, joined by `+`, or `none`.
    pub(crate) fn who(&mut self, protocol: &str, from: &str, to: &str, names: &[(&str, u64)]) -> String {
        self.who_on("tun0", protocol, from, to, names)
    }

    pub(crate) fn who_on(
        &mut self,
        device: &str,
        protocol: &str,
        from: &str,
        to: &str,
        names: &[(&str, u64)],
    ) -> String {
        let answer = self.deliver(protocol, from, to, device);
        let to: Vec<_> = answer["to"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap())
            .collect();
        let who: Vec<_> = names
            .iter()
            .filter(|(_, id)| to.contains(id))
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(who.len(), to.len(), "an unnamed socket gets the packet: {answer}");
        if who.is_empty() {
            "none".to_owned()
        } else {
            who.join("+")
        }
    }

    /// Who gets packets from many source ports: all that any of them reaches.
    pub(crate) fn spread(&mut self, protocol: &str, from: &str, to: &str, names: &[(&str, u64)]) -> String {
        let mut all = std::collections::BTreeSet::new();
        for port in 20_000..20_200 {
            all.insert(self.who(protocol, &format!("{from}:{port}"), to, names));
        }
        all.into_iter().collect::<Vec<_>>().join("+")
    }
}
