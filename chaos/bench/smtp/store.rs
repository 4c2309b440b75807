//! What the store alone reaches with the messages of an SMTP run: a process of its own that is told what to do line by line,
//! so that its CPU time is counted as a server's is.
//!
//! It does what the server does between the end of a message's data and its 250, and no more: as many callers as there are
//! sessions stage their bodies, and the account's one writer commits what waits. Messages are made and read beforehand.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{FlagSet, SpecialUse};
use posthouse_storage::Store;
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target};
use posthouse_wire::mime::{Limits, parse_structure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::bench::cgroup::CpuGroup;
use crate::bench::store::{deliver, one_writer};
use crate::scenario::store_load::{make_accounts, now, request_id, stage};

#[derive(clap::Args)]
pub struct SmtpStoreArgs {
    #[arg(long)]
    dir: PathBuf,
    /// Octets of a message below its header
    #[arg(long)]
    size: u32,
}

/// The header fields that the server puts above a message, about.
const PREFIX: &[u8] = b"Return-Path: <a@sender.test>\r\n\
    Authentication-Results: demo.test; dkim=none\r\n\
    Received: from bench.test ([127.0.0.1])\r\n\tby demo.test (Posthouse) with ESMTP id 01hf7yat00000g0000000000\r\n\t\
    for <alice@demo.test>; Thu, 1 Jan 1970 00:00:00 +0000\r\n";

/// The process, as the bench sees it; ended when dropped.
pub struct StoreAlone {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub group: CpuGroup,
}

impl StoreAlone {
    pub fn start(dir: &Path, size: u32) -> anyhow::Result<Self> {
        let group = CpuGroup::new("store")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["smtp-store", "--size", &size.to_string(), "--dir"]).arg(dir);
        let mut inside = group.inside(&command);
        let mut child = inside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the store alone")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.context("a child without pipes")?;
        let mut store = Self { child, orders, answers: BufReader::new(answers), group };
        store.answer()?;
        Ok(store)
    }

    /// Makes the messages of the next run, which costs nothing while the clock runs.
    pub fn prepare(&mut self, messages: u32) -> anyhow::Result<()> {
        self.order(&format!("prepare {messages}"))
    }

    /// Delivers what was prepared; returns when all of it is durable.
    pub fn deliver(&mut self, callers: u32) -> anyhow::Result<()> {
        self.order(&format!("deliver {callers}"))
    }

    fn order(&mut self, order: &str) -> anyhow::Result<()> {
        writeln!(self.orders, "{order}")?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line == "done\n", "the store alone ended early");
        Ok(())
    }
}

impl Drop for StoreAlone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message as a session has read it.
struct Message {
    octets: Vec<u8>,
    structure: MessageStructure,
}

/// The process itself: carries out orders until there are no more.
pub async fn serve(arguments: &SmtpStoreArgs) -> anyhow::Result<()> {
    let store = Store::open(&arguments.dir, &posthouse_conf::Storage::default()).await?;
    let &(account, _) = make_accounts(&store, 1).await?.first().context("one account")?;
    let merge_max = posthouse_conf::Mailbox::default().merge_max;
    let (mut prepared, mut made) = (VecDeque::new(), 0);
    println!("done");
    let mut orders = std::io::stdin().lines();
    while let Some(order) = orders.next().transpose()? {
        match order.split_once(' ') {
            Some(("prepare", count)) => {
                let count: usize = count.parse()?;
                prepared.extend((made..made + count).map(|number| message(number, arguments.size)));
                made += count;
            }
            Some(("deliver", callers)) => {
                let (sender, owner) = one_writer(&store, account, merge_max);
                let waiting = Arc::new(Mutex::new(std::mem::take(&mut prepared)));
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..callers.parse::<usize>()? {
                    let (store, sender, waiting) = (store.clone(), sender.clone(), waiting.clone());
                    let mut random = StdRng::from_os_rng();
                    tasks.spawn(async move {
                        while let Some(message) = next(&waiting) {
                            deliver(&sender, append(&store, message, &mut random).await?).await?;
                        }
                        anyhow::Ok(())
                    });
                }
                drop(sender);
                while let Some(ended) = tasks.join_next().await {
                    ended??;
                }
                owner.await??;
            }
            _ => bail!("not understood: {order}"),
        }
        println!("done");
    }
    store.close().await?;
    Ok(())
}

fn next(waiting: &Mutex<VecDeque<Message>>) -> Option<Message> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// What smtp-source sends: few fields, and lines of one letter.
fn message(number: usize, size: u32) -> Message {
    let mut octets = format!(
        "From: <a@sender.test>\r\nTo: <alice@demo.test>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\
         Message-Id: <{number:04x}.0001.0001@bench.test>\r\n\r\n"
    )
    .into_bytes();
    for line in 0..size.div_ceil(LINE) {
        octets.extend_from_slice((line % 10).to_string().as_bytes());
        octets.resize(octets.len() + 77, b'X');
        octets.extend_from_slice(b"\r\n");
    }
    let structure = parse_structure(&octets, octets.len() as u64, Limits::default()).under_prefix(PREFIX.len() as u64);
    Message { octets, structure }
}

/// Octets of a line of smtp-source.
const LINE: u32 = 80;

async fn append(store: &Store, message: Message, random: &mut StdRng) -> anyhow::Result<Append> {
    let staged = stage(store, &message.octets).await?;
    Ok(Append {
        request: request_id(random),
        item: 0,
        target: Target::Role(SpecialUse::Inbox),
        flags: FlagSet::new(),
        received_at: now(),
        prefix: PREFIX.into(),
        body: AppendBody::Staged(staged),
        structure: message.structure,
        quota: QuotaRule::Tolerate,
    })
}
