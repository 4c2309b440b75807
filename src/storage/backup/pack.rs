//! A pack: many bodies in one object, in ascending order of their ids, with an index at its end.
//!
//! Frames of bodies, then the index in frames too, then where the index begins. A body lies whole in one pack, so that a pack
//! may be larger than `backup.pack_max` by its last one.

use std::sync::Arc;

use bytes::Bytes;
use posthouse_mail::BlobId;
use prost::Message as _;

use super::lock::{self, Lock};
use super::object::first_frame;
use super::place::Upload;
use super::record::{PackIndexRow, PackRow, PackedRow};
use super::seal::{self, CONTENT_MAX, Cipher, HEADER, Kind};
use super::target::{Target, hex, named};
use crate::error::Error;

/// Folder of the packs.
pub(crate) const PACKS: &str = "packs/";
/// Octets of the index that are read back; a pack is ended before its own is longer.
const INDEX_MAX: u64 = 64 << 20;
/// Octets of bodies that are read back at once.
const WINDOW: u64 = 8 << 20;
/// Bodies in one pack, so that its index stays small.
const BODIES_MAX: usize = 100_000;
/// Octets of the last fields: where the index begins, and the number of its first frame.
const FOOTER: u64 = 8 + 4;

/// A pack in the making.
pub(crate) struct PackWriter {
    upload: Upload,
    cipher: Arc<Cipher>,
    name: String,
    offset: u64,
    frames: u32,
    bodies: Vec<PackedRow>,
}

impl PackWriter {
    pub async fn begin(target: &Target) -> Result<Self, Error> {
        let id = hex(&rand::random::<[u8; 16]>());
        let name = format!("{PACKS}{}/{id}", id.get(..2).unwrap_or_default());
        let (cipher, header) = target.sealer.begin(Kind::Pack);
        let mut upload = target.place.upload(&name).await?;
        upload.write(Bytes::copy_from_slice(&header)).await?;
        let offset = u64::try_from(HEADER).unwrap_or(u64::MAX);
        Ok(Self { upload, cipher: Arc::new(cipher), name, offset, frames: 0, bodies: Vec::new() })
    }

    /// Begins the next body; its pieces follow.
    pub fn begin_body(&mut self, blob: &BlobId) {
        let (offset, first_frame) = (self.offset, self.frames);
        self.bodies.push(PackedRow {
            blob: blob.as_bytes().to_vec(),
            size: 0,
            frames: Vec::new(),
            offset,
            first_frame,
        });
    }

    /// The body begun last breaks off: its frames stay behind, and nothing names them.
    pub fn abandon_body(&mut self) {
        self.bodies.pop();
    }

    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// Adds a piece of the body begun last, at most a frame of it.
    pub async fn piece(&mut self, content: Bytes) -> Result<(), Error> {
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let stored = self.frame(content).await?;
        let body = self.bodies.last_mut().ok_or_else(|| Error::Refused("a piece of no body".to_owned()))?;
        body.size += size;
        body.frames.push(stored);
        Ok(())
    }

    pub fn is_full(&self, max: u64) -> bool {
        self.offset >= max || self.bodies.len() >= BODIES_MAX
    }

    /// Writes the index and gives the pack its name.
    pub async fn finish(mut self) -> Result<PackRow, Error> {
        let bounds = (self.bodies.first().map(|b| b.blob.clone()), self.bodies.last().map(|b| b.blob.clone()));
        let (Some(first), Some(last)) = bounds else {
            return Err(Error::Refused("a pack has a body".to_owned()));
        };
        let bodies = u64::try_from(self.bodies.len()).unwrap_or(u64::MAX);
        let index = Bytes::from(PackIndexRow { bodies: std::mem::take(&mut self.bodies) }.encode_to_vec());
        let footer = [self.offset.to_be_bytes().as_slice(), &self.frames.to_be_bytes()].concat();
        for start in (0..index.len()).step_by(CONTENT_MAX) {
            self.frame(index.slice(start..index.len().min(start + CONTENT_MAX))).await?;
        }
        self.upload.write(footer.into()).await?;
        let octets = self.offset + FOOTER;
        self.upload.finish().await?;
        Ok(PackRow { name: self.name, first, last, bodies, octets, live: bodies })
    }

