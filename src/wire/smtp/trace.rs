//! The trace fields that a server puts above a message: Received and Return-Path (RFC 5321 §4.4).
//!
//! Apart from the machines because the spool and the mailbox write them too.

use std::net::IpAddr;

use posthouse_mail::stage::Origin;
use posthouse_mail::{ForwardPath, IngestId, ReversePath, UnixMillis};

/// What a Received field tells.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    pub origin: &'a Origin,
    /// The client's name in DNS, where it is known and confirmed.
    pub client_name: Option<&'a str>,
    /// Our own name.
    pub hostname: &'a str,
    pub id: IngestId,
    /// The one recipient. `None` when there are several: naming them would tell each of the others (RFC 5321 §7.2).
    pub recipient: Option<&'a ForwardPath>,
    pub at: UnixMillis,
}

impl Received<'_> {
    /// The field, folded, ending with CRLF.
    pub fn to_field(&self) -> String {
        let Origin { client_ip, hello, protocol, tls, .. } = self.origin;
        let name = self.client_name.map(|name| format!("{name} ")).unwrap_or_default();
        let tls = tls.as_deref().map(|tls| format!("\r\n\t({tls})")).unwrap_or_default();
        let recipient = self.recipient.map(|path| format!("\r\n\tfor <{path}>")).unwrap_or_default();
        format!(
            "Received: from {hello} ({name}{address})\r\n\tby {host} (Posthouse) with {protocol}{tls}\r\n\tid {id}{recipient};\r\n\t{date}\r\n",
            address = address_literal(*client_ip),
            host = self.hostname,
            id = self.id,
            date = date_time(self.at),
        )
    }
}

/// RFC 5321 §4.1.3.
pub fn address_literal(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

/// RFC 5321 §4.4: the reverse-path, added at final delivery.
pub fn return_path_field(path: &ReversePath) -> String {
    format!("Return-Path: <{path}>\r\n")
}

/// RFC 5322 §3.3 `date-time`, in UTC.
pub fn date_time(at: UnixMillis) -> String {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    // A clock beyond the year 9999 has no date; the epoch then shows that the clock is wrong.
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMillis = UnixMillis(1_700_000_000_123);

    #[test]
    fn rfc5322_3_3_date_time() {
        assert_eq!(date_time(AT), "Tue, 14 Nov 2023 22:13:20 +0000");
        assert_eq!(date_time(UnixMillis(0)), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date_time(UnixMillis(u64::MAX)), "Thu, 01 Jan 1970 00:00:00 +0000");
    }

    #[test]
    fn rfc5321_4_4_received_names_both_sides_the_protocol_and_the_time() {
        let origin = Origin {
            client_ip: "192.0.2.7".parse().expect("an address"),
            hello: "mx.example.org".into(),
            protocol: "ESMTPS",
            tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384".into()),
            account: None,
        };
        let recipient = ForwardPath::parse("alice@x.org").expect("a path");
        let received = Received {
            origin: &origin,
            client_name: None,
            hostname: "mail.x.org",
            id: IngestId::new(0xabc),
            recipient: Some(&recipient),
            at: AT,
        };
        let expect = "Received: from mx.example.org ([192.0.2.7])\r\n\tby mail.x.org (Posthouse) with ESMTPS\r\n\t\
                      (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\tid iabc\r\n\tfor <alice@x.org>;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n";
        assert_eq!(received.to_field(), expect);
        let several = Received { recipient: None, client_name: Some("mx.example.org"), ..received };
        assert!(several.to_field().contains("from mx.example.org (mx.example.org [192.0.2.7])"));
        assert!(!several.to_field().contains("for <"));
    }

    #[test]
    fn rfc5321_4_4_return_path_of_a_report_is_empty() {
        assert_eq!(return_path_field(&ReversePath::Null), "Return-Path: <>\r\n");
        assert_eq!(address_literal("2001:db8::1".parse().expect("an address")), "[IPv6:2001:db8::1]");
    }
}
