//! When a session whose client says nothing goes to sleep (`node.sleep_after`).
//!
//! Only its client keeps a session awake: one that was woken by something else sleeps on as soon as it has nothing to do.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub struct Doze {
    /// `None`: never.
    after: Option<Duration>,
    at: Option<Instant>,
}

impl Doze {
    pub fn new(settings: &posthouse_conf::Node) -> Self {
        Self { after: Some(settings.sleep_after.get()).filter(|after| !after.is_zero()), at: None }
    }

    /// Of a session that goes on; `drowsy` where it slept and was not woken by its client.
    pub fn resumed(settings: &posthouse_conf::Node, drowsy: bool) -> Self {
        Self { at: drowsy.then(Instant::now), ..Self::new(settings) }
    }

    /// The client is waited for: until when without sleep.
    pub fn at(&mut self) -> Option<Instant> {
        let after = self.after?;
        Some(*self.at.get_or_insert_with(|| Instant::now() + after))
    }

    /// The client has said something.
    pub fn stir(&mut self) {
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use posthouse_conf::{Node, Span};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_client_puts_it_off() {
        let settings = Node { sleep_after: Span::secs(60), ..Node::default() };
        let (begin, mut doze) = (Instant::now(), Doze::new(&settings));
        assert_eq!(doze.at(), Some(begin + Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(doze.at(), Some(begin + Duration::from_secs(60)));
        doze.stir();
        assert_eq!(doze.at(), Some(begin + Duration::from_secs(110)));
        assert_eq!(Doze::resumed(&settings, true).at(), Some(Instant::now()));
        let never = Node { sleep_after: Span::secs(0), ..Node::default() };
        assert_eq!((Doze::new(&never).at(), Doze::resumed(&never, true).at()), (None, None));
    }
}
