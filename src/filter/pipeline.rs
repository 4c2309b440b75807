//! The stages in order, their deadlines, the score, and the last word.

use std::sync::{Arc, Mutex};

use posthouse_mail::{Action, Reply, Verdict};
use posthouse_net::{PrefixSet, Resolver};
use posthouse_obs::emit;
use posthouse_obs::event::filter::{MessageJudged, StageFailed, StageRan, StageSpared, StageTimedOut};
use tokio::time::{Instant, timeout};

use crate::context::Context;
use crate::dkim::DkimStage;
use crate::dmarc::DmarcStage;
use crate::dns::Dns;
use crate::error::Error;
use crate::headers::action_word;
use crate::lists::Lists;
use crate::spf::SpfStage;
use crate::stage::{FinalWord, OnFailure, Stage};

/// Which stage a message is in; it outlives the run, so that whoever watches it knows what a message died of.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Option<&'static str>>>);

impl Progress {
    /// The stage that runs now, or ran last when the run broke off.
    pub fn stage(&self) -> Option<&'static str> {
        *self.0.lock().expect("nothing panics while it holds this lock")
    }

    fn enter(&self, stage: Option<&'static str>) {
        *self.0.lock().expect("nothing panics while it holds this lock") = stage;
    }
}

/// Every stage of this site, and the scores that decide.
pub struct Pipeline {
    stages: Vec<Arc<dyn Stage>>,
    junk_score: f64,
    reject_score: f64,
}

/// Why a stage did not answer.
enum Miss {
    /// It needs DNS, which is away.
    Spared,
    TimedOut,
    Failed(Error),
}

impl Pipeline {
    /// The stages that the settings ask for.
    pub fn from_settings(settings: &posthouse_conf::Filter, resolver: &Resolver) -> Result<Self, Error> {
        let dns = Arc::new(Dns::new(resolver, settings.stage_timeout.get()));
        let trusted = PrefixSet::parse(&settings.trusted);
        let mut stages: Vec<Arc<dyn Stage>> = vec![Arc::new(Lists::new(&settings.allow, &settings.deny)?)];
        if settings.spf {
            stages.push(Arc::new(SpfStage::new(Arc::clone(&dns), trusted.clone(), settings)));
        }
        if settings.dkim {
            stages.push(Arc::new(DkimStage::new(Arc::clone(&dns), settings)));
        }
        if settings.dmarc {
            stages.push(Arc::new(DmarcStage::new(dns, trusted, settings)));
        }
        Ok(Self::new(stages, settings))
    }

    /// Stages given one by one; they run in the order of their cost, equal ones as given.
    pub fn new(mut stages: Vec<Arc<dyn Stage>>, settings: &posthouse_conf::Filter) -> Self {
        stages.sort_by_key(|stage| stage.cost());
        Self { stages, junk_score: settings.junk_score, reject_score: settings.reject_score }
    }

