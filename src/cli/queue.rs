//! `posthouse queue list|show|retry|bounce`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use posthouse_actors::admin::{AdminRequest, CountView, QueueChoice, QueueEntryView};

use super::output::{self, Output};
use super::{SiteArgs, admin_client};

#[derive(Args)]
pub struct QueueArgs {
    #[command(flatten)]
    site: SiteArgs,
    #[command(subcommand)]
    verb: QueueVerb,
}

#[derive(Subcommand)]
enum QueueVerb {
    /// List what waits, the next attempt first.
    List {
        /// Only for this destination domain.
        #[arg(long)]
        destination: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one message.
    Show { id: String },
    /// Try again now.
    Retry(Choice),
    /// Give up now: the senders get a report.
    Bounce(Choice),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Choice {
    /// One message.
    id: Option<String>,
    /// Everything for a destination domain.
    #[arg(long)]
    destination: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

impl From<Choice> for QueueChoice {
    fn from(choice: Choice) -> Self {
        match (choice.id, choice.destination) {
            (Some(id), _) => Self::Message(id),
            (None, Some(destination)) => Self::Destination(destination),
            (None, None) => Self::All,
        }
    }
}

pub async fn run(arguments: QueueArgs, output: Output) -> anyhow::Result<ExitCode> {
    let site = &arguments.site;
    let (request, done) = match arguments.verb {
        QueueVerb::List { destination, limit } => {
            let request = AdminRequest::QueueList { destination, limit };
            let entries: Vec<QueueEntryView> = admin_client::ask(site, request, output).await?;
            return output.result(&entries, |entries| list(entries));
        }
        QueueVerb::Show { id } => {
            let entries: Vec<QueueEntryView> = admin_client::ask(site, AdminRequest::QueueShow { id }, output).await?;
            return output.result(&entries, |entries| entries.iter().map(show).collect::<Vec<_>>().join("\n\n"));
        }
        QueueVerb::Retry(choice) => (AdminRequest::QueueRetry { which: choice.into() }, "due now"),
        QueueVerb::Bounce(choice) => (AdminRequest::QueueBounce { which: choice.into() }, "bounced"),
    };
    let count: CountView = admin_client::ask(site, request, output).await?;
    output.result(&count, |count| format!("{} {done}", count.count))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn due(entry: &QueueEntryView) -> String {
    match entry.next_attempt_at.saturating_sub(now()) / 1000 {
        0 => "now".to_owned(),
        seconds => format!("in {}", output::stretch(seconds)),
    }
}

fn list(entries: &[QueueEntryView]) -> String {
    let row = |entry: &QueueEntryView| {
        vec![
            entry.id.clone(),
            entry.destination.clone(),
            entry.recipients.len().to_string(),
            output::size(entry.size),
            output::stretch(now().saturating_sub(entry.created_at) / 1000),
            entry.attempt_count.to_string(),
            due(entry),
            entry.last_reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    output::table(&["id", "destination", "rcpt", "size", "age", "tries", "next", "last answer"], &rows)
}

fn show(entry: &QueueEntryView) -> String {
    let sender = if entry.reverse_path.is_empty() { "<>" } else { &entry.reverse_path };
    [
        format!("id           {}", entry.id),
        format!("destination  {}", entry.destination),
        format!("from         {sender}"),
        format!("to           {}", entry.recipients.join(", ")),
        format!("size         {}", output::size(entry.size)),
        format!("age          {}", output::stretch(now().saturating_sub(entry.created_at) / 1000)),
        format!("tries        {}", entry.attempt_count),
        format!("next try     {}", due(entry)),
        format!("gives up in  {}", output::stretch(entry.expires_at.saturating_sub(now()) / 1000)),
        format!("last answer  {}", entry.last_reason.as_deref().unwrap_or("-")),
    ]
    .join("\n")
}
