//! The kernel's end of an exchange, by plain sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use super::pattern;

/// Sends `send` bytes of the pattern and a FIN while it checks what comes; gives how many bytes came.
pub(crate) fn exchange(stream: TcpStream, send: u64) -> JoinHandle<u64> {
    spawn(move || {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        let writer = stream.try_clone().expect("a descriptor");
        let sender = spawn(move || {
            let mut writer = writer;
            let mut sent = 0;
            while sent < send {
                let bytes = pattern::from(sent, (send - sent).min(1 << 18));
                writer.write_all(bytes).expect("the peer takes it");
                sent += bytes.len() as u64;
            }
            writer.shutdown(Shutdown::Write).expect("it is connected");
        });
        let received = receive(&stream);
        sender.join().expect("the sender");
        received
    })
}

/// Reads to the end, and checks.
pub(crate) fn receive(mut stream: &TcpStream) -> u64 {
    let mut buffer = vec![0; 1 << 18];
    let mut received = 0;
    loop {
        let len = stream.read(&mut buffer).expect("bytes or the end");
        if len == 0 {
            return received;
        }
        assert_eq!(
            pattern::difference(received, &buffer[..len]),
            None,
            "of {received} bytes"
        );
        received += len as u64;
    }
}

/// Serves one connection with an exchange.
pub(crate) fn serve(local: SocketAddr, send: u64) -> (SocketAddr, JoinHandle<u64>) {
    let listener = TcpListener::bind(local).expect("the port is free");
    let local = listener.local_addr().expect("an address");
    let thread = spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        exchange(stream, send).join().expect("the exchange")
    });
    (local, thread)
}
