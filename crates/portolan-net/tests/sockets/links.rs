//! Bad networks, and captures.

use std::process::Command;
use std::sync::{Arc, Mutex};

use portolan_capture::{CaptureInterface, CaptureReader, CaptureWriter, CapturedPacket};
use portolan_net::link::{self, Capabilities, Direction, Impaired, Impairment, Loss, Observer, Tap};
use portolan_net::{Link, Stack, TcpListener, TcpStream};
use portolan_stack::{Duration, Packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{SERVER, addr, pattern};

/// Sends a megabyte from one stack to another, and says how long it took by tokio's clock.
async fn send_over(left: impl Link + 'static, right: impl Link + 'static) -> std::time::Duration {
    let start = tokio::time::Instant::now();
    let (server, driver) = Stack::builder()
        .address([10, 0, 0, 1], 24)
        .secret([1; 16])
        .build(left)
        .unwrap();
    let server_driver = tokio::spawn(driver);
    let (client, driver) = Stack::builder()
        .address([10, 0, 0, 2], 24)
        .secret([2; 16])
        .build(right)
        .unwrap();
    let client_driver = tokio::spawn(driver);
    let listener = TcpListener::bind(&server, addr(SERVER)).unwrap();
    let mut there = TcpStream::connect(&client, addr(SERVER)).await.unwrap();
    let sent = pattern(1 << 20);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        there.write_all(&sent).await.unwrap();
        there.shutdown().await.unwrap();
        // The other side's FIN: everything has arrived.
        there.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let (mut here, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    here.read_to_end(&mut received).await.unwrap();
    assert!(received == expected);
    drop(here);
    writer.await.unwrap();
    let took = start.elapsed();
    server_driver.abort();
    client_driver.abort();
    took
}

#[tokio::test(start_paused = true)]
async fn a_bad_network_loses_nothing_for_good() {
    let impairment = Impairment {
        rate: 1_000_000,
        queue: 50_000,
        delay: Duration::from_millis(25),
        jitter: Duration::from_millis(2),
        loss: Loss::Random(0.01),
        reorder: 0.02,
        reorder_delay: Duration::from_millis(5),
        duplicate: 0.01,
        corrupt: 0.005,
    };
    let (left, right) = link::pair(Capabilities::plain(1500));
    let took = send_over(left, Impaired::new(right, impairment, impairment, 7)).await;
    // A megabyte at a megabyte a second and 50 ms of round trip, in virtual time.
    assert!((1..20).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn delay_is_what_was_asked_for() {
    let impairment = Impairment {
        delay: Duration::from_millis(100),
        ..Impairment::default()
    };
    let (left, right) = link::pair(Capabilities::plain(1500));
    let (server, driver) = Stack::builder().address([10, 0, 0, 1], 24).build(left).unwrap();
    tokio::spawn(driver);
    let link = Impaired::new(right, impairment, impairment, 1);
    let (client, driver) = Stack::builder().address([10, 0, 0, 2], 24).build(link).unwrap();
    tokio::spawn(driver);
    let _listener = TcpListener::bind(&server, addr(SERVER)).unwrap();
    let start = tokio::time::Instant::now();
    TcpStream::connect(&client, addr(SERVER)).await.unwrap();
    let took = start.elapsed().as_millis();
    assert!((200..=203).contains(&took), "one round trip takes {took} ms");
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_the_speed_and_super_segments_are_packets_there() {
    let impairment = Impairment {
        rate: 1_250_000,
        queue: 250_000,
        delay: Duration::from_millis(5),
        ..Impairment::default()
    };
    let whole = Capabilities {
        checksum_offload: true,
        segmentation_offload: true,
        datagram_offload: true,
        ..Capabilities::plain(1500)
    };
    let (left, right) = link::pair(whole);
    // The sender is behind the bad network, and knows nothing of it.
    let link = Impaired::new(left, impairment, impairment, 7);
    let counts = link.counts();
    let took = send_over(link, right).await.as_secs_f64();
    let [_, received] = counts.read();
    let segments = (1 << 20) / 1460;
    assert!(received.sent > segments, "{received:?}");
    let expected = f64::from(1 << 20) / 1_250_000.0;
    assert!((expected..expected * 1.15).contains(&took), "{took} s");
}

/// Writes a capture that can be read afterwards.
#[derive(Clone)]
struct Recorder(Arc<Mutex<CaptureWriter<Vec<u8>>>>);

impl Observer for Recorder {
    fn observe(&mut self, direction: Direction, packet: Packet<'_>) {
        let direction = match direction {
            Direction::In => portolan_capture::Direction::In,
            Direction::Out => portolan_capture::Direction::Out,
        };
        let packet = CapturedPacket {
            time: Default::default(),
            direction,
            missing: 0,
            comment: "",
            bytes: packet.bytes,
        };
        self.0.lock().unwrap().packet(&packet).unwrap();
    }
}

#[tokio::test]
async fn what_passes_a_tap_is_a_capture() {
    let (left, right) = link::pair(Capabilities::plain(1500));
    let writer = CaptureWriter::new(Vec::new(), &CaptureInterface::default()).unwrap();
    let recorder = Recorder(Arc::new(Mutex::new(writer)));
    send_over(left, Tap::new(right, recorder.clone())).await;
    let bytes = recorder.0.lock().unwrap().sink().clone();

    let mut reader = CaptureReader::new(&bytes[..]).unwrap();
    let mut packets = 0;
    while reader.next_frame().unwrap().is_some() {
        packets += 1;
    }
    assert!(packets > 725, "{packets} packets make a megabyte");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    for (tool, arguments) in [("tcpdump", &["-nr"][..]), ("tshark", &["-nr"])] {
        let output = match Command::new(tool).args(arguments).arg(file.path()).output() {
            Ok(output) => output,
            Err(error) => {
                println!("skipped: {tool} cannot be run: {error}");
                continue;
            }
        };
        assert!(
            output.status.success(),
            "{tool}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        assert_eq!(lines, packets, "{tool}");
    }
}
