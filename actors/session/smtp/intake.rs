//! The data of one message on its way from the wire to the blob store, a block at a time.
//!
//! Apart from the dialogue because its memory is the session's whole bound: one block in, one block out, one frame in the
//! store's writer, and for a submitted message its header. Dropped before its end, it leaves nothing behind.

use posthouse_filter::authentication_results::Disarmer;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{Address, Reply};
use posthouse_net::LineStream;
use posthouse_storage::blob::{BodyWriter, StagedBody};
use posthouse_wire::mime::{Limits as StructureLimits, StructureBuilder};
use posthouse_wire::smtp::data::{DataLimits, DataReceiver};
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::submitted::{HeaderCollector, SubmittedHeader};

/// What a message is taken for.
pub(super) enum Purpose {
    /// Delivery to one account at once: its structure is read while it passes.
    Deliver,
    /// The spool, where each delivery reads the structure itself.
    Spool,
    /// Submission: the header is completed; the structure is for the copy in Sent.
    Submit(Completion),
}

/// A message that is whole and staged in the store.
pub(in crate::session) struct Taken {
    pub staged: StagedBody,
    /// Empty for the spool.
    pub structure: MessageStructure,
    /// Empty but for submitted messages.
    pub authors: Authors,
}

/// Who a submitted message says it is from (RFC 5322 §3.6.2).
#[derive(Debug, Default)]
pub(in crate::session) struct Authors {
    pub from: Vec<Address>,
    pub sender: Option<Address>,
}

/// What a submitted message's header gets where it lacks it (RFC 6409 §8).
pub(super) struct Completion {
    pub author: Address,
    pub date: String,
    pub msg_id: String,
}

pub(super) struct Intake {
    receiver: DataReceiver,
    /// One block of the message; its memory is used again.
    block: Vec<u8>,
    /// Boxed, as it goes from one future to the next.
    stage: Option<Box<Stage>>,
    /// Why the message can't be taken although its data is well.
    refusal: Option<Reply>,
}

/// Where the message is kept; gone as soon as it is refused.
struct Stage {
    writer: BodyWriter,
    structure: Option<StructureBuilder>,
    header: Header,
}

enum Header {
    /// The message passes as it is, but for results that claim to be ours, which go (RFC 8601 §5).
    Passing(Disarmer, Vec<u8>),
    Collecting(HeaderCollector, Completion),
    Completed(Authors),
}

impl Intake {
    /// `hostname` is our name in Authentication-Results.
    pub fn new(limits: DataLimits, writer: BodyWriter, purpose: Purpose, hostname: &str) -> Self {
        let passing = || Header::Passing(Disarmer::new(hostname), Vec::new());
        let builder = || Some(StructureBuilder::new(StructureLimits::default()));
        let (structure, header) = match purpose {
            Purpose::Deliver => (builder(), passing()),
            Purpose::Spool => (None, passing()),
            Purpose::Submit(completion) => (builder(), Header::Collecting(HeaderCollector::default(), completion)),
        };
        let stage = Some(Box::new(Stage { writer, structure, header }));
        Self { receiver: DataReceiver::new(limits), block: Vec::new(), stage, refusal: None }
    }

    /// Takes what the stream has buffered; whether the end of data was there. What follows it stays in the stream.
    pub async fn take(&mut self, stream: &mut LineStream) -> bool {
        self.block.clear();
        let progress = self.receiver.receive(stream.input(), &mut self.block);
        stream.consume(progress.consumed);
        if self.receiver.fault().is_some() {
            self.stage = None;
        }
        if let Some(stage) = &mut self.stage
            && let Err(refusal) = stage.keep(&self.block).await
        {
            self.refusal = Some(refusal);
            self.stage = None;
        }
        progress.ended
    }

    /// The end of data was there: the message, or why it is refused.
    pub async fn finish(self) -> Result<Taken, Reply> {
        self.receiver.finish().map_err(|fault| fault.reply())?;
        match (self.stage, self.refusal) {
            (Some(stage), None) => stage.finish().await,
            (_, refusal) => Err(refusal.unwrap_or_else(reply::local_error)),
        }
    }
}

impl Stage {
    async fn keep(&mut self, block: &[u8]) -> Result<(), Reply> {
        match &mut self.header {
            Header::Passing(disarmer, buffer) => {
                let mut checked = std::mem::take(buffer);
                disarmer.push(block, &mut checked);
                let written = self.write(&checked).await;
                checked.clear();
                if let Header::Passing(_, buffer) = &mut self.header {
                    *buffer = checked;
                }
                written
            }
            Header::Completed(_) => self.write(block).await,
            Header::Collecting(collector, completion) => match collector.push(block) {
                None => Ok(()),
                Some((header, body)) => {
                    let (octets, authors) = complete(&header, completion)?;
                    self.header = Header::Completed(authors);
                    self.write(&octets).await?;
                    self.write(&body).await
                }
            },
        }
    }

    async fn write(&mut self, block: &[u8]) -> Result<(), Reply> {
        if let Some(structure) = &mut self.structure {
            structure.push(block);
        }
        // A full disk or a failing store is ours to mend; the client tries again.
        self.writer.write(block).await.map_err(|_| reply::storage_unavailable())
    }

    async fn finish(mut self: Box<Self>) -> Result<Taken, Reply> {
        let header = std::mem::replace(&mut self.header, Header::Completed(Authors::default()));
        let (rest, authors) = match header {
            Header::Passing(disarmer, mut rest) => {
                disarmer.finish(&mut rest);
                (rest, Authors::default())
            }
            // RFC 5322 §3.5: a message may be a header alone.
            Header::Collecting(collector, completion) => complete(&collector.finish(), &completion)?,
            Header::Completed(authors) => (Vec::new(), authors),
        };
        self.write(&rest).await?;
        let staged = self.writer.finish().await.map_err(|_| reply::storage_unavailable())?;
        let structure = self.structure.map(|builder| builder.finish(staged.body.size)).unwrap_or_default();
        Ok(Taken { staged, structure, authors })
    }
}

/// The header of a submitted message is whole: what it says of its authors, and itself with what it lacked.
fn complete(header: &[u8], completion: &Completion) -> Result<(Vec<u8>, Authors), Reply> {
    let read = SubmittedHeader::read(header).map_err(|fault| fault.reply())?;
    let mut authors = Authors { from: read.authors().to_vec(), sender: read.sender().cloned() };
    if authors.from.is_empty() {
        authors.from.push(completion.author.clone());
    }
    let octets = read.complete(&completion.author, &completion.date, &completion.msg_id);
    Ok((octets, authors))
}
