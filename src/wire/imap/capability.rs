//! What the server announces, as the session's state allows (RFC 3501 §7.2.1).
//!
//! One list, so that nothing is announced that the table of commands refuses.

use super::state::{Situation, State};

/// Announced in every state. CHILDREN is RFC 3348, UNSELECT RFC 3691, UIDPLUS RFC 4315, MOVE RFC 6851, IDLE RFC 2177,
/// NAMESPACE RFC 2342, ID RFC 2971, SASL-IR RFC 4959, ENABLE RFC 5161, SPECIAL-USE RFC 6154, LIST-EXTENDED RFC 5258,
/// LIST-STATUS RFC 5819, LITERAL+ RFC 7888.
const ALWAYS: [&str; 6] = ["IMAP4rev1", "LITERAL+", "SASL-IR", "ID", "ENABLE", "IDLE"];
const AFTER_LOGIN: [&str; 8] =
    ["NAMESPACE", "UIDPLUS", "MOVE", "SPECIAL-USE", "CHILDREN", "UNSELECT", "LIST-EXTENDED", "LIST-STATUS"];

/// The words after `CAPABILITY`.
pub fn capabilities(situation: Situation) -> String {
    let mut words = ALWAYS.to_vec();
    if situation.state == State::NotAuthenticated {
        if !situation.tls && situation.tls_offered {
            words.push("STARTTLS");
        }
        words.push(if situation.password_allowed { "AUTH=PLAIN" } else { "LOGINDISABLED" });
    }
    // Clients that ask only once, before login, must see these too.
    words.extend(AFTER_LOGIN);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_is_offered_only_where_it_is_taken() {
        let mut situation = Situation {
            state: State::NotAuthenticated,
            read_only: false,
            tls: false,
            tls_offered: true,
            password_allowed: false,
        };
        let words = capabilities(situation);
        assert!(words.contains("STARTTLS") && words.contains("LOGINDISABLED") && !words.contains("AUTH="));
        situation.tls = true;
        situation.password_allowed = true;
        let words = capabilities(situation);
        assert!(!words.contains("STARTTLS") && !words.contains("LOGINDISABLED") && words.contains("AUTH=PLAIN"));
        situation.state = State::Authenticated;
        assert!(!capabilities(situation).contains("AUTH="));
    }
}