    async fn frame(&mut self, content: Bytes) -> Result<u32, Error> {
        let (cipher, number) = (self.cipher.clone(), self.frames);
        let frame = seal::off_thread(content.len(), move || cipher.seal(number, &content)).await?;
        let stored = u32::try_from(frame.len()).map_err(|_| Error::Limit { what: "octets of a frame" })?;
        self.upload.write(frame.into()).await?;
        self.frames = self.frames.checked_add(1).ok_or(Error::Limit { what: "frames of a pack" })?;
        self.offset += u64::from(stored);
        Ok(stored)
    }
}

/// The index of a pack, read.
pub(crate) struct PackIndex {
    pub name: String,
    cipher: Arc<Cipher>,
    /// In ascending order of the ids.
    bodies: Vec<Packed>,
}

/// Where one body lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packed {
    pub blob: BlobId,
    pub size: u64,
    offset: u64,
    first_frame: u32,
    frames: Box<[u32]>,
}

impl PackIndex {
    /// Reads the index of a pack of so many octets.
    pub async fn load(target: &Target, name: &str, octets: u64) -> Result<Self, Error> {
        Self::read(target, name, octets).await.map_err(|error| named(name, error))
    }

    async fn read(target: &Target, name: &str, octets: u64) -> Result<Self, Error> {
        let damaged = || Error::BackupDamaged("it has no index".to_owned());
        let header_end = u64::try_from(HEADER).unwrap_or(u64::MAX);
        let footer = octets.checked_sub(FOOTER).filter(|footer| *footer > header_end).ok_or_else(damaged)?;
        let header = target.place.read(name, 0..header_end).await?;
        let cipher = target.sealer.open(Kind::Pack, &header)?;
        let fields = target.place.read(name, footer..octets).await?;
        let (begins, frames) = fields.split_first_chunk::<8>().ok_or_else(damaged)?;
        let begins = u64::from_be_bytes(*begins);
        let frames = u32::from_be_bytes(frames.try_into().map_err(|_| damaged())?);
        if begins < header_end || begins >= footer || footer - begins > INDEX_MAX {
            return Err(damaged());
        }
        let sealed = target.place.read(name, begins..footer).await?;
        let index = open_index(&cipher, &sealed, frames)?;
        Ok(Self { name: name.to_owned(), cipher: Arc::new(cipher), bodies: places(index, begins, frames)? })
    }

    pub fn bodies(&self) -> &[Packed] {
        &self.bodies
    }

    pub fn find(&self, blob: &BlobId) -> Option<&Packed> {
        let found = self.bodies.binary_search_by(|body| body.blob.cmp(blob)).ok()?;
        self.bodies.get(found)
    }

    /// The pieces of a body, by number; each is at most a frame.
    pub async fn piece(&self, target: &Target, body: &Packed, number: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some(stored) = body.frames.get(number) else { return Ok(None) };
        let before: u64 = body.frames[..number].iter().map(|octets| u64::from(*octets)).sum();
        let begins = body.offset + before;
        let frame = target.place.read(&self.name, begins..begins + u64::from(*stored)).await?;
        let place = u32::try_from(number).unwrap_or(u32::MAX).saturating_add(body.first_frame);
        let cipher = self.cipher.clone();
        let piece = seal::off_thread(frame.len(), move || cipher.open(place, &frame)).await;
        piece.map(Some).map_err(|error| named(&self.name, error))
    }

    /// Reads every body; the octets of their contents.
    pub async fn read_back(&self, target: &Target, lock: Option<&Lock>) -> Result<u64, Error> {
        let mut octets = 0;
        let mut rest = self.bodies.as_slice();
        while let Some(first) = rest.first() {
            lock::renew(lock).await?;
            // Several bodies in one read: most are small.
            let near = rest.iter().take_while(|body| body.end() - first.offset <= WINDOW).count().max(1);
            let (window, behind) = rest.split_at(near);
            rest = behind;
            let end = window.last().unwrap_or(first).end();
            if end - first.offset > WINDOW {
                octets += self.read_large((target, lock), first).await?;
                continue;
            }
            let sealed = target.place.read(&self.name, first.offset..end).await?;
            let (cipher, window, begins) = (self.cipher.clone(), window.to_vec(), first.offset);
            let read = seal::off_thread(sealed.len(), move || open_window(&cipher, &sealed, &window, begins)).await;
            octets += read.map_err(|error| named(&self.name, error))?;
        }
        Ok(octets)
    }

