//! The sessions of an upgrade-kill: each stands in the middle of something that only the same session can go on with.

use anyhow::ensure;

use crate::client::{Imap, Login, Pop3, Smtp, is_gone};
use crate::scenario::smtp_load::{ALICE_PLAIN, PASSWORD};
use crate::scenario::upgrade::maildrop;
use crate::server::Plan;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With a mailbox selected.
    Imap,
    ImapTls,
    /// Between RCPT and DATA, under TLS.
    Submission,
    /// With a message marked as deleted, under TLS.
    Pop3,
}

pub const KINDS: [(Kind, &str); 4] =
    [(Kind::Imap, "imap"), (Kind::ImapTls, "imaps"), (Kind::Submission, "submissions"), (Kind::Pop3, "pop3s")];

const SUBMISSIONS: u16 = 2465;
const IMAP: u16 = 2143;
const IMAPS: u16 = 2993;
const POP3S: u16 = 2995;
const ALICE: &str = "alice@demo.test";
pub const BOB: &str = "bob@demo.test";

/// One client's session.
pub struct Session {
    /// Its kind, and its number among them.
    pub place: (usize, u32),
    client: Client,
}

enum Client {
    Imap(Imap),
    Submission(Smtp),
    Pop3(Pop3),
}

impl Session {
    /// Logs in and begins.
    pub async fn begin(plan: &Plan, place: (usize, u32)) -> anyhow::Result<Self> {
        let (kind, number) = (KINDS[place.0].0, place.1);
        let roots = plan.data.join("ca.pem");
        let client = match kind {
            Kind::Imap | Kind::ImapTls => {
                let (port, roots) = if kind == Kind::Imap { (IMAP, None) } else { (IMAPS, Some(roots.as_path())) };
                let mut imap = Imap::connect(plan.address(port), roots, (BOB, PASSWORD)).await?;
                imap.examine("INBOX").await?;
                Client::Imap(imap)
            }
            Kind::Submission => {
                let login = Login { roots: &roots, plain: ALICE_PLAIN };
                let mut smtp = Smtp::connect(plan.address(SUBMISSIONS), Some(login)).await?;
                smtp.begin(ALICE, &[BOB]).await?;
                Client::Submission(smtp)
            }
            Kind::Pop3 => {
                let mut pop3 = Pop3::connect(plan.address(POP3S), &roots, (&maildrop(number), PASSWORD)).await?;
                pop3.command("DELE 1").await?;
                Client::Pop3(pop3)
            }
        };
        Ok(Self { place, client })
    }

    /// Goes on with what was begun; whether the connection still stands. A wrong answer is an error. A message that was submitted
    /// for it is counted.
    pub async fn goes_on(&mut self, submitted: &mut usize) -> anyhow::Result<bool> {
        match self.go_on(submitted).await {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error.context(format!("a session of {}", KINDS[self.place.0].1))),
        }
    }

    async fn go_on(&mut self, submitted: &mut usize) -> anyhow::Result<()> {
        match &mut self.client {
            Client::Imap(imap) => imap.check().await,
            Client::Submission(smtp) => {
                let message = format!("From: <{ALICE}>\r\nTo: <{BOB}>\r\nSubject: begun before\r\n\r\nText.\r\n");
                ensure!(smtp.finish(message.as_bytes()).await?, "a submission was deferred");
                *submitted += 1;
                smtp.begin(ALICE, &[BOB]).await
            }
            // RFC 1939 §5: a marked message counts no more, until QUIT or the end of the session.
            Client::Pop3(pop3) => {
                let drop = pop3.command("STAT").await?;
                ensure!(drop.starts_with("1 "), "with one of two messages marked the maildrop has {drop}");
                Ok(())
            }
        }
    }
}
