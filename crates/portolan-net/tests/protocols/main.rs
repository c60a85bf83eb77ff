//! Protocols that were written for tokio's sockets, client and server, over ours.

mod http;
mod tls;

use portolan_net::link::{self, Capabilities};
use portolan_net::{Stack, TcpListener, TcpStream};

const SERVER: &str = "10.0.0.1:80";

/// Two hosts, and the server's listener.
fn hosts() -> (Stack, TcpListener) {
    let (left, right) = link::pair(Capabilities::plain(1500));
    let (server, driver) = Stack::builder().address([10, 0, 0, 1], 24).build(left).unwrap();
    tokio::spawn(driver);
    let (client, driver) = Stack::builder().address([10, 0, 0, 2], 24).build(right).unwrap();
    tokio::spawn(driver);
    (
        client,
        TcpListener::bind(&server, SERVER.parse().unwrap()).unwrap(),
    )
}

async fn connect(client: &Stack) -> TcpStream {
    TcpStream::connect(client, SERVER.parse().unwrap()).await.unwrap()
}
