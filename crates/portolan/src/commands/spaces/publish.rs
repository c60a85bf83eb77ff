//! Publishing a port of a running space: by the space, or by this process, if it takes a right that the space has given up.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use portolan_core::{Mapping, Protocol};
use portolan_gateway::control::{AskError, Client, Directory, HostEnd, PublishedItem, SpaceName};
use portolan_gateway::inbound::{Bound, PublishError, Refusal};
use portolan_space::sandbox;

use crate::commands::run::holder;
use crate::exit::Failure;

/// Has ports of a space published, and says which they are.
pub(super) fn publish(
    name: &SpaceName,
    mapping: &str,
    rights: &Rights,
) -> Result<Vec<PublishedItem>, Failure> {
    let take = |mapping: Mapping| rights.with(move || Bound::bind(&[mapping], &holder));
    Client::connect(&Directory::of_user(), name)
        .and_then(|mut client| client.publish(mapping, take))
        .map_err(|error| match error {
            AskError::Taken { protocol, host } => {
                let text = rights.with(move || taken(&protocol, &host));
                Failure::System(format!("{text} [port-in-use]"))
            }
            AskError::Publish(error) => refused(&error),
            error => super::failure(error),
        })
}

/// The rights that this process was started with, in a thread of their own. The first thread has given up its own: who has
/// more of them than the keeper of a space cannot be looked at by that, and is not let in.
pub(super) struct Rights {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
}

impl Rights {
    /// To be called by the first thread.
    pub(super) fn set_aside() -> Self {
        let (jobs, wanted) = channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || {
            for job in wanted {
                job();
            }
        });
        // Where it is refused, whoever has no rights is let in all the same.
        let _ = sandbox::be_seen();
        Self { jobs }
    }

    /// Does this with the rights, and waits for it.
    fn with<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || drop(done.send(job())));
        self.jobs
            .send(job)
            .expect("the thread takes jobs as long as there is `self`");
        result.recv().expect("a job sends its result")
    }
}

/// Why this process could not take a port either.
fn refused(error: &PublishError) -> Failure {
    let text = format!("{error} [{}]", error.code());
    match error {
        PublishError::Refused {
            refusal: Refusal::LowPort { .. },
            ..
        } => Failure::NotPermitted(text),
        _ => Failure::System(text),
    }
}

/// Why a port could not be published that somebody holds: who does, as far as this user sees it.
fn taken(protocol: &str, host: &HostEnd) -> String {
    let address = host.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let place = match host.address {
        Some(address) => SocketAddr::new(address, host.port).to_string(),
        None => host.port.to_string(),
    };
    let asked = match protocol {
        "udp" => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let holder = holder(asked, SocketAddr::new(address, host.port));
    format!("cannot publish {place}/{protocol}: {}", Refusal::InUse { holder })
}
