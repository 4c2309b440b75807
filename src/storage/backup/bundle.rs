//! Many small records as a few objects of rows: written in order as they come, read object by object.

use std::marker::PhantomData;

use super::seal::CONTENT_MAX;
use super::target::Target;
use crate::error::Error;

/// Collects records into objects.
pub(crate) struct BundleWriter<'t, T> {
    target: &'t Target,
    buffer: Vec<u8>,
    names: Vec<Vec<u8>>,
    written: u64,
    of: PhantomData<fn(T)>,
}

/// What became of the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bundle {
    pub names: Vec<Vec<u8>>,
    /// Octets that were not there before.
    pub written: u64,
}

impl<'t, T: prost::Message> BundleWriter<'t, T> {
    pub fn new(target: &'t Target) -> Self {
        Self { target, buffer: Vec::new(), names: Vec::new(), written: 0, of: PhantomData }
    }

    pub async fn push(&mut self, record: &T) -> Result<(), Error> {
        record.encode_length_delimited(&mut self.buffer).expect("a Vec grows as needed");
        if self.buffer.len() >= CONTENT_MAX { self.cut().await } else { Ok(()) }
    }

    /// Ends the object in the making; the next record begins another.
    pub async fn cut(&mut self) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            let (name, written) = self.target.put_rows(std::mem::take(&mut self.buffer)).await?;
            self.names.push(name.to_vec());
            self.written += written;
        }
        Ok(())
    }

    pub async fn finish(mut self) -> Result<Bundle, Error> {
        self.cut().await?;
        Ok(Bundle { names: self.names, written: self.written })
    }
}

/// The records of one object.
pub(crate) async fn read<T: prost::Message + Default>(target: &Target, name: &[u8]) -> Result<Vec<T>, Error> {
    let content = target.rows(name).await?;
    let mut rest = content.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let record = T::decode_length_delimited(&mut rest);
        records.push(record.map_err(|error| Error::BackupDamaged(format!("a record: {error}")))?);
    }
    Ok(records)
}

/// The records of several objects that are known to be few.
pub(crate) async fn read_all<T: prost::Message + Default>(target: &Target, names: &[Vec<u8>]) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    for name in names {
        all.extend(read(target, name).await?);
    }
    Ok(all)
}
