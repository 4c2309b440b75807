//! The load of smtp-kill: sessions that send messages to one or many, here or elsewhere, and note what was answered.
//!
//! Every try bears a header of its own and is noted before the first octet leaves, once for each recipient; it counts as
//! acknowledged only after the 250 that ends DATA.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::client::{Login, Smtp};
use crate::oracle::{Ledger, Standing};
use crate::server::Plan;
use crate::workload::{self, TRY_FIELD};

pub const ACCOUNTS: [&str; 3] = ["alice@demo.test", "bob@demo.test", "admin@demo.test"];
pub const PASSWORD: &str = "demo";
pub const REMOTE_DOMAIN: &str = "remote.test";
/// `\0alice@demo.test\0demo` in base64 (RFC 4616 §2).
pub const ALICE_PLAIN: &str = "AGFsaWNlQGRlbW8udGVzdABkZW1v";
const SMTP: u16 = 2525;
const SUBMISSIONS: u16 = 2465;
/// Before a lost connection is made anew.
const PAUSE: Duration = Duration::from_millis(50);

/// What is shared by all sessions.
pub struct Load {
    pub plan: Plan,
    pub ledger: Mutex<Ledger>,
    /// Whether the server is killed under it: then a connection may end at any line.
    pub may_break: bool,
    /// What went wrong without such an excuse.
    pub surprises: Mutex<Vec<String>>,
    pub stop: watch::Receiver<bool>,
}

/// One session's way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From outside, for local recipients.
    Smtp,
    /// As alice, for remote ones too.
    Submission,
}

impl Load {
    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    fn note(&self, name: &str, recipients: &[&str], standing: Standing) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for recipient in recipients {
            ledger.note(&format!("{name} {recipient}"), standing);
        }
    }

    fn ca(&self) -> PathBuf {
        self.plan.data.join("ca.pem")
    }
}

/// Sends until it is told to stop. A killed server ends a session at any line; the next one begins anew.
pub async fn run(load: Arc<Load>, way: Way, session: u32, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ (u64::from(session) << 40));
    let mut number = 0;
    while !load.is_over() {
        if let Err(error) = converse(&load, way, (session, &mut number), &mut random).await {
            if !load.may_break || error.to_string().contains("was answered 5") {
                load.surprises.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One connection.
async fn converse(
    load: &Load,
    way: Way,
    (session, number): (u32, &mut u32),
    random: &mut StdRng,
) -> anyhow::Result<()> {
    let ca = load.ca();
    let mut smtp = match way {
        Way::Smtp => Smtp::connect(load.plan.address(SMTP), None).await?,
        Way::Submission => {
            let login = Login { roots: &ca, plain: ALICE_PLAIN };
            Smtp::connect(load.plan.address(SUBMISSIONS), Some(login)).await?
        }
    };
    while !load.is_over() {
        *number += 1;
        let name = format!("s{session}-{number}");
        let recipients = recipients(way, random);
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let from = if way == Way::Smtp { "load@outside.test" } else { ACCOUNTS[0] };
        let size = workload::size(random).min(64_000);
        let mut message = format!("{TRY_FIELD}{name}\r\n").into_bytes();
        message.extend(workload::body(random, size, from));
        load.note(&name, &recipients, Standing::Tried);
        if smtp.send(from, &recipients, &message).await? {
            load.note(&name, &recipients, Standing::Acknowledged);
        }
    }
    Ok(())
}

/// Mostly one, sometimes all accounts, for a submission also remote ones and both kinds together.
fn recipients(way: Way, random: &mut StdRng) -> Vec<String> {
    let mut chosen: Vec<String> = match random.random_range(0..4) {
        0 => ACCOUNTS.iter().map(ToString::to_string).collect(),
        _ => vec![ACCOUNTS[random.random_range(0..ACCOUNTS.len())].to_owned()],
    };
    if way == Way::Submission {
        if random.random_ratio(1, 2) {
            chosen.clear();
        }
        let remote =
            (0..random.random_range(1..4)).map(|_| format!("user{}@{REMOTE_DOMAIN}", random.random_range(0..1000)));
        chosen.extend(remote);
        chosen.sort();
        chosen.dedup();
    }
    chosen
}
