//! The movable stream: its records alone, whole connections with rustls clients, and the octets of its frozen form.

mod records;
