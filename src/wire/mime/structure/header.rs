//! What one part's header says of the part: type, encoding, disposition (RFC 2045, RFC 2183, RFC 3282, RFC 2557).
//!
//! Apart from the scanner, which knows where parts are but not what they claim to be.

use posthouse_mail::structure::{BodyPart, EnvelopeStructure, HeaderAddress, Parameter};

use super::super::charset::decode_charset;
use super::super::fields::fields;
use super::super::parameters::{RawParameter, Structured, parse_structured};

/// The fields of a part's header that structure needs; of a repeated field the first counts.
#[derive(Debug, Default)]
pub(super) struct PartHeader {
    media_type: String,
    media_subtype: String,
    parameters: Vec<RawParameter>,
    /// Of a multipart; RFC 2046 §5.1.1.
    pub(super) boundary: Option<Vec<u8>>,
    transfer_encoding: Option<String>,
    content_id: Option<String>,
    description: Option<String>,
    md5: Option<String>,
    disposition: Option<Structured>,
    languages: Vec<String>,
    location: Option<String>,
}

impl PartHeader {
    pub(super) fn read(header: &[u8], in_digest: bool) -> Self {
        let mut read = Self::default();
        let mut content_type = None;
        for field in fields(header) {
            match field.name.to_ascii_lowercase().as_slice() {
                b"content-type" if content_type.is_none() => content_type = Some(parse_structured(&field.value())),
                b"content-transfer-encoding" if read.transfer_encoding.is_none() => {
                    read.transfer_encoding = token(&parse_structured(&field.value()).value);
                }
                b"content-id" if read.content_id.is_none() => read.content_id = Some(field.text()),
                b"content-description" if read.description.is_none() => read.description = Some(field.text()),
                b"content-md5" if read.md5.is_none() => read.md5 = Some(field.text()),
                b"content-disposition" if read.disposition.is_none() => {
                    read.disposition =
                        Some(parse_structured(&field.value())).filter(|found| token(&found.value).is_some());
                }
                b"content-language" if read.languages.is_empty() => read.languages = languages(&field.text()),
                b"content-location" if read.location.is_none() => read.location = Some(field.text()),
                _ => {}
            }
        }
        read.set_type(content_type, in_digest);
        read
    }

    fn set_type(&mut self, content_type: Option<Structured>, in_digest: bool) {
        let known = content_type.and_then(|found| {
            let (media_type, media_subtype) = found.value.split_once('/')?;
            Some((token(media_type)?, token(media_subtype)?, found))
        });
        match known {
            Some((media_type, media_subtype, found)) => {
                if media_type == "multipart" {
                    self.boundary = found.parameter("boundary").and_then(boundary);
                }
                (self.media_type, self.media_subtype, self.parameters) = (media_type, media_subtype, found.parameters);
            }
            // RFC 2046 §5.1.5: in a digest a part is a message unless it says otherwise.
            None if in_digest => (self.media_type, self.media_subtype) = ("message".into(), "rfc822".into()),
            // RFC 2045 §5.2: no Content-Type, or one that cannot be read, means plain US-ASCII text.
            None => {
                (self.media_type, self.media_subtype) = ("text".into(), "plain".into());
                self.parameters = vec![RawParameter { name: "charset".into(), value: b"us-ascii".to_vec() }];
            }
        }
    }

    /// Writes the part; past `left` octets only its type and encoding. `true` says that something was left out.
    pub(super) fn fill(self, part: &mut BodyPart, left: usize) -> bool {
        part.media_type = self.media_type;
        part.media_subtype = self.media_subtype;
        // RFC 2045 §6.1: the default.
        part.transfer_encoding = self.transfer_encoding.unwrap_or_else(|| "7bit".to_owned());
        let mut whole =
            BodyPart { parameters: shown(self.parameters), languages: self.languages, ..BodyPart::default() };
        whole.content_id = self.content_id;
        whole.description = self.description;
        whole.md5 = self.md5;
        whole.location = self.location;
        if let Some(disposition) = self.disposition {
            whole.disposition = Some(disposition.value);
            whole.disposition_parameters = shown(disposition.parameters);
        }
        if cost(&whole) > left {
            return true;
        }
        part.parameters = whole.parameters;
        part.languages = whole.languages;
        part.content_id = whole.content_id;
        part.description = whole.description;
        part.md5 = whole.md5;
        part.location = whole.location;
        part.disposition = whole.disposition;
        part.disposition_parameters = whole.disposition_parameters;
        false
    }
}

/// A token of RFC 2045 §5.1; RFC 6838 §4.2 keeps registered ones under 128 octets.
fn token(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= 127;
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b));
    (fits && plain).then(|| text.to_ascii_lowercase())
}

/// RFC 2046 §5.1.1: never empty, never ending with a space. Far longer ones than its 70 octets are taken too.
fn boundary(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii_end();
    (!value.is_empty() && value.len() <= BOUNDARY_MAX).then(|| value.to_vec())
}

/// RFC 3282 §2: a list with commas.
fn languages(value: &str) -> Vec<String> {
    let tags = value.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    tags.take(LANGUAGES_MAX).map(str::to_owned).collect()
}

fn shown(parameters: Vec<RawParameter>) -> Vec<Parameter> {
    let shown = |p: RawParameter| Parameter { name: p.name, value: decode_charset(None, &p.value) };
    parameters.into_iter().map(shown).collect()
}

/// About how many octets a part keeps, its children not counted.
pub(super) fn cost(part: &BodyPart) -> usize {
    let parameters = part.parameters.iter().chain(&part.disposition_parameters);
    let texts = [&part.content_id, &part.description, &part.md5, &part.disposition, &part.location];
    parameters.map(|p| p.name.len() + p.value.len() + 16).sum::<usize>()
        + texts.iter().map(|text| text.as_ref().map_or(0, String::len)).sum::<usize>()
        + part.languages.iter().map(|tag| tag.len() + 16).sum::<usize>()
}

/// About how many octets an ENVELOPE keeps.
pub(super) fn envelope_cost(envelope: &EnvelopeStructure) -> usize {
    let texts = [&envelope.date, &envelope.subject, &envelope.in_reply_to, &envelope.message_id];
    let lists = [&envelope.from, &envelope.sender, &envelope.reply_to, &envelope.to, &envelope.cc, &envelope.bcc];
    let octets = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
    let address = |a: &HeaderAddress| 16 + octets(&a.name) + octets(&a.mailbox) + octets(&a.host);
    texts.iter().map(|text| octets(text)).sum::<usize>()
        + lists.iter().flat_map(|list| list.iter()).map(address).sum::<usize>()
}

const BOUNDARY_MAX: usize = 256;
const LANGUAGES_MAX: usize = 100;
