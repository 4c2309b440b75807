//! A session's view of its mailbox: which Uid each sequence number stands for.
//!
//! The mailbox changes under the session, but its numbers may change only where the client is told (RFC 3501 §7.4.1,
//! RFC 9051 §7.5.1: no EXPUNGE while FETCH, STORE or SEARCH is answered). So what others removed or added waits here until
//! the session says which answers are permitted. Runs of consecutive Uids take twelve octets, however long they are.

use posthouse_mail::{SeqNum, Uid};

use super::sequence::RangeSet;

/// Messages with consecutive Uids and consecutive sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    uid: u32,
    seq: u32,
    len: u32,
}

impl Run {
    fn last_uid(self) -> u32 {
        self.uid + (self.len - 1)
    }
}

/// What the client may be told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// New messages, but nothing that moves a number.
    Arrivals,
    /// Everything: the command is none of FETCH, STORE, SEARCH.
    All,
}

/// What the client must be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// EXPUNGE responses in this order: from the highest, so that each number is right when it is read.
    pub expunged: Vec<SeqNum>,
    /// The new EXISTS, where it changed.
    pub exists: Option<u32>,
}

/// A view as plain numbers: how it leaves its process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The first Uid and the number of messages of each run.
    pub runs: Vec<(u32, u32)>,
    pub arrived: Vec<u32>,
    pub gone: Vec<u32>,
}

/// The view, with the changes that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeqView {
    runs: Vec<Run>,
    /// Uids above all that the client knows of, ascending.
    arrived: Vec<u32>,
    /// Uids that the client counts and the store has no more, ascending.
    gone: Vec<u32>,
}

