//! The data of one message on its way from the wire to the blob store, a block at a time.
//!
//! Apart from the dialogue because its memory is the session's whole bound: one block in, one block out, one frame in the
//! store's writer, and for a submitted message its header. Dropped before its end, it leaves nothing behind.

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
    /// Who wrote a submitted message.
    pub authors: Vec<Address>,
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
    stage: Option<Stage>,
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
    /// The message passes as it is.
    Untouched,
    Collecting(HeaderCollector, Completion),
    Completed {
        authors: Vec<Address>,
        sender: Option<Address>,
    },
}

impl Intake {
    pub fn new(limits: DataLimits, writer: BodyWriter, purpose: Purpose) -> Self {
        let builder = || Some(StructureBuilder::new(StructureLimits::default()));
        let (structure, header) = match purpose {
            Purpose::Deliver => (builder(), Header::Untouched),
            Purpose::Spool => (None, Header::Untouched),
            Purpose::Submit(completion) => (builder(), Header::Collecting(HeaderCollector::default(), completion)),
        };
        let stage = Some(Stage { writer, structure, header });
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
        let Header::Collecting(collector, _) = &mut self.header else {
            return self.write(block).await;
        };
        match collector.push(block) {
            None => Ok(()),
            Some((header, body)) => {
                self.complete(&header).await?;
                self.write(&body).await
            }
        }
    }

    /// The header of a submitted message is whole: adds what it lacks and lets it go.
    async fn complete(&mut self, header: &[u8]) -> Result<(), Reply> {
        let Header::Collecting(_, completion) = std::mem::replace(&mut self.header, Header::Untouched) else {
            return Ok(());
        };
        let read = SubmittedHeader::read(header).map_err(|fault| fault.reply())?;
        let mut authors = read.authors().to_vec();
        if authors.is_empty() {
            authors.push(completion.author.clone());
        }
        let sender = read.sender().cloned();
        let octets = read.complete(&completion.author, &completion.date, &completion.msg_id);
        self.write(&octets).await?;
        self.header = Header::Completed { authors, sender };
        Ok(())
    }

    async fn write(&mut self, block: &[u8]) -> Result<(), Reply> {
        if let Some(structure) = &mut self.structure {
            structure.push(block);
        }
        // A full disk or a failing store is ours to mend; the client tries again.
        self.writer.write(block).await.map_err(|_| reply::storage_unavailable())
    }

    async fn finish(mut self) -> Result<Taken, Reply> {
        if let Header::Collecting(collector, _) = &mut self.header {
            let header = std::mem::take(collector).finish();
            self.complete(&header).await?;
        }
        let staged = self.writer.finish().await.map_err(|_| reply::storage_unavailable())?;
        let structure = self.structure.map(|builder| builder.finish(staged.body.size)).unwrap_or_default();
        let (authors, sender) = match self.header {
            Header::Completed { authors, sender } => (authors, sender),
            Header::Untouched | Header::Collecting(..) => (Vec::new(), None),
        };
        Ok(Taken { staged, structure, authors, sender })
    }
}
