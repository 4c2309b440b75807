//! The version gate: which format of records may be written, so that every node that runs can read it.
//!
//! The gate's level and the nodes' ranges are rows. Registering and renewing read the gate in their own transaction and
//! refuse a node that cannot read its level; opening it reads every node row in the same way and refuses while one of them
//! is below. So whichever of the two commits first, the other sees it: no node ever meets a record that it cannot read.

use posthouse_mail::UnixMillis;

use crate::codec::{self, FORMAT_MAX, FORMAT_MIN};
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::{GateRow, NodeRow};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::boxed;

/// What every node reads, whatever the gate says.
pub(crate) const FORMAT_SURE: u8 = octet(FORMAT_MIN);

/// A version octet.
const fn octet(format: u32) -> u8 {
    assert!(format <= 0xff, "a format is one octet");
    format.to_le_bytes()[0]
}

/// Formats that a node reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    pub min: u32,
    /// The newest that it writes too, once the gate lets it.
    pub max: u32,
}

impl Formats {
    /// What this program reads, or what `cluster.format_max` leaves of it.
    pub fn up_to(format_max: u32) -> Result<Self, Error> {
        if !(FORMAT_MIN..=FORMAT_MAX).contains(&format_max) {
            return Err(Error::Invalid(
                "cluster.format_max is no format of this program; `posthouse version` tells them",
            ));
        }
        Ok(Self { min: FORMAT_MIN, max: format_max })
    }

    /// Whether a program with these formats reads records of this one.
    pub fn can_read(self, level: u32) -> Result<(), Error> {
        let [found, min, max] = [level, self.min, self.max].map(u64::from);
        match level {
            _ if level > self.max => Err(Error::NewerFormat { found, known: max }),
            _ if level < self.min => Err(Error::OlderFormat { found, known: min }),
            _ => Ok(()),
        }
    }
}

/// One run of a node: random, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u64);

impl Incarnation {
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

/// A node that wants to run on a store.
#[derive(Debug, Clone)]
pub struct Entry {
    pub incarnation: Incarnation,
    pub name: String,
    pub formats: Formats,
    pub now: UnixMillis,
}

/// A node that is known to others, with the right to write what the gate lets it.
#[derive(Clone)]
pub struct Membership {
    store: Store,
    entry: Entry,
}

/// A node row as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub incarnation: Incarnation,
    pub name: String,
    pub formats: Formats,
    pub heartbeat: u64,
}

impl Membership {
    /// Registers a node. The first ever makes the gate, at the format that every version reads.
    pub async fn enter(store: &Store, entry: Entry) -> Result<Self, Error> {
        let member = Self { store: store.clone(), entry };
        let entry = &member.entry;
        let level = store.transact(|txn| boxed(enter_in(txn, entry))).await?;
        member.adopt(level);
        Ok(member)
    }

    /// Tells the others that this node lives, and hears from the gate.
    pub async fn renew(&self) -> Result<u32, Error> {
        let level = self.store.transact(|txn| boxed(renew_in(txn, &self.entry))).await?;
        self.adopt(level);
        Ok(level)
    }

    /// Opens the gate to a format. `dead` are nodes whose end is proved: their rows go with the same transaction. Every
    /// other one has to read it, else `GateClosed` names the first that does not.
    pub async fn open(&self, level: u32, dead: &[Incarnation]) -> Result<u32, Error> {
        let level = self.store.transact(|txn| boxed(open_in(txn, (&self.entry, level), dead))).await?;
        self.adopt(level);
        Ok(level)
    }

    /// Every node that is registered, this one too.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let rows = codec::scan_all::<NodeRow>(&mut self.store.snapshot(), &keys::nodes()).await?;
        rows.into_iter().map(|(key, row)| read(&key, row)).collect()
    }

    /// On one node that nobody shares the store with: what other rows are left is of runs that were killed, and the gate
    /// opens to all that this program writes.
    pub async fn open_alone(&self) -> Result<u32, Error> {
        let others = self.members().await?.into_iter().map(|member| member.incarnation);
        let dead: Vec<Incarnation> = others.filter(|other| *other != self.entry.incarnation).collect();
        self.open(self.entry.formats.max, &dead).await
    }

    /// Takes the node's row away: it will not read or write any more.
    pub async fn leave(&self) -> Result<(), Error> {
        let incarnation = self.entry.incarnation;
        self.store.transact(|txn| boxed(remove(txn, incarnation))).await
    }

    fn adopt(&self, level: u32) {
        self.store.write_format(octet(level.min(self.entry.formats.max)));
    }
}

