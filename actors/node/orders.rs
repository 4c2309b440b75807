//! Orders that concern the process as a whole: an administrator gives them over the socket, whoever runs the node obeys.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::UpgradeView;
use super::departure::{Departure, Upgrading};

/// What the process is to do.
pub enum Order {
    Upgrade(UpgradeOrder),
}

/// Hand everything to a new program.
pub struct UpgradeOrder {
    /// The program; without one, this process's own as it lies on the disk now.
    pub program: Option<PathBuf>,
    /// In this process, whatever the settings say.
    pub in_place: bool,
    /// The connection of whoever waits for the answer.
    console: Option<OwnedFd>,
    /// Nothing else begins meanwhile.
    claim: Upgrading,
    steps: mpsc::Sender<(u64, u64, String)>,
    answer: oneshot::Sender<Result<UpgradeView, String>>,
    /// Dropped by whoever gave the order, once the answer is out.
    told: oneshot::Receiver<()>,
}

/// What an administrator asks for.
pub(crate) struct Wish {
    pub program: Option<PathBuf>,
    pub in_place: bool,
    pub console: Option<OwnedFd>,
}

/// The other end of an order.
pub(crate) struct Given {
    pub steps: mpsc::Receiver<(u64, u64, String)>,
    pub answer: oneshot::Receiver<Result<UpgradeView, String>>,
    /// Held until the answer is passed on: its end tells that.
    _told: oneshot::Sender<()>,
}

pub(crate) struct Orders {
    sender: mpsc::Sender<Order>,
    receiver: Mutex<mpsc::Receiver<Order>>,
}

impl Default for Orders {
    fn default() -> Self {
        // One at a time.
        let (sender, receiver) = mpsc::channel(1);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl Orders {
    pub(super) async fn next(&self) -> Order {
        match self.receiver.lock().await.recv().await {
            Some(order) => order,
            // The sender lies beside the receiver.
            None => std::future::pending().await,
        }
    }

    /// Whoever waits for an order that nobody has taken hears that nobody will.
    pub(super) async fn close(&self) {
        let mut receiver = self.receiver.lock().await;
        receiver.close();
        while receiver.try_recv().is_ok() {}
    }

    pub(crate) fn upgrade(&self, departure: &Departure, what: Wish) -> Result<Given, String> {
        let claim = departure.upgrade()?;
        let Wish { program, in_place, console } = what;
        let ((steps, heard), (answer, answered), (told, telling)) =
            (mpsc::channel(16), oneshot::channel(), oneshot::channel());
        let order = Order::Upgrade(UpgradeOrder { program, in_place, console, claim, steps, answer, told: telling });
        self.sender.try_send(order).map_err(|_| "the node takes no more orders".to_owned())?;
        Ok(Given { steps: heard, answer: answered, _told: told })
    }
}

impl UpgradeOrder {
    /// The connection of whoever waits, to be answered by the program that will have this process.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Tells how far it is; a step that nobody has read yet is as good as the next one.
    pub fn step(&self, done: u64, total: u64, what: &str) {
        let _ = self.steps.try_send((done, total, what.to_owned()));
    }

    /// Answers, and returns when the answer has been passed on or nobody waits for it.
    pub async fn answer(self, answer: Result<UpgradeView, String>) {
        let Self { answer: waiting, told, claim, .. } = self;
        // Whoever hears the answer may ask for something else at once.
        drop(claim);
        if waiting.send(answer).is_ok() {
            let _ = told.await;
        }
    }
}
