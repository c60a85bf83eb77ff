//! The spaces that this one is linked with.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use portolan_gateway::control::SpaceName;
use portolan_gateway::links::{LinkConfig, Links};
use portolan_space::{Keeper, Subnets};
use tokio::net::UnixStream;

use super::code::Code;
use crate::exit::Failure;
use crate::message;

/// The names that were given, each once.
pub(super) fn wanted(given: &[SpaceName]) -> Result<Vec<SpaceName>, Failure> {
    let mut names = given.to_vec();
    names.sort_unstable();
    names.dedup();
    if names.len() > Keeper::PEERS_MAX {
        let most = Keeper::PEERS_MAX;
        return Err(Failure::Usage(format!(
            "--link: a space has at most {most} links"
        )));
    }
    Ok(names)
}

/// Links of the space `own` with the others, which it sees at the addresses of these subnets.
pub(super) fn new(own: &SpaceName, others: Vec<SpaceName>, subnets: &[Subnets]) -> Links {
    let configs = others.into_iter().zip(subnets).map(|(name, subnets)| LinkConfig {
        name,
        addresses: addresses(subnets),
    });
    Links::new(own.clone(), configs.collect())
}

fn addresses(subnets: &Subnets) -> Vec<IpAddr> {
    super::inside_addresses(subnets)
}

/// Uses a connection to a linked space, in the runtime. What that has against it is said once.
pub(super) fn reach(links: &Links, place: usize, peer: OwnedFd) {
    let stream = StdUnixStream::from(peer);
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(stream));
    let (Some((link, name)), Ok(stream)) = (links.at(place), stream) else {
        return;
    };
    let links = links.clone();
    tokio::spawn(async move {
        if let Some(why) = links.reach(link, stream).await {
            let code = Code::NotLinked.word();
            message::say(&format!("no link with {}: {why} [{code}]", name.as_str()));
        }
    });
}
