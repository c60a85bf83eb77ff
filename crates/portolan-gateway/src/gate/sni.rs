//! The name that a connection shows with its first bytes: the server name of a TLS ClientHello (RFC 6066, section 3),
//! or the host of an HTTP/1 request (RFC 9112, section 3.2).
//!
//! What a server could read in another way than this is shown as no name: two hosts, folded lines, lengths that do not fit.

use portolan_core::{Endpoint, Host, HostName};

/// What the first bytes of a connection show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// This name, in lower case, without a dot at its end.
    Name(String),
    /// Nothing yet: more bytes are needed.
    More,
    /// No name, or more bytes than [`SHOWN_BYTES_MAX`] before one.
    Nothing,
}

/// How many bytes at the beginning of a connection are looked at. Some ClientHellos with post-quantum key shares have
/// 2 KiB, browsers' requests with cookies 8.
pub const SHOWN_BYTES_MAX: usize = 32 * 1024;

/// What `bytes` show, which are all that a client has sent so far, or the first [`SHOWN_BYTES_MAX`] of it.
///
/// Cost: linear in the bytes; allocates once a ClientHello is whole.
#[must_use]
pub fn shown_name(bytes: &[u8]) -> Shown {
    let first = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let read = match first.first() {
        None => Err(Missing::More),
        Some(&tls::HANDSHAKE) => tls::server_name(first),
        Some(_) => http::host(first),
    };
    match read {
        Ok(name) => Shown::Name(name),
        Err(Missing::More) if bytes.len() < SHOWN_BYTES_MAX => Shown::More,
        Err(Missing::More | Missing::Never) => Shown::Nothing,
    }
}

/// Why no name was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The bytes end too early.
    More,
    /// They can go on as they like.
    Never,
}

/// A name as text; addresses are none.
fn name_of(text: &[u8]) -> Result<String, Missing> {
    let text = std::str::from_utf8(text).map_err(|_| Missing::Never)?;
    match text.parse::<HostName>() {
        Ok(name) => Ok(name.as_str().trim_end_matches('.').to_owned()),
        Err(_) => Err(Missing::Never),
    }
}

mod tls {
    use super::{Missing, name_of};

    /// Content type of a record, and what it begins with (RFC 8446, section 5.1).
    pub(super) const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const SERVER_NAME: u16 = 0;
    const HOST_NAME: u8 = 0;
    /// Plain text of a record has at most 2^14 bytes.
    const RECORD_MAX: usize = 1 << 14;

    pub(super) fn server_name(bytes: &[u8]) -> Result<String, Missing> {
        let hello = client_hello(bytes)?;
        in_hello(&hello).ok_or(Missing::Never)
    }

    /// The body of a ClientHello, which may be spread over records.
    fn client_hello(bytes: &[u8]) -> Result<Vec<u8>, Missing> {
        // Nothing is copied before all of it is there.
        let (mut header, mut header_len, mut have) = ([0; 4], 0, 0);
        for record in records(bytes) {
            let fragment = record?;
            for &byte in fragment.iter().take(4 - header_len) {
                header[header_len] = byte;
                header_len += 1;
            }
            have += fragment.len();
            if header_len < 4 {
                continue;
            }
            let [kind, length @ ..] = header;
            let length = length
                .iter()
                .fold(0, |length, &byte| length << 8 | usize::from(byte));
            if kind != CLIENT_HELLO || length > super::SHOWN_BYTES_MAX {
                return Err(Missing::Never);
            }
            if have >= 4 + length {
                let fragments = records(bytes).map_while(Result::ok).flatten();
                return Ok(fragments.skip(4).take(length).copied().collect());
            }
        }
        Err(Missing::More)
    }

