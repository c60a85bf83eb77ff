//! The same scripts with the host's own sockets and through the gateway: both must see the same.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use portolan_net::Stack;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::namespace::{BLACK_HOLE, HOST_V4, HOST_V6, NO_ROUTE, UNREACHABLE, in_namespace};
use crate::support::world::{PATIENCE, addr, eventually, pattern, world};

/// Who connects.
enum Client {
    /// The kernel of the host.
    Host,
    /// A stack behind the gateway.
    Inside(Stack),
}

/// A connection of either.
enum Stream {
    Host(tokio::net::TcpStream),
    Inside(portolan_net::TcpStream),
}

impl Client {
    async fn connect(&self, destination: SocketAddr) -> io::Result<Stream> {
        Ok(match self {
            Self::Host => Stream::Host(tokio::net::TcpStream::connect(destination).await?),
            Self::Inside(stack) => {
                Stream::Inside(portolan_net::TcpStream::connect(stack, destination).await?)
            }
        })
    }

    /// A connection to a server of the host, and its other end.
    async fn connected(&self) -> (Stream, tokio::net::TcpStream) {
        let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
        let destination = server.local_addr().unwrap();
        let (there, here) = tokio::join!(self.connect(destination), server.accept());
        (there.unwrap(), here.unwrap().0)
    }
}

