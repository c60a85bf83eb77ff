//! Published ports as text: those that follow each other as one, since a space may have all 65,535.

use std::net::SocketAddr;

use portolan_gateway::control::PublishedItem;

/// `127.0.0.1:8080->80/tcp`, `8080-8089->80-89/tcp`, `8080->8080/tcp(auto)`, in the order of ports.
pub(super) fn shown(items: &[PublishedItem]) -> Vec<String> {
    let mut items: Vec<&PublishedItem> = items.iter().collect();
    items.sort_by_key(|item| (&item.protocol, item.host.address, item.host.port));
    items.chunk_by(|one, next| follows(one, next)).map(run).collect()
}

fn follows(one: &PublishedItem, next: &PublishedItem) -> bool {
    (&one.protocol, one.host.address, one.auto) == (&next.protocol, next.host.address, next.auto)
        && one.host.port.checked_add(1) == Some(next.host.port)
        && one.inner.port.checked_add(1) == Some(next.inner.port)
}

/// Items that follow each other.
fn run(items: &[&PublishedItem]) -> String {
    let (first, last) = (items[0], items[items.len() - 1]);
    let place = match first.host.address {
        None => first.host.port.to_string(),
        Some(address) => SocketAddr::new(address, first.host.port).to_string(),
    };
    let [outer, inner] = [
        (first.host.port, last.host.port),
        (first.inner.port, last.inner.port),
    ]
    .map(|(first, last)| {
        if first == last {
            String::new()
        } else {
            format!("-{last}")
        }
    });
    let mark = if first.auto { "(auto)" } else { "" };
    format!(
        "{place}{outer}->{}{inner}/{}{mark}",
        first.inner.port, first.protocol
    )
}

#[cfg(test)]
mod tests {
    use portolan_gateway::control::{HostEnd, InnerEnd};

    use super::*;

    fn item(protocol: &str, address: Option<&str>, port: u16, inner: u16, auto: bool) -> PublishedItem {
        PublishedItem {
            protocol: protocol.to_owned(),
            host: HostEnd {
                address: address.map(|address| address.parse().unwrap()),
                port,
            },
            inner: InnerEnd { port: inner },
            auto,
        }
    }

    #[test]
    fn ports_that_follow_each_other_are_one() {
        let mut items = vec![
            item("udp", Some("::1"), 8080, 80, false),
            item("tcp", None, 8082, 82, false),
            item("tcp", None, 8080, 80, false),
            item("tcp", None, 8081, 81, false),
            item("tcp", None, 8083, 90, false),
            item("tcp", None, 9000, 9000, true),
            item("tcp", None, 9001, 9001, false),
        ];
        assert_eq!(
            shown(&items),
            [
                "8080-8082->80-82/tcp",
                "8083->90/tcp",
                "9000->9000/tcp(auto)",
                "9001->9001/tcp",
                "[::1]:8080->80/udp",
            ]
        );
        items = (1..=u16::MAX)
            .map(|port| item("tcp", None, port, port, false))
            .collect();
        assert_eq!(shown(&items), ["1-65535->1-65535/tcp"]);
        assert!(shown(&[]).is_empty());
    }
}
