//! What an event is, and the one function that lets it happen.

/// Something worth telling: a log line, a moved metric, or both.
pub trait Event {
    /// Moves the metrics of this event.
    fn measure(&self) {}
    /// Writes the log line of this event.
    fn log(&self) {}
}

/// Lets an event happen.
pub fn emit(event: impl Event) {
    event.measure();
    event.log();
}

/// Declares an event: its fields, its level, the text of its line and what it measures.
///
/// ```text
/// event! {
///     /// A remote host asked us to come back later.
///     RelayDeferred { message: IngestId, next_hop: String, reason: String }
///     info "delivery deferred"
///     |event| DELIVERIES.with_label_values(&["deferred"]).inc()
/// }
/// ```
/// Fields are written with `Display`. The level is `error` (an operator must act), `warn` (it heals by itself), `info` (one
/// line per transaction), `trace` (redacted protocol) or `silent` (a metric only).
macro_rules! event {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? } $level:ident $text:literal $(|$event:ident| $measure:expr)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }

        impl $crate::emit::Event for $name {
            $(fn measure(&self) { let $event = self; let _ = $event; $measure; })?
            fn log(&self) { $crate::emit::line!($level $text, $($field = self.$field),*); }
        }
    };
}

/// One log line at a level; `silent` writes none. A field `message` is written as `ingest`: the id of the mail, since
/// tracing keeps the name `message` for the text of the line.
macro_rules! line {
    (silent $text:literal, $($field:ident = $value:expr),*) => { $(let _ = &$value;)* };
    ($level:ident $text:literal, $($fields:tt)*) => { $crate::emit::line!(@ $level $text, [] $($fields)*) };
    (@ $level:ident $text:literal, [$($done:tt)*] message = $value:expr $(, $($rest:tt)*)?) => {
        $crate::emit::line!(@ $level $text, [$($done)* ingest = %$value,] $($($rest)*)?)
    };
    (@ $level:ident $text:literal, [$($done:tt)*] $field:ident = $value:expr $(, $($rest:tt)*)?) => {
        $crate::emit::line!(@ $level $text, [$($done)* $field = %$value,] $($($rest)*)?)
    };
    (@ $level:ident $text:literal, [$($done:tt)*]) => { tracing::$level!($($done)* $text) };
}

pub(crate) use {event, line};