impl Stream {
    fn reset(self) {
        match self {
            Self::Host(stream) => stream.set_zero_linger().unwrap(),
            Self::Inside(stream) => stream.reset(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // tokio's own takes a short read for the last one, which it is not at a mark of urgent data.
            Self::Host(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                match stream.try_read(buf.initialize_unfilled()) {
                    Ok(len) => {
                        buf.advance(len);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
            Self::Inside(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Host(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Inside(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Host(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Inside(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What was seen, in order.
type Seen = Vec<String>;

/// Reads to the end, and says how it ended.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut bytes)).await {
        Ok(Ok(_)) => format!("{} bytes, then the end", bytes.len()),
        Ok(Err(error)) => format!("{:?}", error.kind()),
        Err(_) => "nothing more".to_owned(),
    }
}

async fn attempts(client: &Client) -> Seen {
    let closed = {
        let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
        server.local_addr().unwrap()
    };
    let closed_v6 = addr(HOST_V6, closed.port());
    let mut seen = Seen::new();
    for destination in [closed, closed_v6, addr(UNREACHABLE, 80), addr(NO_ROUTE, 80)] {
        let result = timeout(PATIENCE, client.connect(destination)).await;
        let result = result.expect("there is an answer").map(|_| ());
        let result = result.map_err(|error| error.kind());
        seen.push(format!("{}: {result:?}", destination.ip()));
    }
    // SYNs at 0 and 1 seconds.
    let result = timeout(Duration::from_millis(1500), client.connect(addr(BLACK_HOLE, 80))).await;
    seen.push(format!("black hole: silence {}", result.is_err()));
    seen
}

async fn the_client_is_done_first(client: &Client) -> Seen {
    let (mut there, mut here) = client.connected().await;
    there.write_all(b"question").await.unwrap();
    there.shutdown().await.unwrap();
    let mut seen = vec![rest(&mut here).await];
    here.write_all(b"a long answer").await.unwrap();
    here.shutdown().await.unwrap();
    seen.push(rest(&mut there).await);
    seen
}

async fn the_server_is_done_first(client: &Client) -> Seen {
    let (mut there, mut here) = client.connected().await;
    here.write_all(b"banner").await.unwrap();
    here.shutdown().await.unwrap();
    let mut seen = vec![rest(&mut there).await];
    there.write_all(b"said to who only listens").await.unwrap();
    there.shutdown().await.unwrap();
    seen.push(rest(&mut here).await);
    seen
}

async fn nothing_is_said(client: &Client) -> Seen {
    let (there, mut here) = client.connected().await;
    drop(there);
    vec![rest(&mut here).await]
}

async fn the_client_resets(client: &Client) -> Seen {
    let (mut there, mut here) = client.connected().await;
    there.write_all(b"half of a").await.unwrap();
    let mut bytes = [0; 9];
    here.read_exact(&mut bytes).await.unwrap();
    there.reset();
    vec![rest(&mut here).await]
}

async fn the_server_resets(client: &Client) -> Seen {
    let (mut there, mut here) = client.connected().await;
    here.write_all(b"half of a").await.unwrap();
    let mut bytes = [0; 9];
    there.read_exact(&mut bytes).await.unwrap();
    here.set_zero_linger().unwrap();
    drop(here);
    vec![rest(&mut there).await]
}

async fn the_client_goes_without_reading(client: &Client) -> Seen {
    let (mut there, mut here) = client.connected().await;
    here.write_all(b"nobody will read this").await.unwrap();
    let mut byte = [0; 1];
    there.read_exact(&mut byte).await.unwrap();
    drop(there);
    vec![rest(&mut here).await]
}

/// The server writes to a client that does not read: it must come to a stop, and all arrive in the end.
async fn a_slow_reader(client: &Client) -> Seen {
    const LEN: usize = 48 << 20;
    let (mut there, mut here) = client.connected().await;
    let writer = tokio::spawn(async move {
        let bytes = pattern(1 << 16);
        let mut written = 0;
        let mut stalled = false;
        while written < LEN {
            match timeout(Duration::from_millis(500), here.write(&bytes)).await {
                Ok(result) => written += result.unwrap(),
                Err(_) => {
                    stalled = true;
                    break;
                }
            }
        }
        (here, written, stalled)
    });
    let (mut here, written, stalled) = timeout(PATIENCE, writer).await.unwrap().unwrap();
    let done = async {
        here.shutdown().await.unwrap();
        rest(&mut here).await
    };
    let reading = async {
        let read = rest(&mut there).await;
        there.shutdown().await.unwrap();
        read
    };
    let (done, read) = tokio::join!(done, reading);
    let all = read == format!("{written} bytes, then the end");
    vec![format!("stalled {stalled}, all came {all}"), done]
}

async fn much_both_ways(client: &Client) -> Seen {
    const LEN: usize = 8 << 20;
    let (there, here) = client.connected().await;
    let bytes = pattern(LEN);
    let send_and_receive = |stream: Box<dyn Both>| {
        let bytes = bytes.clone();
        async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let sending = async {
                writer.write_all(&bytes).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let receiving = reader.read_to_end(&mut received);
            let ((), result) = tokio::join!(sending, receiving);
            result.unwrap();
            format!("the same {}", received == bytes)
        }
    };
    let both = async {
        tokio::join!(
            send_and_receive(Box::new(there)),
            send_and_receive(Box::new(here))
        )
    };
    let (there, here) = timeout(PATIENCE, both).await.unwrap();
    vec![there, here]
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// Urgent data in line, as RFC 6093 asks of everybody.
async fn urgent_data(client: &Client) -> Seen {
    let (mut there, here) = client.connected().await;
    if let Stream::Host(stream) = &there {
        SockRef::from(stream).set_out_of_band_inline(true).unwrap();
    }
    let socket = SockRef::from(&here);
    assert_eq!(socket.send(b"before").unwrap(), 6);
    assert_eq!(socket.send_out_of_band(b"!").unwrap(), 1);
    assert_eq!(socket.send(b"after").unwrap(), 5);
    let mut bytes = [0; 12];
    timeout(PATIENCE, there.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    vec![String::from_utf8_lossy(&bytes).into_owned()]
}

/// One that is written to by a client that goes on after the server has gone.
async fn the_server_goes_while_the_client_writes(client: &Client) -> Seen {
    let (mut there, here) = client.connected().await;
    drop(here);
    let bytes = [0; 4096];
    let writing = async {
        while there.write_all(&bytes).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    vec![format!("fails {}", timeout(PATIENCE, writing).await.is_ok())]
}

macro_rules! scripts {
    ($($script:ident),* $(,)?) => {$(
        mod $script {
            #[test]
            fn is_the_same_inside() {
                let test = concat!("differential::", stringify!($script), "::is_the_same_inside");
                super::in_namespace(test, || async {
                    let world = super::world();
                    let direct = super::$script(&super::Client::Host).await;
                    let inside = super::$script(&super::Client::Inside(world.client.clone())).await;
                    assert_eq!(direct, inside);
                    println!("note: {direct:?}");
                    if stringify!($script) != "attempts" {
                        super::eventually("the flow ends", || world.flows.count() == 0).await;
                    }
                });
            }
        }
    )*};
}

scripts! {
    attempts,
    the_client_is_done_first,
    the_server_is_done_first,
    nothing_is_said,
    the_client_resets,
    the_server_resets,
    the_client_goes_without_reading,
    a_slow_reader,
    much_both_ways,
    urgent_data,
    the_server_goes_while_the_client_writes,
}
