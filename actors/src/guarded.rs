//! The operator's rules for what may be dialled, as every guarded client of this room has them.

use std::net::SocketAddr;

use bowerbird_config::Outbound;
use bowerbird_outbound::{AddressPolicy, ClientOptions, Timeouts};

/// What the settings say, with these listeners of our own closed.
pub(crate) fn options(outbound: &Outbound, own_listeners: &[SocketAddr]) -> ClientOptions {
    ClientOptions {
        policy: AddressPolicy::new(outbound.allow.clone(), outbound.deny.clone(), outbound.ports.clone(), own_listeners.to_vec()),
        timeouts: Timeouts {
            dns: outbound.dns_timeout.get(),
            connect: outbound.connect_timeout.get(),
            first_byte: outbound.first_byte_timeout.get(),
            stall: outbound.stall_timeout.get(),
        },
        user_agent: outbound.user_agent.clone(),
        name_servers: outbound.name_servers.clone(),
        max_redirects: outbound.max_redirects,
        ..ClientOptions::default()
    }
}
