//! Codecs and protocol machines without I/O.
