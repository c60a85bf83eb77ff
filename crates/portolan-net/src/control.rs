//! What a host's administrator asks for: the filter, the list of all sockets, how connections behave.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_core::filter::{Filter, Hook};
use portolan_core::wire::IpProtocol;
use portolan_stack::{SocketInfo, SocketState, TcpConfig};

use crate::Stack;

/// How often the rules of a hook decided since the filter was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// Of each rule, in the order of the chain.
    pub rules: Vec<u64>,
    /// Where no rule did.
    pub policy: u64,
}

impl Stack {
    /// Sets the packet filter before and behind the sockets, or removes it. It counts from the next packet on, for flows
    /// that exist too: each is asked about once more, as established. To let them live, let the first rule accept what is
    /// established.
    pub fn set_filter(&self, filter: Option<Filter>) {
        let filter = filter.map(Arc::new);
        for shard in self.shards() {
            shard.act(|core, _| core.engine.set_filter(filter.clone()));
        }
    }

    /// The packet filter, if there is one.
    #[must_use]
    pub fn filter(&self) -> Option<Arc<Filter>> {
        self.shards()[0].look(|core| core.engine.filter().cloned())
    }

    /// How often the rules of a hook decided since the filter was set, over all shards.
    #[must_use]
    pub fn rule_hits(&self, hook: Hook) -> RuleHits {
        let mut sum = RuleHits::default();
        for shard in self.shards() {
            shard.look(|core| {
                let hits = core.engine.rule_hits(hook);
                sum.rules.resize(sum.rules.len().max(hits.rules.len()), 0);
                for (all, own) in sum.rules.iter_mut().zip(hits.rules) {
                    *all += own;
                }
                sum.policy += hits.policy;
            });
        }
        sum
    }

    /// All sockets: listeners, what is half-open, connections, TIME-WAIT, UDP, ICMP echo. What is in every shard, as a
    /// listener is, is one, with the queues of all.
    ///
    /// Each shard stands still while its sockets are listed, some hundred nanoseconds for each. Handles and times are of
    /// the shards' engines, and mean nothing here.
    #[must_use]
    pub fn sockets(&self) -> Vec<SocketInfo> {
        let mut all: Vec<SocketInfo> = Vec::new();
        // Where those are in `all` that are in every shard: with the same ends there may be several.
        let mut places: HashMap<_, Vec<usize>> = HashMap::new();
        for shard in self.shards() {
            let mut seen: HashMap<_, usize> = HashMap::new();
            shard.look(|core| {
                for socket in core.engine.sockets() {
                    let is_tcp = socket.protocol == IpProtocol::TCP;
                    if is_tcp && socket.state != SocketState::Listen {
                        all.push(socket);
                        continue;
                    }
                    let key = (socket.protocol, socket.local, socket.remote, socket.scope);
                    let nth = seen.entry(key).or_default();
                    let places = places.entry(key).or_default();
                    match places.get(*nth) {
                        Some(&place) => {
                            all[place].receive_queue += socket.receive_queue;
                            // Of a listener this is the backlog, which each shard has for itself.
                            all[place].send_queue += socket.send_queue;
                        }
                        None => {
                            places.push(all.len());
                            all.push(socket);
                        }
                    }
                    *nth += 1;
                }
            });
        }
        all
    }

    /// How connections behave that were not told otherwise.
    #[must_use]
    pub fn tcp_config(&self) -> TcpConfig {
        self.shards()[0].look(|core| *core.engine.tcp_config())
    }

    /// Changes how connections behave that were not told otherwise, those there are included. What was agreed on in a
    /// handshake stays.
    pub fn set_tcp_config(&self, config: TcpConfig) {
        for shard in self.shards() {
            shard.act(|core, _| core.engine.set_tcp_config(config));
        }
    }
}
