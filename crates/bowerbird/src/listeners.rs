//! The addresses that this process serves on, bound before anything else is started.
//!
//! A port that is taken is then told at once, and nobody who comes early is turned away: the kernel lets them wait.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Bind `address`, or say which setting to change.
pub(crate) async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::Unavailable(format!(
            "{key}: {address} is taken by another program; stop that program or set {key} to a free address"
        )),
        io::ErrorKind::AddrNotAvailable => Failure::Settings(format!(
            "{key}: this machine has no address {}; set {key} to one that it has, or to 0.0.0.0 for all",
            address.ip()
        )),
        io::ErrorKind::PermissionDenied => Failure::Settings(format!(
            "{key}: this user may not listen on port {}; set {key} to a port above 1023",
            address.port()
        )),
        _ => Failure::Unavailable(format!("{key}: cannot listen on {address}: {error}")),
    })
}

/// The address that a listener really has, which differs from the asked one for port 0.
pub(crate) fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_its_setting() {
        let first = bind("gateway.listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken = first.local_addr().unwrap();
        let refused = bind("gateway.listen", taken).await.unwrap_err();
        assert!(matches!(&refused, Failure::Unavailable(sentence) if sentence.contains("gateway.listen")), "{refused}");
        let foreign = bind("storage.listen", "192.0.2.1:9000".parse().unwrap()).await.unwrap_err();
        assert!(matches!(&foreign, Failure::Settings(sentence) if sentence.contains("192.0.2.1")), "{foreign}");
    }
}