/// The gate's level; `None`: no node was ever here.
pub async fn level(store: &Store) -> Result<Option<u32>, Error> {
    let row = codec::get::<GateRow>(&mut store.snapshot(), &keys::gate()).await?;
    Ok(row.map(|row| row.level))
}

async fn gate(txn: &mut Transaction<'_>) -> Result<GateRow, Error> {
    let row = codec::get::<GateRow>(txn, &keys::gate()).await?;
    Ok(row.unwrap_or(GateRow { level: FORMAT_MIN, node_count: 0 }))
}

async fn enter_in(txn: &mut Transaction<'_>, entry: &Entry) -> Result<u32, Error> {
    let mut gate = gate(txn).await?;
    entry.formats.can_read(gate.level)?;
    let key = keys::node(entry.incarnation.0);
    if codec::get::<NodeRow>(txn, &key).await?.is_some() {
        // A repeat after an unknown outcome.
        return Ok(gate.level);
    }
    gate.node_count += 1;
    codec::put(txn, &keys::gate(), &gate)?;
    let row = NodeRow {
        name: entry.name.clone(),
        format_min: entry.formats.min,
        format_max: entry.formats.max,
        started_at: entry.now.0,
        heartbeat: 0,
    };
    codec::insert(txn, &key, &row)?;
    Ok(gate.level)
}

async fn renew_in(txn: &mut Transaction<'_>, entry: &Entry) -> Result<u32, Error> {
    let gate = gate(txn).await?;
    entry.formats.can_read(gate.level)?;
    let key = keys::node(entry.incarnation.0);
    // Others took it for dead: it has to register anew, under another incarnation.
    let mut row = codec::get::<NodeRow>(txn, &key).await?.ok_or(Error::NotFound)?;
    row.heartbeat += 1;
    codec::put(txn, &key, &row)?;
    Ok(gate.level)
}

async fn open_in(txn: &mut Transaction<'_>, (entry, level): (&Entry, u32), dead: &[Incarnation]) -> Result<u32, Error> {
    entry.formats.can_read(level)?;
    for incarnation in dead.iter().filter(|incarnation| **incarnation != entry.incarnation) {
        remove(txn, *incarnation).await?;
    }
    let mut gate = gate(txn).await?;
    // A level never falls: records of it are there.
    if level <= gate.level {
        return Ok(gate.level);
    }
    for (key, row) in codec::scan_all::<NodeRow>(txn, &keys::nodes()).await? {
        let member = read(&key, row)?;
        if member.formats.can_read(level).is_err() {
            return Err(Error::GateClosed { node: member.name, reads: member.formats.max });
        }
    }
    gate.level = level;
    codec::put(txn, &keys::gate(), &gate)?;
    Ok(level)
}

async fn remove(txn: &mut Transaction<'_>, incarnation: Incarnation) -> Result<(), Error> {
    let key = keys::node(incarnation.0);
    if codec::get::<NodeRow>(txn, &key).await?.is_none() {
        return Ok(());
    }
    codec::remove::<NodeRow>(txn, &key);
    let mut gate = gate(txn).await?;
    gate.node_count = gate.node_count.saturating_sub(1);
    codec::put(txn, &keys::gate(), &gate)
}

