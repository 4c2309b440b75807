//! What ports 587 and 465 do with paths and messages: the sender's own addresses, any recipient, a completed and signed
//! message in the spool (RFC 6409).
//!
//! Apart from receiving because here the client is known and its mail may be changed; the dialogue and the flow of data
//! are those of `smtp.rs`.

use posthouse_mail::stage::{Origin, ReceivedMessage, SignedMessage, SubmittedMessage};
use posthouse_mail::{Address, Envelope, ForwardPath, Reply};
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::server::Login;
use posthouse_wire::smtp::trace::Received;

use crate::clock;
use crate::session::smtp::desk::Desk;
use crate::session::smtp::intake::Taken;
use crate::session::smtp::receiving::{Answer, refused};

/// MAIL: RFC 6409 §6.1: the reverse-path is an address of the account. The null path is left to everybody: receipts that
/// a client sends must bear it (RFC 8098 §3).
pub(in crate::session) async fn check_sender<D: Desk>(desk: &D, login: &Login, address: &Address) -> Result<(), Reply> {
    if desk.owns(login.account, address).await? { Ok(()) } else { Err(reply::not_your_address()) }
}

/// RCPT: an unknown user of ours is refused at once, others are the queue's business.
pub(in crate::session) async fn check_forward_path<D: Desk>(desk: &D, path: &ForwardPath) -> Result<(), Reply> {
    desk.route(path).await.map(|_| ())
}

/// The message is whole: checks its authors, signs it, and takes responsibility for it.
pub(in crate::session) async fn submit<D: Desk>(
    desk: &D,
    hostname: &str,
    login: &Login,
    (envelope, origin): (Envelope, Origin),
    taken: Taken,
) -> Answer {
    let id = envelope.id;
    match check_and_spool(desk, hostname, login, (envelope, origin), taken).await {
        Ok(()) => (reply::message_accepted(id), "accepted"),
        Err(refusal) => refused(refusal),
    }
}

async fn check_and_spool<D: Desk>(
    desk: &D,
    hostname: &str,
    login: &Login,
    (envelope, origin): (Envelope, Origin),
    taken: Taken,
) -> Result<(), Reply> {
    check_authors(desk, login, &taken).await?;
    let received_at = clock::now();
    let received =
        Received { origin: &origin, client_name: None, hostname, id: envelope.id, recipient: None, at: received_at };
    let author = taken.authors.first().unwrap_or(&login.address);
    let mut added_headers = desk.sign(author, &taken.header, &taken.staged).await?;
    added_headers.extend_from_slice(received.to_field().as_bytes());
    let received = ReceivedMessage { envelope, origin, body: taken.staged.body, received_at };
    let submitted = SubmittedMessage { received, sender: login.account };
    desk.submit(SignedMessage { submitted, added_headers }, taken.staged).await
}

/// RFC 6409 §6.1: nobody speaks in another's name. Of several authors one must be the account, and RFC 5322 §3.6.2 then
/// wants a Sender, which must be the account's too.
async fn check_authors<D: Desk>(desk: &D, login: &Login, taken: &Taken) -> Result<(), Reply> {
    let mut own = false;
    for author in &taken.authors {
        own = own || desk.owns(login.account, author).await?;
    }
    let sender_own = match &taken.sender {
        Some(sender) => desk.owns(login.account, sender).await?,
        None => taken.authors.len() <= 1,
    };
    if own && sender_own { Ok(()) } else { Err(reply::not_your_address()) }
}
