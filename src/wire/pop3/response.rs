//! Answers of one line (RFC 1939 §3, RFC 2449 §8): every one that we send is worded here.

/// `+OK` or `-ERR`, a response code where one helps the client, and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    positive: bool,
    /// RFC 2449 §8: `AUTH`, `SYS/TEMP`, `IN-USE`, `LOGIN-DELAY`.
    code: Option<&'static str>,
    text: String,
}

impl Response {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { positive: true, code: None, text: text.into() }
    }

    pub fn err(text: impl Into<String>) -> Self {
        Self { positive: false, code: None, text: text.into() }
    }

    fn coded(code: &'static str, text: &str) -> Self {
        Self { positive: false, code: Some(code), text: text.to_owned() }
    }

    pub fn greeting(hostname: &str) -> Self {
        Self::ok(format!("{hostname} POP3 server ready"))
    }

    /// RFC 3206 §5: the credentials are wrong, whatever part of them.
    pub fn wrong_credentials() -> Self {
        Self::coded("AUTH", "wrong user name or password")
    }

    /// RFC 3206 §4: a fault of ours that passes.
    pub fn temporary() -> Self {
        Self::coded("SYS/TEMP", "temporary failure, try again later")
    }

    /// RFC 3206 §4, with its reason: an overload or a limit.
    pub fn try_later(text: &str) -> Self {
        Self::coded("SYS/TEMP", text)
    }

    /// RFC 2449 §8.1.2: another session holds the maildrop.
    pub fn in_use() -> Self {
        Self::coded("IN-USE", "another session has this maildrop open")
    }

    /// RFC 1939 §6: some of the marked messages are still there.
    pub fn some_not_removed() -> Self {
        Self::err("some deleted messages not removed")
    }

    pub fn is_positive(&self) -> bool {
        self.positive
    }

    /// `temporary` or `permanent`, for a refusal's metric.
    pub fn kind(&self) -> &'static str {
        if matches!(self.code, Some("SYS/TEMP" | "IN-USE")) { "temporary" } else { "permanent" }
    }

    /// The bytes on the wire. A response line is at most 512 octets (RFC 2449 §4), CRLF included.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut line = String::from(if self.positive { "+OK" } else { "-ERR" });
        if let Some(code) = self.code {
            line.push_str(&format!(" [{code}]"));
        }
        line.push(' ');
        // What came from elsewhere must not end the line early.
        line.extend(self.text.chars().map(|c| if c.is_control() { ' ' } else { c }));
        let mut end = line.len().min(510);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str("\r\n");
        line.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_one_line_whatever_its_text() {
        assert_eq!(Response::ok("a\r\n-ERR b").to_wire(), b"+OK a  -ERR b\r\n");
        assert_eq!(Response::in_use().to_wire(), b"-ERR [IN-USE] another session has this maildrop open\r\n");
        assert_eq!(Response::err("ä".repeat(600)).to_wire().len(), 511);
    }
}