    /// Judges a message; stages named in `skipped` are left out, which the verdict says.
    pub async fn judge(&self, context: &mut Context, skipped: &[&'static str], progress: &Progress) -> Verdict {
        let mut last_word = None;
        for stage in &self.stages {
            if skipped.contains(&stage.name()) {
                context.note(stage.name(), "skipped", 0.0);
                continue;
            }
            progress.enter(Some(stage.name()));
            last_word = run(stage.as_ref(), context).await;
            if last_word.is_some() {
                break;
            }
        }
        progress.enter(None);
        let verdict = self.conclude(context, last_word);
        emit(MessageJudged {
            message: context.message.envelope.id,
            client: context.message.origin.client_ip,
            action: action_word(verdict.action),
            score: verdict.score(),
            reason: leading_reason(&verdict),
            findings: findings(&verdict),
        });
        verdict
    }

    fn conclude(&self, context: &mut Context, last_word: Option<FinalWord>) -> Verdict {
        let evidence = std::mem::take(&mut context.evidence);
        let mut verdict = Verdict { action: Action::Accept, evidence, reply: None };
        if let Some(word) = last_word {
            verdict.action = word.action;
            verdict.reply = word.reply;
        } else if context.is_allowed() {
            verdict.action = Action::Accept;
        } else if verdict.score() >= self.reject_score {
            verdict.action = Action::Reject;
            verdict.reply = Some(Reply::new(550, (5, 7, 1), "the message looks like spam"));
        } else if verdict.score() >= self.junk_score {
            verdict.action = Action::Junk;
        }
        verdict
    }
}

/// Runs one stage under its deadline.
async fn run(stage: &dyn Stage, context: &mut Context) -> Option<FinalWord> {
    let start = Instant::now();
    let result = timeout(stage.deadline(), stage.examine(context)).await;
    emit(StageRan { stage: stage.name(), seconds: start.elapsed().as_secs_f64() });
    match result {
        Ok(Ok(word)) => word,
        Ok(Err(Error::DnsAway)) => missed(stage, context, Miss::Spared),
        Ok(Err(Error::TimedOut(_))) | Err(_) => missed(stage, context, Miss::TimedOut),
        Ok(Err(error)) => missed(stage, context, Miss::Failed(error)),
    }
}

fn missed(stage: &dyn Stage, context: &mut Context, miss: Miss) -> Option<FinalWord> {
    let message = context.message.envelope.id;
    let finding = match miss {
        Miss::Spared => {
            emit(StageSpared { stage: stage.name() });
            "no DNS"
        }
        Miss::TimedOut => {
            emit(StageTimedOut { stage: stage.name(), message });
            "timed out"
        }
        Miss::Failed(error) => {
            emit(StageFailed { stage: stage.name(), message, reason: error.to_string() });
            "failed"
        }
    };
    stage.gave_up(context);
    context.note(stage.name(), finding, 0.0);
    let reply = Reply::new(451, (4, 7, 1), "the message cannot be checked now, try again later");
    (stage.on_failure() == OnFailure::Closed).then_some(FinalWord { action: Action::Defer, reply: Some(reply) })
}

/// The stage that decided: the last to speak where the run was cut short, else the one that weighs most.
fn leading_reason(verdict: &Verdict) -> &'static str {
    if verdict.action == Action::Accept {
        return "none";
    }
    let heaviest = verdict.evidence.iter().rev().max_by(|a, b| a.score.total_cmp(&b.score));
    heaviest.map_or("none", |evidence| evidence.stage)
}

