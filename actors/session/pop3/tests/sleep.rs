//! Sessions that sleep, and clients that do not notice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;
use crate::listener::fixture::Inn;
use crate::notice::Notices;
use crate::session::{Home, Parked, ResumeError, Resumed};

/// A moment after which a session sleeps.
const BRIEF: Span = Span::ms(5);

async fn inn(change: impl FnOnce(&mut Settings, &mut Told)) -> (Inn, Arc<Mutex<Told>>) {
    let (services, switch) = services(MESSAGES.to_vec(), |settings, told| {
        settings.node.sleep_after = BRIEF;
        change(settings, told);
    });
    let (settings, told) = (services.settings.clone(), services.maildrops.told.clone());
    (Inn::open(&settings, Notices::new(), switch, Arc::new(services)).await, told)
}

fn asked(told: &Arc<Mutex<Told>>) -> Vec<String> {
    let mut asked = told.lock().expect("no panic").asked.clone();
    asked.dedup();
    asked
}

const SCRIPT: &str = "CAPA\r\nUSER alice\r\nPASS demo\r\nDELE 1\r\nUIDL\r\nXX\r\nRETR 2\r\nTOP 1 1\r\nLIST\r\nQUIT\r\n";

#[tokio::test]
async fn a_session_that_sleeps_between_any_two_octets_answers_as_if_it_stayed_awake() {
    let (awake, _) = inn(|settings, _| settings.node.sleep_after = Span::secs(0)).await;
    let mut guest = awake.connect().await;
    guest.send(SCRIPT).await;
    let expect = guest.rest().await;
    assert!(expect.ends_with("2 13\r\n.\r\n+OK the marked messages are gone, goodbye\r\n"), "{expect}");
    for cut in (0..SCRIPT.len() - 26).step_by(3) {
        let (inn, told) = inn(|_, _| {}).await;
        let mut guest = inn.connect().await;
        let mut sent = 0;
        for end in [cut, cut + 4, cut + 25] {
            guest.send(&SCRIPT[sent..end]).await;
            inn.asleep(1).await;
            sent = end;
        }
        guest.send(&SCRIPT[sent..]).await;
        assert_eq!(guest.rest().await, expect, "cut at {cut}");
        let mut asked = asked(&told);
        asked.retain(|asked| asked != "renew");
        assert_eq!(asked, ["open", "remove [1]", "release"], "cut at {cut}");
    }
}

