//! The paths of MAIL and RCPT: `<alice@example.org>`, `<>`, `<Postmaster>`; apart because this grammar is where servers
//! are lenient in different ways, and so can be made to disagree about who gets a message.

use posthouse_mail::address::{Domain, PATH_MAX};

/// A path and what followed it on the line.
pub(super) struct Cut<'a> {
    /// The mailbox between the angle brackets, a source route already dropped.
    pub mailbox: &'a str,
    /// What follows the closing bracket: nothing, or parameters.
    pub rest: &'a str,
}

/// Cuts the path off the front of a command's argument.
pub(super) fn cut(text: &str) -> Option<Cut<'_>> {
    let inner = text.strip_prefix('<')?;
    let end = closing_bracket(inner)?;
    // RFC 5321 §4.5.3.1.3: 256 octets with the brackets.
    if end + 2 > PATH_MAX {
        return None;
    }
    let rest = &inner[end + 1..];
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    Some(Cut { mailbox: drop_source_route(&inner[..end])?, rest })
}

/// The first `>` outside a quoted string.
fn closing_bracket(inner: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// RFC 5321 §4.1.1.3 and Appendix C: a source route must be understood and should be dropped.
fn drop_source_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let (route, mailbox) = path.split_once(':')?;
    let is_hop = |hop: &str| hop.strip_prefix('@').is_some_and(|name| Domain::parse(name).is_ok());
    // A route leads to a mailbox, never to the null path.
    (!mailbox.is_empty() && route.split(',').all(is_hop)).then_some(mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(&str, &str)>) {
        assert_eq!(cut(text).map(|cut| (cut.mailbox, cut.rest)), expect, "{text:?}");
    }

    #[test]
    fn rfc5321_4_1_2_path_grammar() {
        check("<a@x.org>", Some(("a@x.org", "")));
        check("<a@x.org> SIZE=1", Some(("a@x.org", " SIZE=1")));
        check("<>", Some(("", "")));
        check("<\"a>b\"@x.org>", Some(("\"a>b\"@x.org", "")));
        check("<\"a\\\">\"@x.org>", Some(("\"a\\\">\"@x.org", "")));
        check("<a@x.org>SIZE=1", None);
        check("<a@x.org", None);
        check("a@x.org", None);
        check(" <a@x.org>", None);
        check("<\"a@x.org>", None);
        check(&format!("<a@{}>", "b".repeat(300)), None);
    }

    #[test]
    fn rfc5321_appendix_c_source_routes_are_dropped() {
        check("<@a.org,@b.org:u@c.org>", Some(("u@c.org", "")));
        check("<@a.org:u@[IPv6:::1]>", Some(("u@[IPv6:::1]", "")));
        check("<@a.org:>", None);
        check("<@a.org,b.org:u@c.org>", None);
        check("<@a_b..org:u@c.org>", None);
        check("<@a.org>", None);
    }
}
