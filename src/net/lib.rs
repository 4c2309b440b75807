//! The only door to sockets and rustls.
