//! DATA: from 354 to the reply that answers for the message (RFC 5321 §4.1.1.4).
//!
//! The one part of the dialogue that is not a step from line to line: a session that is in it goes on to its end.

use posthouse_mail::stage::Origin;
use posthouse_mail::{Envelope, Reply};
use posthouse_obs::emit;
use posthouse_obs::event::session::MessageReceived;
use posthouse_wire::smtp::data::DataLimits;
use tokio::time::Instant;

use super::desk::Desk;
use super::intake::{Completion, Intake, Purpose, Taken};
use super::{End, STREAM, SmtpSession, receiving};
use crate::clock;
use crate::session::submission;

impl<D: Desk> SmtpSession<D> {
    /// DATA, from 354 to the reply to its end.
    pub(super) async fn receive_data(&mut self, go_ahead: &Reply) -> Result<Reply, End> {
        self.say(go_ahead);
        self.flush().await?;
        let envelope = self.dialogue.envelope().cloned().expect("data follows an envelope");
        let (purpose, writer) = (self.purpose(&envelope), self.services.desk.body_writer());
        let mut intake = Intake::new(self.data_limits(), writer, purpose, &self.services.policy.hostname);
        self.presence.moved("data");
        let data_timeout = self.services.settings.smtp.data_timeout.get();
        while !intake.take(self.stream()).await {
            let deadline = Instant::now() + data_timeout;
            let deadline = self.transaction_deadline.map_or(deadline, |end| end.min(deadline));
            let stream = self.stream.as_mut().expect(STREAM);
            tokio::select! {
                biased;
                filled = stream.fill(deadline) => if let Err(error) = filled {
                    return Err(self.lost(&error).await);
                },
                () = self.services.calls.over() => {
                    self.services.calls.said_goodbye();
                    return Err(self.go_away().await);
                }
            }
        }
        let (message, reverse_path) = (envelope.id, envelope.reverse_path.clone());
        let (recipients, mut size) = (envelope.recipients.len(), 0);
        let (answer, outcome) = match intake.finish().await {
            Ok(taken) => {
                size = taken.staged.body.size;
                self.accept(envelope, taken).await
            }
            Err(refusal) => receiving::refused(refusal),
        };
        emit(MessageReceived {
            message,
            protocol: self.services.protocol.as_str(),
            client: self.client,
            reverse_path,
            recipients,
            size,
            outcome,
            reply: answer.lines.join(" "),
        });
        Ok(answer)
    }

    /// The message is whole: takes responsibility for it or refuses it. The 250 means that it is durable.
    async fn accept(&mut self, envelope: Envelope, taken: Taken) -> (Reply, &'static str) {
        let resolved = self.resolved.take();
        let login = self.dialogue.login();
        let origin = Origin {
            client_ip: self.client,
            hello: self.dialogue.hello().unwrap_or_default().to_owned(),
            protocol: self.dialogue.protocol(),
            tls: self.tls.clone(),
            account: login.map(|login| login.account),
        };
        let (desk, hostname) = (&self.services.desk, &self.services.policy.hostname);
        match login {
            Some(login) => {
                let sender =
                    submission::Submitter { desk, hostname, login, settings: &self.services.settings.submission };
                // Boxed, like the spool's way: the other has no use for its room.
                Box::pin(sender.submit((envelope, origin), taken)).await
            }
            None => receiving::receive(desk, hostname, (envelope, origin), taken, resolved).await,
        }
    }

    fn purpose(&self, envelope: &Envelope) -> Purpose {
        match self.dialogue.login() {
            Some(login) => {
                let now = clock::now();
                let author = envelope.reverse_path.address().unwrap_or(&login.address).clone();
                let msg_id = format!("{}@{}", envelope.id, self.services.policy.hostname);
                Purpose::Submit(Completion { author, date: posthouse_wire::smtp::trace::date_time(now), msg_id })
            }
            None if envelope.recipients.len() == 1 => Purpose::Deliver,
            None => Purpose::Spool,
        }
    }

    fn data_limits(&self) -> DataLimits {
        let smtp = &self.services.settings.smtp;
        DataLimits {
            message_max: smtp.message_max.get(),
            text_line_max: smtp.text_line_max.len(),
            header_max: smtp.header_max.len(),
            header_fields_max: smtp.header_fields_max,
            received_max: smtp.received_max,
        }
    }
}