impl SeqView {
    /// The mailbox at SELECT, Uids ascending.
    pub fn new(uids: impl IntoIterator<Item = Uid>) -> Self {
        let mut view = Self::default();
        uids.into_iter().for_each(|uid| view.append(uid.get()));
        view
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            runs: self.runs.iter().map(|run| (run.uid, run.len)).collect(),
            arrived: self.arrived.clone(),
            gone: self.gone.clone(),
        }
    }

    /// The view that a snapshot was taken of; `None` where no session could have had it.
    pub fn restore(snapshot: Snapshot) -> Option<Self> {
        let Snapshot { runs, arrived, gone } = snapshot;
        let mut view = Self::default();
        for (uid, len) in runs {
            let above = view.last_uid().map_or(0, Uid::get);
            let seq = view.exists().checked_add(1)?;
            if uid <= above || len == 0 || uid.checked_add(len - 1).is_none() || seq.checked_add(len - 1).is_none() {
                return None;
            }
            view.runs.push(Run { uid, seq, len });
        }
        let is_ascending = |uids: &[u32]| uids.iter().zip(uids.iter().skip(1)).all(|(one, next)| one < next);
        let has_arrived = |uid: &u32| *uid > view.last_uid().map_or(0, Uid::get);
        let is_counted = |uid: &u32| Uid::new(*uid).and_then(|uid| view.seq_of(uid)).is_some();
        let is_sound = is_ascending(&arrived) && is_ascending(&gone);
        if !is_sound || !arrived.iter().all(has_arrived) || !gone.iter().all(is_counted) {
            return None;
        }
        Some(Self { arrived, gone, ..view })
    }

    /// Messages that the client counts.
    pub fn exists(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.seq + (run.len - 1))
    }

    pub fn last_uid(&self) -> Option<Uid> {
        self.runs.last().and_then(|run| Uid::new(run.last_uid()))
    }

    pub fn uid_of(&self, seq: SeqNum) -> Option<Uid> {
        let after = self.runs.partition_point(|run| run.seq <= seq.get());
        let run = self.runs.get(after.checked_sub(1)?)?;
        let place = seq.get() - run.seq;
        if place < run.len { Uid::new(run.uid + place) } else { None }
    }

    pub fn seq_of(&self, uid: Uid) -> Option<SeqNum> {
        let after = self.runs.partition_point(|run| run.uid <= uid.get());
        let run = self.runs.get(after.checked_sub(1)?)?;
        let place = uid.get() - run.uid;
        if place < run.len { SeqNum::new(run.seq + place) } else { None }
    }

    /// Numbers and Uids of all messages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (SeqNum, Uid)> + '_ {
        self.runs.iter().flat_map(|run| {
            (0..run.len).filter_map(|place| Some((SeqNum::new(run.seq + place)?, Uid::new(run.uid + place)?)))
        })
    }

    /// The messages with these sequence numbers.
    pub fn by_seq<'a>(&'a self, set: &'a RangeSet) -> impl Iterator<Item = (SeqNum, Uid)> + 'a {
        self.select(set, |run| run.seq)
    }

    /// The messages with these Uids; Uids that no message has are passed over (RFC 3501 §6.4.8).
    pub fn by_uid<'a>(&'a self, set: &'a RangeSet) -> impl Iterator<Item = (SeqNum, Uid)> + 'a {
        self.select(set, |run| run.uid)
    }

    fn select<'a>(
        &'a self,
        set: &'a RangeSet,
        first: impl Fn(&Run) -> u32 + Copy + 'a,
    ) -> impl Iterator<Item = (SeqNum, Uid)> + 'a {
        set.ranges().iter().flat_map(move |range| {
            let begin = self.runs.partition_point(|run| first(run) + (run.len - 1) < *range.start());
            let end = *range.end();
            self.runs[begin..].iter().take_while(move |run| first(run) <= end).flat_map(move |run| {
                let from = range.start().saturating_sub(first(run));
                let to = (end - first(run)).min(run.len - 1);
                (from..=to).filter_map(|place| Some((SeqNum::new(run.seq + place)?, Uid::new(run.uid + place)?)))
            })
        })
    }

    /// Another session or a delivery added a message.
    pub fn arrive(&mut self, uid: Uid) {
        let newest = self.arrived.last().copied().or(self.last_uid().map(Uid::get));
        if newest.is_none_or(|newest| newest < uid.get()) {
            self.arrived.push(uid.get());
        }
    }

    /// A message was removed, by this session or another.
    pub fn remove(&mut self, uid: Uid) {
        let uid = uid.get();
        if let Ok(place) = self.arrived.binary_search(&uid) {
            self.arrived.remove(place);
        } else if Uid::new(uid).and_then(|uid| self.seq_of(uid)).is_some()
            && let Err(place) = self.gone.binary_search(&uid)
        {
            self.gone.insert(place, uid);
        }
    }

    /// Counted by the client, but removed.
    pub fn is_gone(&self, uid: Uid) -> bool {
        self.gone.binary_search(&uid.get()).is_ok()
    }

    /// Changes that wait.
    pub fn waiting(&self) -> usize {
        self.arrived.len() + self.gone.len()
    }

    /// Applies what is permitted and says what to tell.
    pub fn apply(&mut self, permit: Permit) -> Told {
        let mut told = Told::default();
        if permit == Permit::All && !self.gone.is_empty() {
            let gone = std::mem::take(&mut self.gone);
            let numbers = gone.iter().rev().filter_map(|&uid| self.seq_of(Uid::new(uid)?));
            told.expunged = numbers.collect();
            self.cut(&gone);
        }
        if !self.arrived.is_empty() {
            let arrived = std::mem::take(&mut self.arrived);
            arrived.into_iter().for_each(|uid| self.append(uid));
            told.exists = Some(self.exists());
        }
        told
    }

    fn append(&mut self, uid: u32) {
        let seq = self.exists() + 1;
        match self.runs.last_mut() {
            Some(run) if run.last_uid().checked_add(1) == Some(uid) => run.len += 1,
            Some(run) if run.last_uid() >= uid => {}
            _ => self.runs.push(Run { uid, seq, len: 1 }),
        }
    }

    /// Rebuilds the runs without the Uids given, in one pass.
    fn cut(&mut self, gone: &[u32]) {
        let old = std::mem::take(&mut self.runs);
        let mut gone = gone.iter().copied().peekable();
        for run in old {
            let end = u64::from(run.uid) + u64::from(run.len);
            let mut first = u64::from(run.uid);
            while let Some(uid) = gone.next_if(|&uid| u64::from(uid) < end) {
                let uid = u64::from(uid);
                if uid >= first {
                    self.push_run(first, uid);
                    first = uid + 1;
                }
            }
            self.push_run(first, end);
        }
    }

    /// Keeps the Uids from `first` up to but not including `end`.
    fn push_run(&mut self, first: u64, end: u64) {
        let seq = self.exists() + 1;
        if let (Ok(uid), Ok(len)) = (u32::try_from(first), u32::try_from(end.saturating_sub(first)))
            && len > 0
        {
            self.runs.push(Run { uid, seq, len });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uid(number: u32) -> Uid {
        Uid::new(number).expect("not zero")
    }

    fn view(uids: &[u32]) -> SeqView {
        SeqView::new(uids.iter().copied().map(uid))
    }

    fn uids(view: &SeqView) -> Vec<u32> {
        view.iter().map(|(_, uid)| uid.get()).collect()
    }

    #[test]
    fn numbers_do_not_move_until_it_is_permitted() {
        let mut view = view(&[10, 11, 12, 20]);
        view.remove(uid(11));
        view.arrive(uid(21));
        let told = view.apply(Permit::Arrivals);
        assert_eq!((told.expunged.len(), told.exists), (0, Some(5)));
        assert_eq!(view.uid_of(SeqNum::new(2).expect("not zero")), Some(uid(11)));
        assert!(view.is_gone(uid(11)));
        let told = view.apply(Permit::All);
        assert_eq!(told.expunged.iter().map(|n| n.get()).collect::<Vec<_>>(), [2]);
        assert_eq!(told.exists, None);
        assert_eq!(uids(&view), [10, 12, 20, 21]);
    }

    #[test]
    fn expunges_are_told_from_the_highest() {
        let mut view = view(&[1, 2, 3, 4, 5]);
        [2, 5, 3].into_iter().for_each(|number| view.remove(uid(number)));
        let told = view.apply(Permit::All);
        assert_eq!(told.expunged.iter().map(|n| n.get()).collect::<Vec<_>>(), [5, 3, 2]);
        assert_eq!(uids(&view), [1, 4]);
    }

    #[test]
    fn a_message_that_came_and_went_is_never_told() {
        let mut view = view(&[1]);
        view.arrive(uid(2));
        view.remove(uid(2));
        assert_eq!(view.apply(Permit::All), Told::default());
    }

    #[test]
    fn sets_select_what_exists() {
        let view = view(&[10, 11, 12, 20, 30]);
        let select = |set: RangeSet| view.by_uid(&set).map(|(seq, uid)| (seq.get(), uid.get())).collect::<Vec<_>>();
        assert_eq!(select(RangeSet::from_ranges([1..=11, 15..=25])), [(1, 10), (2, 11), (4, 20)]);
        assert_eq!(select(RangeSet::from_ranges([40..=u32::MAX])), []);
        let set = RangeSet::from_ranges([2..=4]);
        assert_eq!(view.by_seq(&set).map(|(_, uid)| uid.get()).collect::<Vec<_>>(), [11, 12, 20]);
    }

    #[test]
    fn a_snapshot_that_no_session_could_have_is_refused() {
        let mut view = view(&[10, 11, 12, 20]);
        view.remove(uid(11));
        view.arrive(uid(21));
        let sound = view.snapshot();
        assert_eq!(SeqView::restore(sound.clone()), Some(view));
        let wrong = |change: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = sound.clone();
            change(&mut snapshot);
            assert_eq!(SeqView::restore(snapshot.clone()), None, "{snapshot:?}");
        };
        wrong(&|snapshot| snapshot.runs[0] = (0, 3));
        wrong(&|snapshot| snapshot.runs[0] = (10, 0));
        wrong(&|snapshot| snapshot.runs[0] = (10, 11));
        wrong(&|snapshot| snapshot.runs[1] = (u32::MAX, 2));
        wrong(&|snapshot| snapshot.runs = vec![(1, u32::MAX), (1, 1)]);
        wrong(&|snapshot| snapshot.arrived = vec![20]);
        wrong(&|snapshot| snapshot.arrived = vec![22, 21]);
        wrong(&|snapshot| snapshot.gone = vec![13]);
        wrong(&|snapshot| snapshot.gone = vec![0]);
    }

    #[test]
    fn the_last_uid_of_all_is_no_trap() {
        let mut view = view(&[u32::MAX - 1, u32::MAX]);
        assert_eq!(view.exists(), 2);
        view.remove(uid(u32::MAX));
        view.apply(Permit::All);
        assert_eq!(uids(&view), [u32::MAX - 1]);
    }

    proptest! {
        #[test]
        fn a_client_that_follows_what_it_is_told_sees_the_same(
            start in prop::collection::btree_set(1u32..60, 0..30),
            removals in prop::collection::vec(1u32..80, 0..40),
            arrivals in prop::collection::btree_set(60u32..80, 0..10),
        ) {
            let mut view = SeqView::new(start.iter().copied().map(uid));
            let mut client: Vec<u32> = start.iter().copied().collect();
            let mut store = start.clone();
            for (i, &number) in arrivals.iter().enumerate() {
                view.arrive(uid(number));
                store.insert(number);
                for &removal in removals.iter().skip(i).step_by(arrivals.len()) {
                    view.remove(uid(removal));
                    store.remove(&removal);
                }
                let permit = if i % 2 == 0 { Permit::Arrivals } else { Permit::All };
                let told = view.apply(permit);
                for seq in &told.expunged {
                    client.remove(seq.get() as usize - 1);
                }
                if told.exists.is_some() {
                    client = uids(&view);
                }
                prop_assert_eq!(&client, &uids(&view));
            }
            prop_assert_eq!(SeqView::restore(view.snapshot()), Some(view.clone()));
            view.apply(Permit::All);
            let mut left: Vec<u32> = uids(&view);
            left.retain(|number| !store.contains(number));
            prop_assert!(left.is_empty());
            for (seq, number) in view.iter() {
                prop_assert_eq!(view.uid_of(seq), Some(number));
                prop_assert_eq!(view.seq_of(number), Some(seq));
            }
        }
    }
}
