//! The parameters of MAIL and RCPT: SIZE, BODY, SMTPUTF8, AUTH and those of delivery status notifications.
//!
//! Apart from the verbs because each extension brings its own; one function a parameter, one table that names them.

use posthouse_mail::{Address, BodyType, DsnNotify, DsnReturn, OriginalRecipient};

use super::{CommandFault, Mail, Rcpt};
use crate::smtp::xtext;

/// RFC 3461 §4.4: octets of ENVID as sent.
const ENVELOPE_ID_MAX: usize = 100;
/// RFC 3461 §4.2: octets of ORCPT as sent.
const ORIGINAL_RECIPIENT_MAX: usize = 500;

/// Reads ` KEYWORD=value KEYWORD …` and hands each pair to `set`.
fn for_each<'a>(
    rest: &'a str,
    mut set: impl FnMut(&str, Option<&'a str>) -> Result<(), CommandFault>,
) -> Result<(), CommandFault> {
    let mut seen: Vec<String> = Vec::new();
    for word in rest.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = word.split_once('=').map_or((word, None), |(keyword, value)| (keyword, Some(value)));
        // RFC 5321 §4.1.2 `esmtp-keyword`, `esmtp-value`; RFC 6531 §3.3 widens the value to UTF-8.
        let keyword_ok = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
            && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let value_ok = value.is_none_or(|v| !v.is_empty() && v.chars().all(|c| c > ' ' && c != '=' && !c.is_control()));
        let keyword = keyword.to_ascii_uppercase();
        if !keyword_ok || !value_ok || seen.contains(&keyword) {
            return Err(CommandFault::Parameter(keyword));
        }
        set(&keyword, value)?;
        seen.push(keyword);
    }
    Ok(())
}

/// Reads the parameters of MAIL into `mail`.
pub(super) fn mail(rest: &str, mail: &mut Mail) -> Result<(), CommandFault> {
    for_each(rest, |keyword, value| {
        let done = match keyword {
            "SIZE" => value.and_then(size).map(|size| mail.declared_size = Some(size)),
            "BODY" => value.and_then(body).map(|body| mail.body = body),
            "SMTPUTF8" => value.is_none().then(|| mail.smtputf8 = true),
            "RET" => value.and_then(dsn_return).map(|ret| mail.dsn_return = Some(ret)),
            "ENVID" => value.and_then(envelope_id).map(|id| mail.envelope_id = Some(id)),
            // RFC 4954 §5: the name is for servers that trust the client; we trust none, and so treat it as `<>`.
            "AUTH" => value.filter(|value| is_submitter(value)).map(|_| ()),
            _ => return Err(CommandFault::UnknownParameter(keyword.to_owned())),
        };
        done.ok_or_else(|| CommandFault::Parameter(keyword.to_owned()))
    })
}

/// Reads the parameters of RCPT into `rcpt`.
pub(super) fn rcpt(rest: &str, rcpt: &mut Rcpt) -> Result<(), CommandFault> {
    for_each(rest, |keyword, value| {
        let done = match keyword {
            "NOTIFY" => value.and_then(notify).map(|notify| rcpt.notify = Some(notify)),
            "ORCPT" => value.and_then(original_recipient).map(|original| rcpt.original = Some(original)),
            _ => return Err(CommandFault::UnknownParameter(keyword.to_owned())),
        };
        done.ok_or_else(|| CommandFault::Parameter(keyword.to_owned()))
    })
}

/// RFC 1870 §4: at most 20 digits; what no `u64` holds is larger than any limit.
fn size(value: &str) -> Option<u64> {
    let digits = value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

/// RFC 6152 §2; RFC 3030 §3 for BINARYMIME.
fn body(value: &str) -> Option<BodyType> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(BodyType::SevenBit),
        "8BITMIME" => Some(BodyType::EightBitMime),
        "BINARYMIME" => Some(BodyType::BinaryMime),
        _ => None,
    }
}

/// RFC 3461 §4.3.
fn dsn_return(value: &str) -> Option<DsnReturn> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(DsnReturn::Full),
        "HDRS" => Some(DsnReturn::Headers),
        _ => None,
    }
}

/// RFC 3461 §4.4: printable ASCII once decoded; a control character would break the report that repeats it.
fn envelope_id(value: &str) -> Option<String> {
    let decoded = (value.len() <= ENVELOPE_ID_MAX).then(|| xtext::decode(value))??;
    decoded.bytes().all(|b| b == b' ' || b.is_ascii_graphic()).then_some(decoded)
}

/// RFC 4954 §5: `<>` or a mailbox, in xtext.
fn is_submitter(value: &str) -> bool {
    xtext::decode(value).is_some_and(|name| name == "<>" || Address::parse(&name).is_ok())
}