fn findings(verdict: &Verdict) -> String {
    let shown: Vec<String> = verdict.evidence.iter().map(|e| format!("{}={}", e.stage, e.finding)).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use posthouse_conf::Filter;
    use posthouse_mail::stage::{BodyRef, Origin, ReceivedMessage};
    use posthouse_mail::{Address, BlobId, Envelope, IngestId, ReversePath, UnixMillis};

    use super::*;
    use crate::authentication_results::{AuthResult, SpfFinding, SpfIdentity};
    use crate::budget::ContentBudget;
    use crate::context::Content;
    use crate::stage::Cost;

    /// A stage that does one thing.
    struct Fixed {
        name: &'static str,
        cost: Cost,
        on_failure: OnFailure,
        act: fn(&mut Context) -> Result<Option<FinalWord>, Error>,
        hangs: bool,
    }

    impl Default for Fixed {
        fn default() -> Self {
            Self { name: "fixed", cost: Cost::Content, on_failure: OnFailure::Open, act: |_| Ok(None), hangs: false }
        }
    }

    impl Stage for Fixed {
        fn name(&self) -> &'static str {
            self.name
        }

        fn cost(&self) -> Cost {
            self.cost
        }

        fn deadline(&self) -> Duration {
            Duration::from_secs(5)
        }

        fn on_failure(&self) -> OnFailure {
            self.on_failure
        }

        fn examine<'a>(&'a self, context: &'a mut Context) -> BoxFuture<'a, Result<Option<FinalWord>, Error>> {
            if self.hangs {
                return std::future::pending().boxed();
            }
            std::future::ready((self.act)(context)).boxed()
        }
    }

    async fn context(sender: &str) -> Context {
        let message = ReceivedMessage {
            envelope: Envelope::new(
                IngestId::new(1),
                ReversePath::Address(Address::parse(sender).expect("an address")),
            ),
            origin: Origin {
                client_ip: [192, 0, 2, 1].into(),
                hello: "client.test".into(),
                protocol: "ESMTP",
                tls: None,
                account: None,
            },
            body: BodyRef { blob: BlobId::new([0; 32]), size: 0 },
            received_at: UnixMillis(1_800_000_000_000),
        };
        let body = Arc::new(Bytes::from_static(b"From: a@x.test\r\n\r\n"));
        let content = Content::load(body, &ContentBudget::new(1 << 20), 1 << 20).await.expect("content in memory");
        Context::new(message, content)
    }

    async fn judge(stages: Vec<Fixed>, settings: &Filter) -> Verdict {
        let mut all: Vec<Arc<dyn Stage>> =
            vec![Arc::new(Lists::new(&settings.allow, &settings.deny).expect("good lists"))];
        all.extend(stages.into_iter().map(|stage| Arc::new(stage) as Arc<dyn Stage>));
        let mut context = context("a@x.test").await;
        Pipeline::new(all, settings).judge(&mut context, &[], &Progress::default()).await
    }

    fn scoring(score: f64) -> Fixed {
        let act = if score >= 15.0 {
            |context: &mut Context| {
                context.note("fixed", "bad", 15.0);
                Ok(None)
            }
        } else if score >= 6.0 {
            |context: &mut Context| {
                context.note("fixed", "bad", 6.0);
                Ok(None)
            }
        } else {
            |context: &mut Context| {
                context.note("fixed", "bad", 5.9);
                Ok(None)
            }
        };
        Fixed { act, ..Fixed::default() }
    }

    #[tokio::test]
    async fn the_score_decides_between_inbox_junk_and_refusal() {
        let settings = Filter::default();
        assert_eq!(judge(vec![scoring(5.9)], &settings).await.action, Action::Accept);
        assert_eq!(judge(vec![scoring(6.0)], &settings).await.action, Action::Junk);
        let refused = judge(vec![scoring(15.0)], &settings).await;
        assert_eq!(refused.action, Action::Reject);
        assert_eq!(refused.reply.expect("a refusal has a reply").code, 550);
    }

    #[tokio::test]
    async fn cheap_stages_run_first_and_a_final_word_ends_the_run() {
        let act = |context: &mut Context| {
            context.note("cheap", "no", 0.0);
            Ok(Some(FinalWord::reject("no")))
        };
        let cheap = Fixed { name: "cheap", cost: Cost::Envelope, act, ..Fixed::default() };
        let verdict = judge(vec![scoring(15.0), cheap], &Filter::default()).await;
        assert_eq!(verdict.evidence.len(), 1, "the dear stage never ran");
        assert_eq!(verdict.action, Action::Reject);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_hangs_fails_open_or_closed_as_it_says() {
        let open = judge(vec![Fixed { hangs: true, ..Fixed::default() }], &Filter::default()).await;
        assert_eq!(open.action, Action::Accept);
        assert_eq!(open.evidence[0].finding, "timed out");
        let closed = Fixed { hangs: true, on_failure: OnFailure::Closed, ..Fixed::default() };
        let closed = judge(vec![closed], &Filter::default()).await;
        assert_eq!(closed.action, Action::Defer);
        assert!(closed.reply.expect("a delay has a reply").is_transient());
    }

    #[tokio::test]
    async fn lists_let_through_what_is_proved_and_refuse_what_is_denied() {
        let deny = |entry: &str| Filter { deny: vec![entry.into()], ..Filter::default() };
        for entry in ["192.0.2.0/24", "A@X.test", "x.test", "test"] {
            assert_eq!(judge(vec![], &deny(entry)).await.action, Action::Reject, "{entry}");
        }
        for entry in ["198.51.100.0/24", "b@x.test", "y.test", "est"] {
            assert_eq!(judge(vec![], &deny(entry)).await.action, Action::Accept, "{entry}");
        }
        let allow = |entry: &str| Filter { allow: vec![entry.into()], ..Filter::default() };
        assert_eq!(judge(vec![scoring(15.0)], &allow("192.0.2.1")).await.action, Action::Accept);
        assert_eq!(
            judge(vec![scoring(15.0)], &allow("x.test")).await.action,
            Action::Reject,
            "anybody can write that name"
        );
        let proved = Fixed {
            act: |context| {
                let domain = "x.test".to_owned();
                let identity = SpfIdentity::MailFrom;
                context.facts.spf = Some(SpfFinding { result: AuthResult::Pass, identity, domain, reason: None });
                Ok(None)
            },
            ..Fixed::default()
        };
        assert_eq!(judge(vec![proved, scoring(15.0)], &allow("x.test")).await.action, Action::Accept);
    }

    #[tokio::test]
    async fn a_skipped_stage_is_named_in_the_verdict() {
        let stage: Arc<dyn Stage> = Arc::new(scoring(15.0));
        let mut context = context("a@x.test").await;
        let pipeline = Pipeline::new(vec![stage], &Filter::default());
        let verdict = pipeline.judge(&mut context, &["fixed"], &Progress::default()).await;
        assert_eq!((verdict.action, verdict.evidence[0].finding.as_str()), (Action::Accept, "skipped"));
    }
}