#[tokio::test]
async fn the_lock_is_renewed_in_time_and_free_when_the_client_is_gone() {
    let (inn, told) = inn(|settings, _| settings.pop3.lock_lease = Span::ms(200)).await;
    let (began, mut guest) = (Instant::now(), inn.connect().await);
    guest.send("USER alice\r\nPASS demo\r\n").await;
    guest.until("+OK maildrop").await;
    inn.asleep(1).await;
    let renewals = || told.lock().expect("no panic").asked.iter().filter(|asked| *asked == "renew").count();
    while renewals() < 3 {
        tokio::task::yield_now().await;
    }
    // Half of the lease each, not as often as it can.
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    inn.asleep(1).await;
    guest.reset();
    while asked(&told).last().is_none_or(|asked| asked != "release") {
        tokio::task::yield_now().await;
    }
    while inn.admission.connections_open() > 0 || inn.lodging.guests() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn autologout_closes_without_a_word_and_removes_nothing() {
    let (inn, told) = inn(|settings, _| settings.pop3.idle_timeout = Span::secs(4)).await;
    let (began, mut guest) = (Instant::now(), inn.connect().await);
    guest.send("USER alice\r\nPASS demo\r\nDELE 1\r\n").await;
    guest.until("+OK marked").await;
    inn.asleep(1).await;
    assert_eq!(guest.rest().await, "");
    assert!(began.elapsed() >= Duration::from_millis(3999), "{:?}", began.elapsed());
    assert_eq!(asked(&told), ["open", "release"]);
}

#[tokio::test]
async fn time_slept_is_time_passed() {
    for (minutes, heard) in [(9, "+OK nothing done"), (10, "")] {
        let (first, _) = inn(|_, _| {}).await;
        let mut guest = first.connect().await;
        guest.send("USER alice\r\nPASS demo\r\n").await;
        guest.until("+OK maildrop").await;
        first.asleep(1).await;
        first.switch.set(Call::Move);
        first.switch.vacated().await;
        let (_, mut parked) = first.switch.take_parked().pop().expect("a session");
        parked.note_sleep(Duration::from_secs(minutes * 60), true);
        let (second, _) = inn(|_, _| {}).await;
        second.arrive(parked);
        if minutes == 9 {
            second.asleep(1).await;
            guest.send("NOOP\r\n").await;
        }
        assert_eq!(guest.line().await, heard);
    }
}

#[tokio::test]
async fn it_moves_as_it_is_and_hears_the_farewell() {
    let (first, _) = inn(|_, _| {}).await;
    let mut guest = first.connect().await;
    guest.send("USER alice\r\nPASS demo\r\nDELE 1\r\n").await;
    guest.until("+OK marked").await;
    first.asleep(1).await;
    first.switch.set(Call::Move);
    first.switch.vacated().await;
    let (_, parked) = first.switch.take_parked().pop().expect("a session");
    first.ended().await;
    let (second, told) = inn(|_, _| {}).await;
    second.arrive(parked);
    second.asleep(1).await;
    guest.send("STAT\r\n").await;
    assert_eq!(guest.line().await, "+OK 1 13");
    second.asleep(1).await;
    second.switch.set(Call::Leave);
    assert_eq!(guest.rest().await, "-ERR [SYS/TEMP] the server is going down, come back in a moment\r\n");
    assert_eq!(asked(&told).last().map(String::as_str), Some("release"));
    second.ended().await;
}

/// The first sessions that are woken panic: while they are read, and when they are started.
struct Faulty {
    sound: Arc<dyn SessionFactory>,
    woken: AtomicUsize,
}

impl SessionFactory for Faulty {
    fn protocol(&self) -> Protocol {
        self.sound.protocol()
    }

    fn spawn(&self, accepted: Accepted, home: Home) -> BoxFuture<'_, Result<(), SpawnErr>> {
        self.sound.spawn(accepted, home)
    }

    fn resume(&self, parked: Parked, admission: &Admission) -> Result<Resumed, ResumeError> {
        match self.woken.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("a bug in what reads a state"),
            1 => Ok(Resumed::new(move |_| {
                drop(parked);
                panic!("a bug in what starts a session")
            })),
            _ => self.sound.resume(parked, admission),
        }
    }

    fn refusal(&self, why: Refusal) -> Vec<u8> {
        self.sound.refusal(why)
    }
}

#[tokio::test]
async fn a_session_that_panics_when_it_is_woken_is_closed_alone() {
    let (services, switch) = services(MESSAGES.to_vec(), |settings, _| settings.node.sleep_after = BRIEF);
    let settings = services.settings.clone();
    let faulty = Faulty { sound: Arc::new(services), woken: AtomicUsize::new(0) };
    let inn = Inn::open(&settings, Notices::new(), switch, Arc::new(faulty)).await;
    let mut guests = Vec::new();
    for _ in 0..5 {
        let mut guest = inn.connect().await;
        guest.line().await;
        guests.push(guest);
    }
    inn.asleep(5).await;
    for mut unlucky in guests.drain(..2) {
        unlucky.send("NOOP\r\n").await;
        unlucky.closed().await;
    }
    assert_eq!(inn.lodging.guests(), 3);
    for guest in &mut guests {
        inn.asleep(3).await;
        guest.send("XX\r\n").await;
        assert!(guest.line().await.starts_with("-ERR"));
    }
    assert_eq!(inn.admission.connections_open(), 3);
    inn.asleep(3).await;
    inn.switch.set(Call::Leave);
    inn.ended().await;
}
