//! What the built program does from the first byte to the last: mail in, mail read, mail out, commands, limits, kills.
//!
//! Apart from the transcripts because here the outcome counts, not the words.

mod admin;
mod backup;
mod deliver;
mod drain;
mod foundationdb;
mod judge;
mod leaving;
mod limits;
mod read;
mod restart;
mod search;
mod send;
mod signed;
mod site;
mod sleep;
mod upgrade;
mod upgrade_faults;