/// RFC 3461 §4.1: NEVER stands alone; the others form a list.
fn notify(value: &str) -> Option<DsnNotify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(DsnNotify::NEVER);
    }
    let mut notify = DsnNotify::NEVER;
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => notify.success = true,
            "FAILURE" => notify.failure = true,
            "DELAY" => notify.delay = true,
            _ => return None,
        }
    }
    Some(notify)
}

/// RFC 3461 §4.2: `rfc822;alice@example.org`.
fn original_recipient(value: &str) -> Option<OriginalRecipient> {
    if value.len() > ORIGINAL_RECIPIENT_MAX {
        return None;
    }
    let (address_type, address) = value.split_once(';')?;
    let is_atom = !address_type.is_empty() && address_type.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // todo RFC 6533 §3: the \x{…} escapes of the address type utf-8 are kept as they came.
    let address = xtext::decode(address)?;
    let printable = !address.is_empty() && !address.chars().any(char::is_control);
    (is_atom && printable).then(|| OriginalRecipient { address_type: address_type.to_ascii_lowercase(), address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_mail(rest: &str, expect: Result<fn(&Mail) -> bool, CommandFault>) {
        let mut value = Mail::default();
        match (mail(rest, &mut value), expect) {
            (Ok(()), Ok(holds)) => assert!(holds(&value), "{rest:?} gave {value:?}"),
            (Err(fault), Err(expect)) => assert_eq!(fault, expect, "{rest:?}"),
            (result, _) => panic!("{rest:?} gave {result:?}"),
        }
    }

    fn bad(keyword: &str) -> CommandFault {
        CommandFault::Parameter(keyword.to_owned())
    }

    #[test]
    fn mail_parameters_are_read() {
        check_mail("", Ok(|m| m.declared_size.is_none()));
        check_mail(
            " SIZE=1000 body=8bitmime",
            Ok(|m| m.declared_size == Some(1000) && m.body == BodyType::EightBitMime),
        );
        check_mail(" SIZE=99999999999999999999", Ok(|m| m.declared_size == Some(u64::MAX)));
        check_mail(" SMTPUTF8", Ok(|m| m.smtputf8));
        check_mail(" RET=HDRS ENVID=a+2Bb", Ok(|m| m.envelope_id.as_deref() == Some("a+b")));
        check_mail(" AUTH=<>", Ok(|m| !m.smtputf8));
        check_mail(" AUTH=e+3Dmc2@example.com", Ok(|m| !m.smtputf8));
    }

    #[test]
    fn wrong_mail_parameters_are_named() {
        check_mail(" SIZE=x", Err(bad("SIZE")));
        check_mail(" SIZE", Err(bad("SIZE")));
        check_mail(" SIZE=", Err(bad("SIZE")));
        check_mail(" SIZE=123456789012345678901", Err(bad("SIZE")));
        check_mail(" SIZE=1 SIZE=2", Err(bad("SIZE")));
        check_mail(" BODY=9BIT", Err(bad("BODY")));
        check_mail(" SMTPUTF8=1", Err(bad("SMTPUTF8")));
        check_mail(" RET=SOME", Err(bad("RET")));
        check_mail(" ENVID=a+0Db", Err(bad("ENVID")));
        check_mail(&format!(" ENVID={}", "a".repeat(101)), Err(bad("ENVID")));
        check_mail(" AUTH=nobody", Err(bad("AUTH")));
        check_mail(" =1", Err(bad("")));
        check_mail(" XFOO=1", Err(CommandFault::UnknownParameter("XFOO".into())));
    }

    fn check_rcpt(rest: &str, expect: Option<fn(&Rcpt) -> bool>) {
        let mut value = Rcpt::to(posthouse_mail::ForwardPath::Postmaster);
        let result = rcpt(rest, &mut value);
        match expect {
            Some(holds) => assert!(result.is_ok() && holds(&value), "{rest:?} gave {result:?} {value:?}"),
            None => assert!(result.is_err(), "{rest:?} gave {value:?}"),
        }
    }

    #[test]
    fn rfc3461_4_1_never_stands_alone() {
        check_rcpt(" NOTIFY=NEVER", Some(|r| r.notify == Some(DsnNotify::NEVER)));
        check_rcpt(" NOTIFY=SUCCESS,delay", Some(|r| r.notify.is_some_and(|n| n.success && n.delay && !n.failure)));
        check_rcpt(" NOTIFY=NEVER,SUCCESS", None);
        check_rcpt(" NOTIFY=", None);
        check_rcpt(" NOTIFY", None);
    }

    #[test]
    fn rfc3461_4_2_original_recipient_is_typed_xtext() {
        check_rcpt(
            " ORCPT=RFC822;a+2Bb@x.org",
            Some(|r| r.original.as_ref().is_some_and(|o| o.address == "a+b@x.org")),
        );
        check_rcpt(" ORCPT=a@x.org", None);
        check_rcpt(" ORCPT=rfc822;a+0D+0Ab", None);
        check_rcpt(&format!(" ORCPT=rfc822;{}", "a".repeat(500)), None);
        check_rcpt(" XFOO", None);
    }
}