    async fn read_large(&self, (target, lock): (&Target, Option<&Lock>), body: &Packed) -> Result<u64, Error> {
        let mut octets = 0;
        let mut number = 0;
        while let Some(piece) = self.piece(target, body, number).await? {
            octets += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            number += 1;
            lock::renew(lock).await?;
        }
        if octets == body.size { Ok(octets) } else { Err(named(&self.name, wrong_size(body))) }
    }
}

impl Packed {
    fn end(&self) -> u64 {
        self.offset + self.frames.iter().map(|octets| u64::from(*octets)).sum::<u64>()
    }
}

fn wrong_size(body: &Packed) -> Error {
    Error::BackupDamaged(format!("the body {} has not its size", body.blob))
}

/// Opens every frame of some bodies, of which the first begins where the octets do.
fn open_window(cipher: &Cipher, sealed: &[u8], bodies: &[Packed], begins: u64) -> Result<u64, Error> {
    let mut all = 0;
    for body in bodies {
        let start = usize::try_from(body.offset - begins).unwrap_or(usize::MAX);
        let mut rest = sealed.get(start..).unwrap_or_default();
        let mut octets = 0;
        for (number, stored) in (body.first_frame..).zip(&body.frames) {
            let length = usize::try_from(*stored).unwrap_or(usize::MAX);
            let (frame, behind) = rest.split_at_checked(length).ok_or_else(|| wrong_size(body))?;
            octets += u64::try_from(cipher.open(number, frame)?.len()).unwrap_or(u64::MAX);
            rest = behind;
        }
        if octets != body.size {
            return Err(wrong_size(body));
        }
        all += octets;
    }
    Ok(all)
}

/// Opens the frames of an index, of which the first has this number.
fn open_index(cipher: &Cipher, mut sealed: &[u8], first_frame_number: u32) -> Result<PackIndexRow, Error> {
    let damaged = || Error::BackupDamaged("its index cannot be read".to_owned());
    let mut content = Vec::new();
    let mut number = first_frame_number;
    while !sealed.is_empty() {
        let frame = first_frame(sealed).ok_or_else(damaged)?;
        content.append(&mut cipher.open(number, frame)?);
        number = number.checked_add(1).ok_or_else(damaged)?;
        sealed = &sealed[frame.len()..];
    }
    PackIndexRow::decode(content.as_slice()).map_err(|_| damaged())
}

/// Where each body lies: one behind the other, before the index, in the order of their ids.
fn places(index: PackIndexRow, begins: u64, frames: u32) -> Result<Vec<Packed>, Error> {
    let damaged = || Error::BackupDamaged("its index does not fit its bodies".to_owned());
    let (mut end, mut number) = (u64::try_from(HEADER).unwrap_or(u64::MAX), 0);
    let mut bodies: Vec<Packed> = Vec::with_capacity(index.bodies.len());
    for row in index.bodies {
        let blob = BlobId::new(row.blob.as_slice().try_into().map_err(|_| damaged())?);
        let PackedRow { size, offset, first_frame, .. } = row;
        if bodies.last().is_some_and(|last| last.blob >= blob) || offset < end || first_frame < number {
            return Err(damaged());
        }
        let stored = row.frames.iter().map(|octets| u64::from(*octets)).sum();
        end = offset.checked_add(stored).ok_or_else(damaged)?;
        number = u32::try_from(row.frames.len()).ok().and_then(|n| n.checked_add(first_frame)).ok_or_else(damaged)?;
        bodies.push(Packed { blob, size, offset, first_frame, frames: row.frames.into() });
    }
    if end <= begins && number <= frames { Ok(bodies) } else { Err(damaged()) }
}