    /// The contents of the handshake records that `bytes` begin with; that of the last one may be cut short.
    fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], Missing>> {
        std::iter::from_fn(move || {
            let (header, rest) = bytes.split_at_checked(5)?;
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            // A fragment of nothing is not allowed (RFC 8446, section 5.1).
            if header[0] != HANDSHAKE || header[1] != 3 || length == 0 || length > RECORD_MAX {
                bytes = &[];
                return Some(Err(Missing::Never));
            }
            let fragment;
            (fragment, bytes) = rest.split_at(length.min(rest.len()));
            Some(Ok(fragment))
        })
    }

    /// RFC 8446, section 4.1.2. `None` if there is no name, or something does not fit.
    fn in_hello(hello: &[u8]) -> Option<String> {
        let mut hello = Reader(hello);
        let _version_and_random = hello.take(2 + 32)?;
        let _session_id = hello.vector_of_8()?;
        let _cipher_suites = hello.vector_of_16()?;
        let _compression_methods = hello.vector_of_8()?;
        let mut extensions = Reader(hello.vector_of_16()?);
        if !hello.0.is_empty() {
            return None;
        }
        let mut name = None;
        while !extensions.0.is_empty() {
            let kind = extensions.number()?;
            let body = extensions.vector_of_16()?;
            if kind == SERVER_NAME && name.replace(in_extension(body)?).is_some() {
                return None;
            }
        }
        name
    }

    fn in_extension(body: &[u8]) -> Option<String> {
        let mut body = Reader(body);
        let mut list = Reader(body.vector_of_16()?);
        let kind = list.take(1)?;
        let name = list.vector_of_16()?;
        // There is one name: no other kind was ever defined, and none may come twice.
        let alone = list.0.is_empty() && body.0.is_empty() && kind == [HOST_NAME];
        alone.then(|| name_of(name).ok()).flatten()
    }

    /// What is left to read.
    struct Reader<'a>(&'a [u8]);

    impl<'a> Reader<'a> {
        fn take(&mut self, count: usize) -> Option<&'a [u8]> {
            let (taken, rest) = self.0.split_at_checked(count)?;
            self.0 = rest;
            Some(taken)
        }

        fn number(&mut self) -> Option<u16> {
            let (number, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            Some(u16::from_be_bytes(*number))
        }

        /// A vector with its length in one byte before it.
        fn vector_of_8(&mut self) -> Option<&'a [u8]> {
            let length = self.take(1)?[0];
            self.take(length.into())
        }

        /// A vector with its length in two bytes before it.
        fn vector_of_16(&mut self) -> Option<&'a [u8]> {
            let length = self.number()?;
            self.take(length.into())
        }
    }
}

mod http {
    use super::{Endpoint, Host, Missing, name_of};

    /// Of a method: the longest registered is UPDATEREDIRECTREF.
    const METHOD_MAX: usize = 20;

