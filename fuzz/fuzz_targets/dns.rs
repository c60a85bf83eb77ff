//! Any bytes as a question of a program, as the reply of a resolver, and as the first bytes of a connection: what is made
//! of them ends, fits, and opens nothing of this host.
#![no_main]

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portolan_gateway::dns::fuzz_messages;
use portolan_gateway::gate::{FlowProtocol, Gate, HostFacts, Policy, SHOWN_BYTES_MAX, Shown, shown_name};

static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let policy: Policy = "allow *.example\nallow a.b".parse().expect("it is a policy");
    Gate::new(policy, HostFacts::default())
});

fuzz_target!(|input: (&[u8], &[u8])| {
    let (question, reply) = input;
    fuzz_messages(&GATE, question, reply);
    // A reply that fits the question gets further.
    let mut fitting = reply.to_vec();
    let same = question.len().min(fitting.len());
    fitting[..same].copy_from_slice(&question[..same]);
    if let Some(flags) = fitting.get_mut(2) {
        *flags |= 0x80;
    }
    if let (Some(answers), Some(more)) = (fitting.get_mut(7), reply.first()) {
        *answers = *more;
    }
    fuzz_messages(&GATE, question, &fitting);
    for closed in ["127.0.0.1", "::1", "169.254.169.254"] {
        let address: IpAddr = closed.parse().expect("it is an address");
        assert!(GATE.ask(FlowProtocol::Tcp, SocketAddr::new(address, 80)).is_err());
    }
    if let Shown::Name(name) = shown_name(reply) {
        assert!(!name.is_empty() && reply.len().min(SHOWN_BYTES_MAX) > name.len());
    }
});
