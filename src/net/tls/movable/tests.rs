//! The movable stream: its records alone, whole connections with rustls clients, and the octets of its frozen form.

mod client;
mod connection;
mod golden;
mod records;
mod resumption;
