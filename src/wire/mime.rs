//! Reading MIME messages (RFC 2045 to 2049, RFC 5322): structure, sections, fields and text.
//!
//! Everything here takes bytes and gives values; nothing fails on bad input, it only finds less. Every walk is linear in
//! its input and bounded by `Limits`, since a message is the most hostile thing that a mail server holds.

mod address;
mod charset;
mod date;
mod encoded_word;
mod envelope;
mod fields;
mod html;
mod msg_id;
mod parameters;
mod section;
mod structure;
mod subject;
mod text;
mod transfer;

pub use address::parse_addresses;
pub use charset::decode_charset;
pub use date::{format_date, parse_date};
pub use encoded_word::decode_words;
pub use envelope::{envelope, sent_at, thread_ids};
pub use fields::{Field, FieldFilter, Fields, fields, filter_fields, find, unfold};
pub use html::html_to_text;
pub use msg_id::msg_ids;
pub use parameters::{Structured, parse_structured};
pub use section::{Section, SectionSpan, SectionText, section_span};
pub use structure::{Limits, StructureBuilder, parse_structure};
pub use subject::base_subject;
pub use text::{decoded_part, is_text, part_text};
pub use transfer::{decode_base64, decode_quoted_printable, decode_transfer};
