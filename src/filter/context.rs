//! What a stage sees: the message as received, its header section, its body in chunks, and what earlier stages found.
//!
//! Memory is bounded here: content is held under a permit of the budget, the header section up to `filter.parse_max`, and
//! the body one chunk at a time.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use posthouse_mail::stage::ReceivedMessage;
use posthouse_mail::{Evidence, UnixMillis};

use crate::authentication_results::{DkimFinding, DmarcFinding, SpfFinding};
use crate::budget::{ContentBudget, ContentPermit};
use crate::error::Error;
use crate::fields::body_start_beyond;
use crate::lists::Allowance;

/// Octets of the body held at a time.
const CHUNK: u64 = 64 * 1024;

/// The octets of a message, wherever they are kept. The store is not ours to know; `actors` lends it in this form.
pub trait MessageBody: Send + Sync {
    /// Octets of the whole message, header section included.
    fn size(&self) -> u64;
    /// The octets of a range that lies within.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, Error>>;
}

impl MessageBody for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, Error>> {
        let at = |octet: u64| usize::try_from(octet).unwrap_or(usize::MAX).min(self.len());
        let part = self.slice(at(range.start)..at(range.end).max(at(range.start)));
        Box::pin(std::future::ready(Ok(part)))
    }
}

/// A message's content: the header section in memory, the body on request.
pub struct Content {
    message: Arc<dyn MessageBody>,
    header: Bytes,
    body_start: Option<u64>,
    _permit: ContentPermit,
}

impl Content {
    /// Reads the header section, at most `parse_max` octets of it.
    pub async fn load(message: Arc<dyn MessageBody>, budget: &ContentBudget, parse_max: u64) -> Result<Self, Error> {
        let size = message.size();
        let header_max = size.min(parse_max);
        let permit = budget.acquire(header_max + CHUNK.min(size)).await;
        let mut header = BytesMut::new();
        let mut start = None;
        while start.is_none() && (header.len() as u64) < header_max {
            let from = header.len() as u64;
            let part = message.read(from..header_max.min(from + CHUNK)).await?;
            if part.is_empty() {
                break;
            }
            let searched = header.len();
            header.extend_from_slice(&part);
            start = body_start_beyond(&header, searched);
        }
        if start.is_none() && header.len() as u64 == size {
            start = Some(header.len());
        }
        header.truncate(start.unwrap_or(header.len()));
        Ok(Self { message, header: header.freeze(), body_start: start.map(|at| at as u64), _permit: permit })
    }

    /// The header section with the empty line that ends it; what was read of it, where it is longer than `parse_max`.
    pub fn header(&self) -> &Bytes {
        &self.header
    }

    /// Whether the header section is all there.
    pub fn header_complete(&self) -> bool {
        self.body_start.is_some()
    }

    /// Hands the body to `each`, chunk by chunk; nothing where the header section has no end in sight.
    pub async fn each_chunk(&self, mut each: impl FnMut(&[u8]) + Send) -> Result<(), Error> {
        let Some(mut at) = self.body_start else {
            return Ok(());
        };
        let size = self.message.size();
        while at < size {
            let chunk = self.message.read(at..size.min(at + CHUNK)).await?;
            if chunk.is_empty() {
                break;
            }
            at += chunk.len() as u64;
            each(&chunk);
        }
        Ok(())
    }
}

/// What stages learnt for those after them.
#[derive(Debug, Default)]
pub struct Facts {
    pub spf: Option<SpfFinding>,
    pub dkim: Vec<DkimFinding>,
    pub dmarc: Option<DmarcFinding>,
    pub allowance: Option<Allowance>,
}

/// One message on its way through the stages.
pub struct Context {
    pub message: ReceivedMessage,
    pub content: Content,
    pub facts: Facts,
    pub evidence: Vec<Evidence>,
}

impl Context {
    pub fn new(message: ReceivedMessage, content: Content) -> Self {
        Self { message, content, facts: Facts::default(), evidence: Vec::new() }
    }

    /// Adds what a stage found and what that weighs.
    pub fn note(&mut self, stage: &'static str, finding: impl Into<String>, score: f64) {
        self.evidence.push(Evidence { stage, finding: finding.into(), score });
    }

    /// Whether the site's lists let it pass, as far as is known now.
    pub fn is_allowed(&self) -> bool {
        self.facts.allowance.as_ref().is_some_and(|allowance| allowance.holds(&self.facts))
    }

    /// When the message came.
    pub fn received_at(&self) -> UnixMillis {
        self.message.received_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn load(message: &[u8], parse_max: u64) -> Content {
        let body: Arc<dyn MessageBody> = Arc::new(Bytes::copy_from_slice(message));
        Content::load(body, &ContentBudget::new(1 << 20), parse_max).await.expect("content in memory")
    }

    async fn body(content: &Content) -> Vec<u8> {
        let mut body = Vec::new();
        content.each_chunk(|chunk| body.extend_from_slice(chunk)).await.expect("content in memory");
        body
    }

    #[tokio::test]
    async fn header_and_body_part_at_the_empty_line_wherever_it_falls() {
        for pad in (CHUNK - 12)..(CHUNK + 4) {
            let mut message = vec![b'h'; usize::try_from(pad).expect("small")];
            message.extend_from_slice(b":\r\n\r\nbody\r\n\r\nmore\r\n");
            let content = load(&message, 1 << 20).await;
            assert!(content.header_complete());
            assert!(content.header().ends_with(b"h:\r\n\r\n"));
            assert_eq!(body(&content).await, b"body\r\n\r\nmore\r\n");
        }
    }

    #[tokio::test]
    async fn a_header_section_over_the_bound_is_cut_and_said_so() {
        let content = load(&[b'h'; 5000], 4096).await;
        assert!(!content.header_complete());
        assert_eq!(content.header().len(), 4096);
        assert!(body(&content).await.is_empty());
    }

    #[tokio::test]
    async fn a_message_may_have_no_body() {
        let content = load(b"A: 1\r\n", 4096).await;
        assert!(content.header_complete());
        assert_eq!(&content.header()[..], b"A: 1\r\n");
        assert!(body(&content).await.is_empty());
    }
}
