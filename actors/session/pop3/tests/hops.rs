//! A session that goes from process to process, and a client that does not notice.

use posthouse_net::FrozenStream;

use super::*;

/// A client, and its session in one process after another.
struct Journey {
    client: TcpStream,
    services: Pop3Services<Fake>,
    switch: Switch,
    session: tokio::task::JoinHandle<Option<Parked>>,
}

impl Journey {
    async fn begin(messages: Vec<&'static str>, change: impl FnOnce(&mut Settings, &mut Told)) -> Self {
        let (services, switch) = services(messages, change);
        let (session, client) = connect(services.clone()).await;
        Self { client, services, switch, session: tokio::spawn(session.run()) }
    }

    /// Into the next process; false when the session was over already.
    async fn hop(&mut self) -> bool {
        self.switch.set(Call::Move);
        match (&mut self.session).await.expect("no panic") {
            Some(parked) => self.arrive(parked),
            None => {
                self.session = tokio::spawn(async { None });
                return false;
            }
        }
        true
    }

    fn arrive(&mut self, parked: Parked) {
        self.switch = Switch::new();
        self.services.calls = self.switch.calls();
        let admission = Admission::new(&self.services.settings.limits, &self.services.settings.submission);
        let stream = FrozenStream::decode(&parked.stream.encode()).expect("a stream");
        let parked = Parked { stream, ..parked };
        let session = Pop3Session::resume(self.services.clone(), parked, &admission).expect("a sound state");
        self.session = tokio::spawn(session.run());
    }

    async fn send(&mut self, input: &[u8]) {
        self.client.write_all(input).await.expect("a write");
    }

    async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.client.read_exact(&mut octets).await.expect("an answer");
        octets
    }

    /// All that comes until the server closes.
    async fn rest(mut self) -> String {
        let mut output = String::new();
        self.client.read_to_string(&mut output).await.expect("an end");
        assert!(self.session.await.expect("no panic").is_none());
        output
    }

    fn asked(&self) -> Vec<String> {
        self.services.maildrops.told().asked.clone()
    }
}

const SCRIPT: &str = "CAPA\r\nUSER alice\r\nPASS demo\r\nSTAT\r\nLIST\r\nDELE 1\r\nUIDL\r\nRETR 2\r\nXX\r\nRSET\r\nTOP 1 1\r\n\
    RETR 1\r\nDELE 2\r\nLIST\r\nQUIT\r\n";

#[tokio::test]
async fn a_session_that_hops_three_times_answers_as_if_it_stayed() {
    let small = |settings: &mut Settings, _: &mut Told| settings.pop3.io_buffer = Size::bytes(7);
    let mut stays = Journey::begin(MESSAGES.to_vec(), small).await;
    stays.send(SCRIPT.as_bytes()).await;
    let expect = stays.rest().await;
    assert!(expect.ends_with("1 19\r\n.\r\n+OK the marked messages are gone, goodbye\r\n"), "{expect}");
    for cut in 0..SCRIPT.len() {
        let mut moves = Journey::begin(MESSAGES.to_vec(), small).await;
        let mut sent = 0;
        for cut in [cut, cut + 5, cut + 24] {
            let end = cut.min(SCRIPT.len());
            moves.send(&SCRIPT.as_bytes()[sent..end]).await;
            sent = end;
            // Sometimes the session has read all of it by then, sometimes nothing.
            for _ in 0..cut % 7 {
                tokio::task::yield_now().await;
            }
            if !moves.hop().await {
                break;
            }
        }
        let _ = moves.client.write_all(&SCRIPT.as_bytes()[sent..]).await;
        let told = moves.services.maildrops.told.clone();
        let heard = moves.rest().await;
        assert_eq!(heard, expect, "cut at {cut}");
        let mut asked = told.lock().expect("no panic").asked.clone();
        asked.retain(|asked| asked != "renew");
        assert_eq!(asked, ["open", "remove [2]", "release"], "cut at {cut}");
    }
}

#[tokio::test]
async fn the_lock_is_kept_on_the_way_and_renewed_at_once() {
    let mut journey = Journey::begin(MESSAGES.to_vec(), |_, _| {}).await;
    journey.send(b"USER alice\r\nPASS demo\r\nDELE 1\r\n").await;
    let until_marked = "+OK localhost POP3 server ready\r\n".len();
    journey.read(until_marked).await;
    while !journey.asked().contains(&"open".to_owned()) {
        tokio::task::yield_now().await;
    }
    assert!(journey.hop().await);
    journey.send(b"STAT\r\n").await;
    while journey.asked().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(journey.asked(), ["open", "renew"], "nothing was released");
    // Another session took the maildrop while this one was between two processes.
    journey.services.maildrops.told().lock_lost = true;
    assert!(journey.hop().await);
    journey.send(b"QUIT\r\n").await;
    journey.session.await.expect("no panic");
    let asked = journey.services.maildrops.told().asked.clone();
    assert!(!asked.iter().any(|asked| asked.starts_with("remove")), "{asked:?}");
}

/// More than the buffers of a connection hold.
const LARGE: usize = 24 << 20;

#[tokio::test]
async fn a_large_message_moves_in_the_middle_while_its_client_does_not_read() {
    let line = ".0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnop\r\n";
    let message: &'static str = Box::leak(line.repeat(LARGE / line.len()).into_boxed_str());
    let mut journey = Journey::begin(vec![message], |_, _| {}).await;
    journey.send(b"USER alice\r\nPASS demo\r\nRETR 1\r\nNOOP\r\nDE").await;
    let mut heard = journey.read(1000).await;
    for count in [0, 1, 3_000_000] {
        assert!(journey.hop().await, "the message is under way");
        heard.extend(journey.read(count).await);
    }
    journey.send(b"LE 1\r\nQUIT\r\n").await;
    heard.extend(journey.rest().await.into_bytes());
    let heard = String::from_utf8(heard).expect("text");
    let begin = heard.find(" octets\r\n.").expect("the message") + " octets\r\n".len();
    let stuffed = message.replace("\r\n.", "\r\n..");
    assert!(heard[begin..].strip_prefix('.').is_some_and(|rest| rest.starts_with(&stuffed)), "octet for octet");
    let after: Vec<&str> = heard[begin + 1 + stuffed.len()..].split("\r\n").collect();
    assert_eq!(
        after,
        [".", "+OK nothing done", "+OK marked as deleted", "+OK the marked messages are gone, goodbye", ""]
    );
}

#[tokio::test]
async fn an_exchange_is_finished_first() {
    let mut journey = Journey::begin(MESSAGES.to_vec(), |_, _| {}).await;
    journey.send(b"AUTH PLAIN\r\n").await;
    let challenge = "+OK localhost POP3 server ready\r\n+ \r\n";
    journey.read(challenge.len()).await;
    journey.switch.set(Call::Move);
    tokio::select! {
        biased;
        parked = &mut journey.session => panic!("parked within AUTH: {}", parked.is_ok()),
        sent = journey.client.write_all(b"AGFsaWNlAGRlbW8=\r\n") => sent.expect("a write"),
    }
    assert!(journey.hop().await);
    journey.send(b"QUIT\r\n").await;
    assert!(journey.rest().await.starts_with("+OK maildrop has 2 messages"));
}

#[tokio::test]
async fn a_moved_session_can_be_told_to_leave() {
    let mut journey = Journey::begin(MESSAGES.to_vec(), |_, _| {}).await;
    assert!(journey.hop().await);
    journey.switch.set(Call::Leave);
    assert!(journey.rest().await.contains("-ERR [SYS/TEMP] the server is going down"));
}
