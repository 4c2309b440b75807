//! Rows that cannot be read: a single flipped bit is turned back, everything else is laid aside.

use posthouse_mail::stage::BodyRef;

use super::pen::{Edit, Pen};
use crate::check::rows::{Entities, Step};
use crate::engine::{KEYS_END, RangeRequest};
use crate::error::Error;
use crate::keys::{self, KeyParts, Place, Subspace};
use crate::seal;

/// Rows looked at in one step.
const STEP: usize = 500;

/// Mends rows and tells whose there are.
pub(super) async fn mend(pen: &mut Pen<'_>) -> Result<Entities, Error> {
    let mut entities = Entities::default();
    let mut begin = Vec::new();
    loop {
        let mut step = Step::new(pen.store);
        let page = step.page(RangeRequest::new(&begin, KEYS_END).limit(STEP)).await?;
        for (key, octets) in &page.rows {
            let Some(place) = keys::place(key) else {
                pen.lay_aside(key, octets, "no row of this version lies there").await?;
                continue;
            };
            entities.note(key, &place);
            match step.open(key, octets, &place).await {
                Err(Error::Corrupt(_)) => one(pen, key, octets, &place).await?,
                Err(error) => return Err(error),
                Ok(()) if place.whole.is_some() && !step.belongs(&place).await? => {
                    pen.lay_aside(key, octets, "the row that it is a piece of is gone").await?;
                }
                Ok(()) => {}
            }
        }
        match page.rows.last() {
            Some((key, _)) if page.more => begin = keys::after(key),
            _ => return Ok(entities),
        }
    }
}

async fn one(pen: &mut Pen<'_>, key: &[u8], octets: &[u8], place: &Place) -> Result<(), Error> {
    if !keys::is_sealed(key) {
        return pen.mend(Edit::Clear(key.to_vec()), &place.words, "a counter that was none; counted anew").await;
    }
    if let Some(right) = seal::turn_back(key, octets) {
        return pen.mend(Edit::Lay(key.to_vec(), right), &place.words, "one bit was flipped; turned back").await;
    }
    if place.subspace == Subspace::BlobState && body_is_right(pen, key, octets).await? {
        pen.say(&place.words, "its seal was wrong, the body that it leads to is right; sealed anew");
        return Ok(());
    }
    pen.lay_aside(key, octets, "it could not be read").await
}

/// Whether the row of a body leads to content that has the body's name in spite of its seal. If so it is sealed anew.
async fn body_is_right(pen: &Pen<'_>, key: &[u8], octets: &[u8]) -> Result<bool, Error> {
    let Some((value, blob)) = octets.split_last_chunk::<{ seal::WIDTH }>().zip(KeyParts::of(key).blob()) else {
        return Ok(false);
    };
    let (value, _) = value;
    pen.write(&[Edit::Set(key.to_vec(), value.to_vec())]).await?;
    let content = pen.store.body_read(&BodyRef { blob, size: u64::MAX }, 0..u64::MAX).await;
    let mut hasher = pen.store.body_hasher();
    let right = content.is_ok_and(|content| hasher.update(&content).finalize().as_bytes() == blob.as_bytes());
    if !right {
        pen.write(&[Edit::Lay(key.to_vec(), octets.to_vec())]).await?;
    }
    Ok(right)
}
