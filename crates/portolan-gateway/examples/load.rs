//! A load for measuring what stands between two hosts: round trips, connections and datagrams, by sockets of the system.
//!
//!     load serve 0.0.0.0 7000              # echo on 7000, both protocols; one byte and a close on 7001; a sink on
//!                                          # 7002/udp; one byte and no close on 7004
//!     load ping tcp 10.0.0.1:7000 2        # one byte there and back for 2 seconds: median_us, p99_us, per_second
//!     load connect 10.0.0.1:7001 2 32      # connections by 32 threads: per_second, failed, stuck
//!     load hold 10.0.0.1:7004 1000 2       # keeps 1,000 connections that have answered for 2 seconds
//!     load flood 10.0.0.1:7002 64 1        # datagrams of 64 bytes for a second: sent, received per second, lost
//!     load first 10.0.0.1:7005 COMMAND…    # milliseconds from starting the command, which serves HTTP there, to its answer
//!     load http 0.0.0.0:7005               # such a server
//!     load run COMMAND…                    # milliseconds until the command has ended
//!
//! Each prints one line of key=value. `flood` asks the sink for its count over a TCP connection to the port before it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// After so long an answer does not come any more.
const PATIENCE: Duration = Duration::from_secs(3);
/// What asks a sink for the number of datagrams that it has taken since the last question.
const QUESTION: &[u8; 4] = b"sum?";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Outcome<()> {
    match words {
        ["serve", address, port] => serve(address.parse()?, port.parse()?),
        ["ping", "tcp", to, seconds] => ping(&mut connected(to.parse()?)?, span(seconds)?),
        ["ping", "udp", to, seconds] => ping(&mut Datagrams::to(to.parse()?)?, span(seconds)?),
        ["connect", to, seconds, threads] => connect(to.parse()?, span(seconds)?, threads.parse()?),
        ["hold", to, count, seconds] => hold(to.parse()?, count.parse()?, span(seconds)?),
        ["flood", to, size, seconds] => flood(to.parse()?, size.parse()?, span(seconds)?),
        ["first", to, command @ ..] => first(to.parse()?, command),
        ["http", address] => http(address.parse()?),
        ["run", command @ ..] => time(command),
        _ => Err(
            "usage: load serve|ping|connect|hold|flood|first|http|run … (see the head of its source)".into(),
        ),
    }
}

fn span(seconds: &str) -> Outcome<Duration> {
    Ok(Duration::try_from_secs_f64(seconds.parse()?)?)
}

fn serve(address: IpAddr, port: u16) -> Outcome<()> {
    let taken = Arc::new(AtomicU64::new(0));
    let echo = TcpListener::bind((address, port))?;
    let closing = TcpListener::bind((address, port + 1))?;
    let datagrams = UdpSocket::bind((address, port))?;
    let sink = UdpSocket::bind((address, port + 2))?;
    socket2::SockRef::from(&sink).set_recv_buffer_size(8 << 20)?;
    thread::spawn(move || {
        for stream in closing.incoming().flatten() {
            let _ = (&stream).write_all(b"x");
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..len], from);
        }
    });
    let holding = TcpListener::bind((address, port + 4))?;
    thread::spawn(move || keep(&holding));
    let counted = Arc::clone(&taken);
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while sink.recv(&mut buffer).is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for stream in echo.incoming().flatten() {
        let taken = Arc::clone(&taken);
        thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || answer(stream, &taken))?;
    }
    Ok(())
}

/// Keeps every connection until its client is gone. One thread, so that what it takes is not this server's.
fn keep(listener: &TcpListener) {
    let kept = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    let looked_at = Arc::clone(&kept);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(200));
            let mut streams = looked_at.lock().unwrap_or_else(PoisonError::into_inner);
            streams.retain(
                |stream| matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock),
            );
        }
    });
    for mut stream in listener.incoming().flatten() {
        if stream.write_all(b"x").is_ok() && stream.set_nonblocking(true).is_ok() {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    }
}

/// Answers every request with the same page.
fn http(address: SocketAddr) -> Outcome<()> {
    for mut stream in TcpListener::bind(address)?.incoming().flatten() {
        let mut request = [0; 1024];
        if stream.read(&mut request).is_ok_and(|len| len > 0) {
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        }
    }
    Ok(())
}

/// A process that is ended when this one has done with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // It ends what it has started; killed at once it could not.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn started(command: &[&str]) -> Outcome<Running> {
    let (program, arguments) = command.split_first().ok_or("a command is wanted")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Running(command.spawn()?))
}

