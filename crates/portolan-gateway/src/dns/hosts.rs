use std::collections::HashMap;
use std::net::IpAddr;

/// The names of a hosts(5) file. Loopback is left out: it is another host's there than here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    addresses: HashMap<Box<str>, Vec<IpAddr>>,
}

impl Hosts {
    /// How many names are kept.
    const NAMES_MAX: usize = 65_536;

    /// The addresses of a name in lower case.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.addresses.get(name).cloned()
    }
}

/// Reads what it can: a line that makes no sense is passed over, as by the C library.
impl From<&str> for Hosts {
    fn from(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            if address.to_canonical().is_loopback() {
                continue;
            }
            for name in words {
                if hosts.addresses.len() == Self::NAMES_MAX {
                    return hosts;
                }
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                let addresses = hosts.addresses.entry(name.into()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_all_their_addresses_and_loopback_has_none() {
        let text = "127.0.0.1 localhost\n127.0.1.1 me\n# 192.0.2.9 no\n192.0.2.1 Web web.example. # two\n\
            2001:db8::1\tweb\nnonsense web\n192.0.2.1 web\n";
        let hosts = Hosts::from(text);
        let ips = |texts: &[&str]| {
            Some(
                texts
                    .iter()
                    .map(|text| text.parse().unwrap())
                    .collect::<Vec<IpAddr>>(),
            )
        };
        assert_eq!(hosts.addresses("web"), ips(&["192.0.2.1", "2001:db8::1"]));
        assert_eq!(hosts.addresses("web.example"), ips(&["192.0.2.1"]));
        assert_eq!(hosts.addresses("me"), None);
        assert_eq!(hosts.addresses("no"), None);
    }
}
