//! Outbound TCP: one address, one deadline.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Error;
use crate::transport::Transport;

/// Opens a connection within `limit`.
pub async fn connect(address: SocketAddr, limit: Duration) -> Result<Transport, Error> {
    let stream = timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| Error::ConnectTimeout { address })?
        .map_err(|source| Error::Connect { address, source })?;
    Transport::plain(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Listener;

    #[tokio::test]
    async fn a_closed_port_is_an_error_that_names_it() {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 16).expect("a free port");
        let address = listener.local_addr();
        let (made, accepted) = tokio::join!(connect(address, Duration::from_secs(5)), listener.accept());
        assert_eq!(made.expect("a connection").local_addr(), accepted.peer_addr());
        drop(listener);
        let error = connect(address, Duration::from_secs(5)).await.expect_err("nobody listens");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