fn first(to: SocketAddr, command: &[&str]) -> Outcome<()> {
    let began = Instant::now();
    let _running = started(command)?;
    let ask = || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read(&mut [0; 1])
    };
    // A published port may be there before its server is, and then resets or closes.
    while ask().unwrap_or(0) == 0 {
        if began.elapsed() > PATIENCE {
            return Err("nobody answered".into());
        }
        thread::sleep(Duration::from_micros(500));
    }
    println!("first_ms={:.2}", began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn time(command: &[&str]) -> Outcome<()> {
    let began = Instant::now();
    let status = started(command)?.0.wait()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    println!("run_ms={:.2}", began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Echoes, and answers the question for the sink's count.
fn answer(mut stream: TcpStream, taken: &AtomicU64) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 16 << 10];
    while let Ok(len) = stream.read(&mut buffer) {
        let done = match &buffer[..len] {
            [] => return,
            question if question == QUESTION => {
                stream.write_all(&taken.swap(0, Ordering::Relaxed).to_be_bytes())
            }
            bytes => stream.write_all(bytes),
        };
        if done.is_err() {
            return;
        }
    }
}

fn connected(to: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What a byte is sent over, and comes back.
trait RoundTrip {
    fn round_trip(&mut self) -> std::io::Result<()>;
}

impl RoundTrip for TcpStream {
    fn round_trip(&mut self) -> std::io::Result<()> {
        self.write_all(b"x")?;
        self.read_exact(&mut [0])
    }
}

struct Datagrams(UdpSocket);

impl Datagrams {
    fn to(remote: SocketAddr) -> Outcome<Self> {
        let any: IpAddr = if remote.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(remote)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }
}

impl RoundTrip for Datagrams {
    fn round_trip(&mut self) -> std::io::Result<()> {
        self.0.send(b"x")?;
        self.0.recv(&mut [0]).map(drop)
    }
}

fn ping(end: &mut impl RoundTrip, span: Duration) -> Outcome<()> {
    for _ in 0..200 {
        end.round_trip()?;
    }
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < span {
        let sent = Instant::now();
        end.round_trip()?;
        times.push(sent.elapsed());
    }
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    let micros = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6;
    println!(
        "median_us={:.1} p99_us={:.1} per_second={per_second:.0}",
        micros(50),
        micros(99)
    );
    Ok(())
}

fn connect(to: SocketAddr, span: Duration, threads: usize) -> Outcome<()> {
    let began = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                let (mut done, mut failed, mut stuck) = (0_u64, 0_u64, 0_u64);
                while began.elapsed() < span {
                    match visit(to) {
                        Ok(()) => done += 1,
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                            stuck += 1
                        }
                        Err(_) => failed += 1,
                    }
                }
                (done, failed, stuck)
            })
        })
        .collect();
    let mut sums = (0, 0, 0);
    for worker in workers {
        let (done, failed, stuck) = worker.join().map_err(|_| "a thread panicked")?;
        sums = (sums.0 + done, sums.1 + failed, sums.2 + stuck);
    }
    let per_second = sums.0 as f64 / began.elapsed().as_secs_f64();
    println!("per_second={per_second:.0} failed={} stuck={}", sums.1, sums.2);
    Ok(())
}

/// One connection: a byte comes, then the end.
fn visit(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 8];
    let mut seen = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 if seen == 1 => return Ok(()),
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            len => seen += len,
        }
    }
}

fn hold(to: SocketAddr, count: usize, span: Duration) -> Outcome<()> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = connected(to)?;
        stream.read_exact(&mut [0])?;
        held.push(stream);
    }
    println!("held={}", held.len());
    thread::sleep(span);
    Ok(())
}

fn flood(to: SocketAddr, size: usize, span: Duration) -> Outcome<()> {
    let port = to
        .port()
        .checked_sub(2)
        .ok_or("the sink's port follows two others")?;
    let mut control = connected(SocketAddr::new(to.ip(), port))?;
    let mut sum = || -> std::io::Result<u64> {
        control.write_all(QUESTION)?;
        let mut count = [0; 8];
        control.read_exact(&mut count)?;
        Ok(u64::from_be_bytes(count))
    };
    let Datagrams(socket) = Datagrams::to(to)?;
    socket2::SockRef::from(&socket).set_send_buffer_size(4 << 20)?;
    sum()?;
    let bytes = vec![0; size];
    let began = Instant::now();
    let mut sent = 0_u64;
    while began.elapsed() < span {
        for _ in 0..64 {
            sent += u64::from(socket.send(&bytes).is_ok());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    // What is under way arrives, or is lost.
    let mut received = 0;
    loop {
        thread::sleep(Duration::from_millis(100));
        let more = sum()?;
        if more == 0 {
            break;
        }
        received += more;
    }
    println!(
        "sent={:.0} received={:.0} lost={}",
        sent as f64 / seconds,
        received as f64 / seconds,
        sent.saturating_sub(received)
    );
    Ok(())
}
