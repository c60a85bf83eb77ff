//! The same client scripts on the host and in a space, at three hops from their server: what they observe, and what the
//! server does.

use std::collections::BTreeMap;

use crate::network::{in_network, script};

/// Routers that say no, a path that takes less than the device, and a host behind them.
const NETWORK: &str = include_str!("scripts/far.sh");

#[test]
fn a_client_sees_the_same_inside_as_on_the_host() {
    let programs = ["python3", "ip", "nsenter", "ping"];
    in_network(
        "differential::a_client_sees_the_same_inside_as_on_the_host",
        &programs,
        || {
            let said = script(NETWORK);
            let (host, inside) = said.split_once("=====\n").expect("both have run");
            let (host, inside) = (observations(host), observations(inside));
            assert!(host.len() > 200, "{host:?}");
            assert_eq!(Vec::from_iter(host.keys()), Vec::from_iter(inside.keys()));
            let others = host
                .iter()
                .zip(inside.values())
                .filter(|((_, there), here)| there != here);
            let others: Vec<_> = others
                .map(|((what, there), here)| format!("{what}: on the host {there:?}, inside {here:?}"))
                .collect();
            assert!(others.is_empty(), "{}", others.join("\n"));
            println!("note: {} observations, all the same", host.len());
        },
    );
}

/// What was observed: `IPv4 half_close: near: …`; what a script observes several times comes in order.
fn observations(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut observations = BTreeMap::<String, Vec<String>>::new();
    for line in text.lines().filter(|line| line.starts_with("IPv")) {
        let (script, rest) = line.split_once(": ").unwrap();
        let (what, text) = rest.split_once(": ").unwrap_or(("failed", rest));
        observations
            .entry(format!("{script}: {what}"))
            .or_default()
            .push(text.to_owned());
    }
    observations
}
