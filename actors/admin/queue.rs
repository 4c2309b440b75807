//! Commands about the queue.

use posthouse_mail::{Domain, IngestId};
use posthouse_storage::queue::{self, QueueMessage, Work};
use posthouse_storage::transit::LastOutcome;

use super::{AdminRequest, AdminResult, CountView, QueueChoice, QueueEntryView, view, words};
use crate::node::Services;

/// Messages read from the store at once.
const PAGE: usize = 500;

pub(super) async fn run(services: &Services, request: AdminRequest) -> AdminResult {
    match request {
        AdminRequest::QueueList { destination, limit } => {
            let destination = destination.as_deref().map(parse_domain).transpose()?;
            let mut entries = entries(services, destination.as_ref(), limit).await?;
            entries.sort_by_key(|entry| entry.next_attempt_at);
            view(&entries)
        }
        AdminRequest::QueueShow { id } => view(&show(services, parse_id(&id)?).await?),
        AdminRequest::QueueRetry { which } => {
            let mut count = 0;
            for work in choose(services, which).await? {
                count += u64::from(services.queues()?.retry(&work.id).await.map_err(words)?);
            }
            view(&CountView { count })
        }
        AdminRequest::QueueBounce { which } => {
            let mut count = 0;
            for work in choose(services, which).await? {
                count += u64::from(services.queues()?.bounce(&work.id).await.map_err(words)?);
            }
            view(&CountView { count })
        }
        _ => Err("not a command about the queue".to_owned()),
    }
}

fn parse_domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| format!("{text}: {error}"))
}

fn parse_id(text: &str) -> Result<IngestId, String> {
    text.parse().map_err(|_| format!("{text} is no id of a queued message"))
}

async fn show(services: &Services, id: IngestId) -> Result<Vec<QueueEntryView>, String> {
    let message = queue::message(&services.store, id).await.map_err(words)?;
    let message = message.ok_or_else(|| format!("{id} is not in the queue"))?;
    let works = queue::works_of(&services.store, id).await.map_err(words)?;
    Ok(works.iter().map(|work| entry(&message, work)).collect())
}

/// Queued work, for one destination or for all, oldest message first.
async fn entries(
    services: &Services,
    destination: Option<&Domain>,
    limit: usize,
) -> Result<Vec<QueueEntryView>, String> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = queue::list(&services.store, after, PAGE).await.map_err(words)?;
        let Some(last) = page.last().copied() else { return Ok(found) };
        after = Some(last);
        for id in page {
            let Some(message) = queue::message(&services.store, id).await.map_err(words)? else { continue };
            let works = queue::works_of(&services.store, id).await.map_err(words)?;
            let wanted = works.iter().filter(|work| destination.is_none_or(|domain| *domain == work.id.destination));
            found.extend(wanted.map(|work| entry(&message, work)));
            if found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }
}

/// The work that a command names; it must name some, unless it says all.
async fn choose(services: &Services, which: QueueChoice) -> Result<Vec<Work>, String> {
    if let QueueChoice::Message(text) = &which {
        let works = queue::works_of(&services.store, parse_id(text)?).await.map_err(words)?;
        return if works.is_empty() { Err(format!("{text} is not in the queue")) } else { Ok(works) };
    }
    let destination = match &which {
        QueueChoice::Destination(text) => Some(parse_domain(text)?),
        _ => None,
    };
    let mut chosen = Vec::new();
    let mut after = None;
    loop {
        let page = queue::list(&services.store, after, PAGE).await.map_err(words)?;
        let Some(last) = page.last().copied() else { return Ok(chosen) };
        after = Some(last);
        for id in page {
            let works = queue::works_of(&services.store, id).await.map_err(words)?;
            chosen.extend(works.into_iter().filter(|w| destination.as_ref().is_none_or(|d| *d == w.id.destination)));
        }
    }
}

fn entry(message: &QueueMessage, work: &Work) -> QueueEntryView {
    QueueEntryView {
        id: message.transit.id.to_string(),
        destination: work.id.destination.to_string(),
        reverse_path: message.transit.reverse_path.to_string(),
        recipients: work.recipients.iter().map(|recipient| recipient.path.to_string()).collect(),
        size: message.transit.body.size,
        attempt_count: work.attempt_count,
        created_at: message.queued_at.0,
        next_attempt_at: work.id.due.0,
        expires_at: message.expires_at.0,
        last_reason: work.last_outcome.as_ref().map(last_word),
    }
}

/// What the remote host said where it said something, our own words otherwise.
fn last_word(outcome: &LastOutcome) -> String {
    match (&outcome.reply, &outcome.host) {
        (Some(reply), Some(host)) => format!("{host} said: {reply}"),
        (Some(reply), None) => reply.to_string(),
        (None, _) => outcome.reason.clone(),
    }
}