    /// The host of a request, once all of its header is there.
    pub(super) fn host(bytes: &[u8]) -> Result<String, Missing> {
        let method_len = bytes.iter().take_while(|&&byte| is_token(byte)).count();
        match bytes.get(method_len) {
            _ if method_len == 0 || method_len > METHOD_MAX => return Err(Missing::Never),
            None => return Err(Missing::More),
            Some(b' ') => {}
            Some(_) => return Err(Missing::Never),
        }
        let mut lines = Lines(bytes);
        let request = lines.next_line()?;
        let in_target = target_host(&request[method_len + 1..], &request[..method_len])?;
        let mut in_field = None;
        loop {
            let line = lines.next_line()?;
            if line.is_empty() {
                break;
            }
            let colon = line.iter().position(|&byte| byte == b':').ok_or(Missing::Never)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
                return Err(Missing::Never);
            }
            if name.eq_ignore_ascii_case(b"host") && in_field.replace(authority(value)?).is_some() {
                return Err(Missing::Never);
            }
        }
        match (in_target, in_field) {
            // A server goes by the target, a proxy before it perhaps by the field.
            (Some(target), Some(field)) if target != field => Err(Missing::Never),
            (Some(name), _) | (None, Some(name)) => Ok(name),
            (None, None) => Err(Missing::Never),
        }
    }

    /// The host in the target of a request line, behind its method.
    fn target_host(rest: &[u8], method: &[u8]) -> Result<Option<String>, Missing> {
        let mut words = rest.split(|&byte| byte == b' ');
        let (Some(target), Some(version), None) = (words.next(), words.next(), words.next()) else {
            return Err(Missing::Never);
        };
        if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
            return Err(Missing::Never);
        }
        if method == b"CONNECT" {
            return authority(target).map(Some);
        }
        if target.starts_with(b"/") || target == b"*" {
            return Ok(None);
        }
        // The absolute form: http://HOST[:PORT]/PATH.
        let after_scheme = target.windows(3).position(|window| window == b"://");
        let rest = &target[after_scheme.ok_or(Missing::Never)? + 3..];
        let end = rest
            .iter()
            .position(|byte| b"/?#".contains(byte))
            .unwrap_or(rest.len());
        authority(&rest[..end]).map(Some)
    }

    /// `HOST[:PORT]`; the host is a name.
    fn authority(text: &[u8]) -> Result<String, Missing> {
        if !text.contains(&b':') {
            return name_of(text);
        }
        let text = std::str::from_utf8(text).map_err(|_| Missing::Never)?;
        match text.parse::<Endpoint>() {
            Ok(Endpoint {
                host: Host::Name(name),
                ..
            }) => name_of(name.as_str().as_bytes()),
            Ok(_) | Err(_) => Err(Missing::Never),
        }
    }

    fn is_token(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
    }

    /// Lines that end with CR LF, and hold neither alone nor a NUL.
    struct Lines<'a>(&'a [u8]);

    impl<'a> Lines<'a> {
        fn next_line(&mut self) -> Result<&'a [u8], Missing> {
            let Some(end) = self.0.iter().position(|&byte| byte == b'\n') else {
                return Err(Missing::More);
            };
            let (line, rest) = self.0.split_at(end);
            self.0 = &rest[1..];
            let line = line.strip_suffix(b"\r").ok_or(Missing::Never)?;
            if line.iter().any(|byte| b"\r\0".contains(byte)) {
                return Err(Missing::Never);
            }
            Ok(line)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(width: usize, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        [&length[4 - width..], body].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().as_slice(), &vector(2, body)].concat()
    }

    fn server_name(name: &str) -> Vec<u8> {
        let entry = [&[0], vector(2, name.as_bytes()).as_slice()].concat();
        extension(0, &vector(2, &entry))
    }

    /// A ClientHello with its header, without records.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(vector(1, &[9; 32]));
        body.extend(vector(2, &[0x13, 1, 0x13, 2]));
        body.extend(vector(1, &[0]));
        body.extend(vector(2, &extensions.concat()));
        [&[1], vector(3, &body).as_slice()].concat()
    }

    fn in_records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |fragment: &[u8]| [&[22, 3, 1], vector(2, fragment).as_slice()].concat();
        message.chunks(size).flat_map(record).collect()
    }

    fn shown(name: &str) -> Shown {
        Shown::Name(name.to_owned())
    }

    #[test]
    fn a_client_hello_shows_its_name_whole_and_in_pieces() {
        let message = hello(&[
            extension(43, &[2, 3, 4]),
            server_name("WWW.Example.org"),
            extension(51, &[0; 1200]),
        ]);
        for size in [1, 2, 3, 5, 100, message.len()] {
            let bytes = in_records(&message, size);
            assert_eq!(shown_name(&bytes), shown("www.example.org"), "records of {size}");
            for cut in 0..bytes.len() {
                assert_eq!(
                    shown_name(&bytes[..cut]),
                    Shown::More,
                    "records of {size}, {cut} bytes"
                );
            }
            // Early data and the like may follow.
            assert_eq!(
                shown_name(&[&bytes[..], &[23, 3, 3, 0, 1, 0]].concat()),
                shown("www.example.org")
            );
        }
    }

    #[test]
    fn a_client_hello_that_can_be_read_in_two_ways_shows_nothing() {
        let good = server_name("a.example");
        let two_names = extension(0, &vector(2, b"\0\0\x01a\0\0\x01b"));
        let mut too_long = hello(std::slice::from_ref(&good));
        too_long.push(0);
        too_long[3] += 1;
        let cases = [
            ("no name", hello(&[extension(43, &[2, 3, 4])])),
            ("two extensions", hello(&[good.clone(), server_name("b.example")])),
            ("two names", hello(&[two_names])),
            ("an address", hello(&[server_name("192.0.2.1")])),
            ("a NUL", hello(&[server_name("a.example\0.b.example")])),
            ("nothing as a name", hello(&[server_name("")])),
            ("something behind the extensions", too_long),
            ("a ServerHello", [&[2], &hello(&[good])[1..]].concat()),
            ("an endless one", vec![1, 0xff, 0xff, 0xff]),
        ];
        for (what, message) in cases {
            assert_eq!(shown_name(&in_records(&message, 4000)), Shown::Nothing, "{what}");
        }
        for (what, bytes) in [
            ("an empty record", [22, 3, 1, 0, 0]),
            ("a long record", [22, 3, 1, 0x40, 1]),
        ] {
            assert_eq!(shown_name(&bytes), Shown::Nothing, "{what}");
        }
    }

    #[test]
    fn a_request_shows_its_host() {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: Example.org\r\n\r\n", "example.org"),
            (
                "GET / HTTP/1.1\r\nA: b\r\nhOST:example.org:8080  \r\nC:\r\n\r\nbody",
                "example.org",
            ),
            (
                "GET http://example.org/x HTTP/1.1\r\nHost: example.org\r\n\r\n",
                "example.org",
            ),
            ("GET http://example.org?x HTTP/1.0\r\n\r\n", "example.org"),
            (
                "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
                "example.org",
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: example.org.\r\n\r\n", "example.org"),
        ];
        for (text, name) in cases {
            assert_eq!(shown_name(text.as_bytes()), shown(name), "{text:?}");
            let end = text.find("\r\n\r\n").unwrap() + 4;
            for cut in 0..end {
                assert_eq!(
                    shown_name(&text.as_bytes()[..cut]),
                    Shown::More,
                    "{:?}",
                    &text[..cut]
                );
            }
        }
    }

    #[test]
    fn a_request_that_can_be_read_in_two_ways_shows_nothing() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\n b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
            "GET / HTTP/1.1\nHost: a.example\n\n",
            "GET / HTTP/1.1\r\nX: \rHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
            "GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a.example\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "\0\0\0\0",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        ] {
            assert_eq!(shown_name(text.as_bytes()), Shown::Nothing, "{text:?}");
        }
    }

    #[test]
    fn what_never_ends_shows_nothing_in_the_end() {
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; SHOWN_BYTES_MAX]].concat();
        assert_eq!(shown_name(&endless[..SHOWN_BYTES_MAX - 1]), Shown::More);
        assert_eq!(shown_name(&endless), Shown::Nothing);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..600), tls: bool) {
            let _ = shown_name(&bytes);
            let bytes = if tls { in_records(&bytes, 50) } else { [b"GET / HTTP/1.1\r\n", &bytes[..]].concat() };
            let _ = shown_name(&bytes);
        }

        #[test]
        fn one_changed_byte_shows_a_name_that_is_a_name(at: prop::sample::Index, byte: u8) {
            let mut bytes = in_records(&hello(&[server_name("a.example")]), 30);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Shown::Name(name) = shown_name(&bytes) {
                prop_assert!(name.parse::<HostName>().is_ok());
            }
        }
    }
}
