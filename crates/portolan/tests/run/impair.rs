//! A bad network around the program.

use std::io::Read as _;
use std::time::{Duration, Instant};

use crate::served::Served;
use crate::users::{as_each_user, has_python, skipped};
use crate::{run, stderr, stdout};

#[test]
fn a_byte_takes_the_delay_each_way() {
    as_each_user("impair::a_byte_takes_the_delay_each_way", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let served = Served::new(&["--impair", "delay 150ms", "--seed", "7"], 0);
        let (_, took) = served.ask();
        assert!(took >= Duration::from_millis(300), "{took:?}");
        let served = Served::new(&["--impair", "in:delay 150ms", "--seed", "7"], 0);
        let quickest = (0..5).map(|_| served.ask().1).min().unwrap();
        assert!(quickest >= Duration::from_millis(150), "{quickest:?}");
    });
}

#[test]
fn nothing_is_faster_than_the_rate() {
    as_each_user("impair::nothing_is_faster_than_the_rate", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let len = 2_500_000;
        let served = Served::new(&["--impair", "rate 10mbit", "--seed", "7"], len);
        let (mut stream, _) = served.ask();
        let start = Instant::now();
        let mut data = Vec::new();
        stream.read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), len);
        // Two seconds, if the segments had no headers.
        let took = start.elapsed().as_secs_f64();
        println!("{:.2} Mbit/s of 10", len as f64 * 8.0 / took / 1e6);
        assert!(took > 1.9, "{took} s");
        assert!(took < 30.0, "{took} s");
    });
}

#[test]
fn one_direction_loses_all_and_the_report_says_so() {
    as_each_user("impair::one_direction_loses_all_and_the_report_says_so", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report");
        let dial = "import socket\ntry: socket.create_connection(('203.0.113.9', 25), 1)\nexcept OSError as error: print(error)";
        let arguments = [
            "-v",
            "run",
            "--no-out",
            "--impair",
            "out:loss 100%",
            "--seed",
            "9",
            "--report",
        ];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_portolan"));
        let output = command
            .args(arguments)
            .arg(&file)
            .args(["--", "python3", "-c", dial])
            .output()
            .unwrap();
        // Without the loss it would be told at once that it may not.
        assert_eq!(stdout(&output), "timed out\n", "{}", stderr(&output));
        assert!(stderr(&output).contains("impaired: out: "), "{}", stderr(&output));
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let impaired = &report["impaired"];
        assert_eq!(impaired["seed"], 9);
        assert_eq!(impaired["in"]["lost"], 0);
        assert!(impaired["out"]["lost"].as_u64().unwrap() > 0);
        assert_eq!(impaired["out"]["lost"], impaired["out"]["packets"]);
        assert_eq!(report["denied"].as_array().unwrap().len(), 0);
    });
}

#[test]
fn what_is_no_network_is_told_before_anything_runs() {
    let output = run(&["--impair", "delay 50ms, loss 1", "--", "echo", "ran"]);
    let text = stderr(&output);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{text}");
    assert!(text.contains("at 18") && text.contains("as in 0.5%"), "{text}");
    assert!(text.lines().count() == 1 && text.len() < 400, "{text}");
}