fn read(key: &[u8], row: NodeRow) -> Result<Member, Error> {
    let incarnation = KeyParts::of(key).u64().map(Incarnation);
    Ok(Member {
        incarnation: incarnation.ok_or_else(|| Error::Corrupt("a node row has no incarnation".to_owned()))?,
        name: row.name,
        formats: Formats { min: row.format_min, max: row.format_max },
        heartbeat: row.heartbeat,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{ALICE, Fixture, NOW};

    const OLD: Formats = Formats { min: 1, max: 1 };
    const NEW: Formats = Formats { min: 1, max: 2 };

    fn entry(number: u64, formats: Formats) -> Entry {
        Entry { incarnation: Incarnation::new(number), name: format!("node{number}"), formats, now: NOW }
    }

    #[tokio::test]
    async fn the_gate_waits_for_the_last_node_that_cannot_read_it() {
        let fixture = Fixture::new().await;
        let old = Membership::enter(&fixture.store, entry(1, OLD)).await.expect("the first");
        let new = Membership::enter(&fixture.store, entry(2, NEW)).await.expect("it reads what is there");
        assert_eq!(level(&fixture.store).await, Ok(Some(1)));
        assert_eq!(new.open(2, &[]).await, Err(Error::GateClosed { node: "node1".to_owned(), reads: 1 }));
        old.leave().await.expect("gone");
        old.leave().await.expect("gone already");
        assert_eq!(new.open(2, &[]).await, Ok(2));
        let refused = Error::NewerFormat { found: 2, known: 1 };
        assert_eq!(Membership::enter(&fixture.store, entry(3, OLD)).await.err(), Some(refused));
        assert_eq!(new.open(1, &[]).await, Ok(2), "a level never falls");
        fixture.assert_whole().await;
    }

    #[tokio::test]
    async fn a_node_that_lives_is_heard_and_one_that_is_behind_is_stopped() {
        let fixture = Fixture::new().await;
        let old = Membership::enter(&fixture.store, entry(1, OLD)).await.expect("the first");
        let new = Membership::enter(&fixture.store, entry(2, NEW)).await.expect("it reads what is there");
        assert_eq!(old.renew().await, Ok(1));
        let heartbeats: Vec<u64> = new.members().await.expect("read").iter().map(|member| member.heartbeat).collect();
        assert_eq!(heartbeats, [1, 0]);
        // Taken for dead while it lived: it hears so at its next renewal, before it meets what it cannot read.
        assert_eq!(new.open_alone().await, Ok(2));
        assert_eq!(old.renew().await, Err(Error::NewerFormat { found: 2, known: 1 }));
        assert_eq!(new.members().await.expect("read").len(), 1);
        assert_eq!(new.renew().await, Ok(2));
    }

    #[tokio::test]
    async fn racing_a_registration_the_gate_leaves_nobody_behind() {
        let fixture = Fixture::new().await;
        for round in 0..20 {
            let fixture = if round == 0 { &fixture } else { &Fixture::new().await };
            let new = Membership::enter(&fixture.store, entry(2, NEW)).await.expect("the first");
            let (opened, entered) = tokio::join!(new.open(2, &[]), Membership::enter(&fixture.store, entry(1, OLD)));
            assert_ne!(opened.is_ok(), entered.is_ok(), "round {round}");
        }
    }

    #[tokio::test]
    async fn records_bear_the_format_that_the_gate_lets_their_writer_write() {
        let fixture = Fixture::new().await;
        let octet_of = async || {
            let row = fixture.store.snapshot().get(&keys::account(ALICE)).await.expect("read");
            row.expect("alice")[0]
        };
        assert_eq!(octet_of().await, 1);
        let new = Membership::enter(&fixture.store, entry(2, NEW)).await.expect("the first");
        fixture.fill(1).await;
        assert_eq!(octet_of().await, 1, "the gate is at 1 still");
        new.open(2, &[]).await.expect("nobody is behind");
        fixture.fill(1).await;
        assert_eq!(octet_of().await, 2);
    }

    #[test]
    fn by_default_a_node_writes_what_it_can() {
        assert_eq!(posthouse_conf::section::cluster::Cluster::default().format_max, FORMAT_MAX);
    }

    #[test]
    fn only_formats_of_this_program_can_be_asked_for() {
        assert_eq!(Formats::up_to(FORMAT_MAX), Ok(Formats { min: FORMAT_MIN, max: FORMAT_MAX }));
        assert!(matches!(Formats::up_to(FORMAT_MAX + 1), Err(Error::Invalid(_))));
        assert!(matches!(Formats::up_to(0), Err(Error::Invalid(_))));
    }
}
