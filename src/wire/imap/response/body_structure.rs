//! BODY and BODYSTRUCTURE (RFC 3501 §7.4.2).

use posthouse_mail::structure::{BodyPart, EnvelopeStructure, Parameter};

use super::envelope::put_envelope;
use super::text::{put_display, put_nstring, put_string};

/// Whether the extension data is given: BODYSTRUCTURE has it, BODY has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    With,
    Without,
}

/// The depth is bounded where the structure was made, by `wire/mime`.
pub fn put_body(out: &mut Vec<u8>, part: &BodyPart, extension: Extension) {
    out.push(b'(');
    if part.is_multipart() {
        put_multipart(out, part, extension);
    } else {
        put_single(out, part, extension);
    }
    out.push(b')');
}

fn put_multipart(out: &mut Vec<u8>, part: &BodyPart, extension: Extension) {
    part.children.iter().for_each(|child| put_body(out, child, extension));
    if part.children.is_empty() {
        // RFC 3501 §9 body-type-mpart has at least one part.
        put_body(out, &empty_text(), extension);
    }
    out.push(b' ');
    put_string(out, part.media_subtype.as_bytes());
    if extension == Extension::With {
        out.push(b' ');
        put_parameters(out, &part.parameters);
        put_common_extension(out, part);
    }
}

fn put_single(out: &mut Vec<u8>, part: &BodyPart, extension: Extension) {
    put_string(out, part.media_type.as_bytes());
    out.push(b' ');
    put_string(out, part.media_subtype.as_bytes());
    out.push(b' ');
    put_parameters(out, &part.parameters);
    out.push(b' ');
    put_nstring(out, part.content_id.as_deref().map(str::as_bytes));
    out.push(b' ');
    put_nstring(out, part.description.as_deref().map(str::as_bytes));
    out.push(b' ');
    put_string(out, part.transfer_encoding.as_bytes());
    put_display(out, format_args!(" {}", part.body_size()));
    // RFC 3501 knows the inner structure of message/rfc822 only; message/global is RFC 9051's.
    if part.is_message() && part.media_subtype == "rfc822" {
        out.push(b' ');
        let empty = EnvelopeStructure::default();
        put_envelope(out, part.inner_envelope.as_ref().unwrap_or(&empty));
        out.push(b' ');
        match part.children.first() {
            Some(root) => put_body(out, root, extension),
            None => put_body(out, &empty_text(), extension),
        }
        put_display(out, format_args!(" {}", part.line_count));
    } else if part.media_type == "text" {
        put_display(out, format_args!(" {}", part.line_count));
    }
    if extension == Extension::With {
        out.push(b' ');
        put_nstring(out, part.md5.as_deref().map(str::as_bytes));
        put_common_extension(out, part);
    }
}

/// Disposition, language and location.
fn put_common_extension(out: &mut Vec<u8>, part: &BodyPart) {
    out.push(b' ');
    match &part.disposition {
        Some(disposition) => {
            out.push(b'(');
            put_string(out, disposition.as_bytes());
            out.push(b' ');
            put_parameters(out, &part.disposition_parameters);
            out.push(b')');
        }
        None => out.extend_from_slice(b"NIL"),
    }
    out.push(b' ');
    match &part.languages[..] {
        [] => out.extend_from_slice(b"NIL"),
        [language] => put_string(out, language.as_bytes()),
        languages => put_list(out, languages.iter().map(String::as_bytes)),
    }
    out.push(b' ');
    put_nstring(out, part.location.as_deref().map(str::as_bytes));
}

fn put_parameters(out: &mut Vec<u8>, parameters: &[Parameter]) {
    if parameters.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    let words: Vec<String> = parameters.iter().flat_map(|p| rfc2231(p).into_iter()).collect();
    put_list(out, words.iter().map(String::as_bytes));
}

/// Name and value; beyond US-ASCII in the form that RFC 2231 §4 gives a header field, which clients decode.
fn rfc2231(parameter: &Parameter) -> [String; 2] {
    let Parameter { name, value } = parameter;
    if value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return [name.clone(), value.clone()];
    }
    let mut encoded = "utf-8''".to_owned();
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || b"-._".contains(&b) {
            encoded.push(char::from(b));
        } else {
            encoded.push_str(&format!("%{b:02X}"));
        }
    }
    [format!("{name}*"), encoded]
}

fn put_list<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    out.push(b'(');
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        put_string(out, item);
    }
    out.push(b')');
}

/// What stands where the grammar wants a part and there is none.
fn empty_text() -> BodyPart {
    BodyPart {
        media_type: "text".to_owned(),
        media_subtype: "plain".to_owned(),
        transfer_encoding: "7bit".to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_part() -> BodyPart {
        BodyPart {
            parameters: vec![Parameter { name: "charset".into(), value: "utf-8".into() }],
            body_end: 12,
            line_count: 2,
            ..empty_text()
        }
    }

    fn check(part: &BodyPart, extension: Extension, expect: &str) {
        let mut out = Vec::new();
        put_body(&mut out, part, extension);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expect);
    }

    #[test]
    fn a_text_part_has_its_lines() {
        let part = text_part();
        let body = "\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 12 2";
        check(&part, Extension::Without, &format!("({body})"));
        check(&part, Extension::With, &format!("({body} NIL NIL NIL NIL)"));
    }

    #[test]
    fn a_multipart_lists_its_parts() {
        let attachment = BodyPart {
            media_type: "application".into(),
            media_subtype: "pdf".into(),
            transfer_encoding: "base64".into(),
            disposition: Some("attachment".into()),
            disposition_parameters: vec![Parameter { name: "filename".into(), value: "ü.pdf".into() }],
            languages: vec!["de".into(), "en".into()],
            ..Default::default()
        };
        let part = BodyPart {
            media_type: "multipart".into(),
            media_subtype: "mixed".into(),
            children: vec![text_part(), attachment],
            ..Default::default()
        };
        let text = "(\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 12 2 NIL NIL NIL NIL)";
        let pdf = "(\"application\" \"pdf\" NIL NIL NIL \"base64\" 0 NIL \
            (\"attachment\" (\"filename*\" \"utf-8''%C3%BC.pdf\")) (\"de\" \"en\") NIL)";
        check(&part, Extension::With, &format!("({text}{pdf} \"mixed\" NIL NIL NIL NIL)"));
    }

    #[test]
    fn a_message_shows_its_own_structure() {
        let part = BodyPart {
            media_type: "message".into(),
            media_subtype: "rfc822".into(),
            transfer_encoding: "7bit".into(),
            body_end: 99,
            line_count: 7,
            inner_envelope: Some(EnvelopeStructure::default()),
            children: vec![text_part()],
            ..Default::default()
        };
        let nils = "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)";
        let text = "(\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 12 2)";
        check(&part, Extension::Without, &format!("(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 99 {nils} {text} 7)"));
    }

    #[test]
    fn an_empty_multipart_still_has_a_part() {
        let part = BodyPart { media_type: "multipart".into(), media_subtype: "mixed".into(), ..Default::default() };
        check(&part, Extension::Without, "((\"text\" \"plain\" NIL NIL NIL \"7bit\" 0 0) \"mixed\")");
    }
}
